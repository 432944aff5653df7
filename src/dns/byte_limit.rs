//! Limits UDP answer bytes per client network, against amplification.
//!
//! In: the asker's address, the length of its question and of the answer, the time.
//! Out: whether the answer may be sent.
//! The sender of a datagram may be forged, so long answers to short questions could be
//! a weapon against the address that is named as the sender. Pure; its memory has a
//! fixed size.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How many bytes each network of askers may still get.
pub(super) struct ByteLimit {
    /// Networks may share an account by chance. They then get less, and ask by TCP.
    accounts: Box<[Account]>,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Account {
    bytes: u32,
    filled: Instant,
}

/// An answer of up to this many times its question's length is always sent: it does not
/// amplify enough to be a weapon.
const FACTOR: usize = 3;
/// How many bytes of longer answers a network gets per second: about 50 of the longest.
/// A client asks once in 30 seconds or less often.
const BYTES_PER_SECOND: u32 = 64 * 1024;
pub(super) const ACCOUNTS: usize = 4096;

impl ByteLimit {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        let full = Account { bytes: BYTES_PER_SECOND, filled: now };
        Self { accounts: vec![full; ACCOUNTS].into(), seed }
    }

    /// Returns whether an answer may be sent, and charges the network for it if so.
    /// `query` and `answer` are lengths in bytes.
    pub(super) fn take(
        &mut self,
        asker: SocketAddr,
        query: usize,
        answer: usize,
        now: Instant,
    ) -> bool {
        if answer <= query * FACTOR {
            return true;
        }
        let account = &mut self.accounts[account_index(network(asker.ip()), self.seed)];
        let since = now.saturating_duration_since(account.filled).min(Duration::from_secs(1));
        let due = (f64::from(BYTES_PER_SECOND) * since.as_secs_f64()) as u32;
        // With `filled` set at every question, an account that is asked more often than
        // a byte becomes due would never fill.
        if due > 0 {
            account.bytes = account.bytes.saturating_add(due).min(BYTES_PER_SECOND);
            account.filled = now;
        }
        let left = u32::try_from(answer).ok().and_then(|cost| account.bytes.checked_sub(cost));
        if let Some(left) = left {
            account.bytes = left;
        }
        left.is_some()
    }
}

/// Returns the network of an address, which shares an account: a /24 of IPv4, a /56 of
/// IPv6.
pub(super) fn network(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
    }
}

/// Returns the account of a network. Without the seed, an attacker cannot know which
/// networks share one.
pub(super) fn account_index(network: u64, seed: u64) -> usize {
    super::scramble(network ^ seed) % ACCOUNTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 53).into()
    }

    #[test]
    fn a_network_gets_so_much_a_second_and_short_answers_always() {
        let began = Instant::now();
        let mut limit = ByteLimit::new(7, began);
        let mut taken = 0;
        while limit.take(asker(1), 40, 1200, began) {
            taken += 1;
        }
        assert_eq!(taken, BYTES_PER_SECOND / 1200);
        // The same /24 shares an account; other networks do not.
        assert!(!limit.take(asker(2), 40, 1200, began));
        assert!(limit.take(([198, 51, 100, 1], 53).into(), 40, 1200, began));
        assert!(limit.take(asker(1), 40, 120, began));
        assert!(!limit.take(asker(1), 40, 1200, began + Duration::from_micros(1)));
        let later = began + Duration::from_millis(500);
        let taken = (0..1_000).filter(|_| limit.take(asker(1), 40, 1200, later)).count();
        assert!((26..=28).contains(&taken), "{taken}");
    }

    #[test]
    fn however_often_it_is_asked_it_fills() {
        let began = Instant::now();
        let mut limit = ByteLimit::new(7, began);
        while limit.take(asker(1), 40, 1200, began) {}
        let at = |micros| began + Duration::from_micros(micros);
        let ask = |micros: &u64| limit.take(asker(1), 40, 1200, at(*micros));
        let taken = (0..1_000_000).filter(ask).count();
        assert!((50..=54).contains(&taken), "{taken}");
    }

    #[test]
    fn an_address_of_ipv4_is_itself_in_either_form() {
        let plain: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(network(plain), network(mapped));
        assert_ne!(network("2001:db8::1".parse().unwrap()), network(plain));
    }
}
