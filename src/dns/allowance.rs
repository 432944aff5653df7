//! How much more than they sent those get who ask by datagram.
//!
//! In: where a question came from, its length and its answer's. Out: whether
//! the answer may be sent. A datagram's sender may be forged, and a long answer
//! to a short question be a weapon against whoever is named as the sender. Pure;
//! what it remembers has one size.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// What each network of askers may still get.
pub(super) struct Allowance {
    /// Networks share one by chance: then they get less, and ask by TCP.
    accounts: Box<[Account]>,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Account {
    bytes: u32,
    filled: Instant,
}

/// An answer of up to so many times its question's length is no weapon.
const FACTOR: usize = 3;
/// What a network gets beyond that in a second: 50 of the longest answers. A
/// client asks once in half a minute or less.
const BYTES_PER_SECOND: u32 = 64 * 1024;
pub(super) const ACCOUNTS: usize = 4096;

impl Allowance {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        let full = Account { bytes: BYTES_PER_SECOND, filled: now };
        Self { accounts: vec![full; ACCOUNTS].into(), seed }
    }

    /// Whether an answer may be sent; it is then paid for.
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
        let account = &mut self.accounts[place(network(asker.ip()), self.seed)];
        let since = now.saturating_duration_since(account.filled).min(Duration::from_secs(1));
        let due = (f64::from(BYTES_PER_SECOND) * since.as_secs_f64()) as u32;
        // Asked more often than a byte becomes due, it would never fill.
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

/// Who shares an account: a /24 of IPv4, a /56 of IPv6.
pub(super) fn network(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
    }
}

/// Nobody without the seed knows who shares an account with whom.
pub(super) fn place(network: u64, seed: u64) -> usize {
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
        let mut allowance = Allowance::new(7, began);
        let mut taken = 0;
        while allowance.take(asker(1), 40, 1200, began) {
            taken += 1;
        }
        assert_eq!(taken, BYTES_PER_SECOND / 1200);
        // Neighbours share; others do not.
        assert!(!allowance.take(asker(2), 40, 1200, began));
        assert!(allowance.take(([198, 51, 100, 1], 53).into(), 40, 1200, began));
        assert!(allowance.take(asker(1), 40, 120, began));
        assert!(!allowance.take(asker(1), 40, 1200, began + Duration::from_micros(1)));
        let later = began + Duration::from_millis(500);
        let taken = (0..1_000).filter(|_| allowance.take(asker(1), 40, 1200, later)).count();
        assert!((26..=28).contains(&taken), "{taken}");
    }

    #[test]
    fn however_often_it_is_asked_it_fills() {
        let began = Instant::now();
        let mut allowance = Allowance::new(7, began);
        while allowance.take(asker(1), 40, 1200, began) {}
        let at = |micros| began + Duration::from_micros(micros);
        let ask = |micros: &u64| allowance.take(asker(1), 40, 1200, at(*micros));
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
