//! Limits the work that questions cause, per network of askers and in all.
//!
//! In: the asker, the cost of its question, the time. Out: how long that network's next
//! question must wait.
//! The sender of a datagram may be forged, so a question by UDP does not wait: it is
//! sent to TCP, where each connection waits for its turn. Pure; its memory has a fixed
//! size.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::byte_limit::{ACCOUNTS, account_index, network};

/// The time at which the work of each network, and of all, is paid off.
pub(super) struct WorkLimit {
    rates: Rates,
    /// Networks may share an account by chance. They then get less.
    networks: Box<[Instant]>,
    all: Instant,
    seed: u64,
}

/// Steps per second. A step is an endpoint looked at or a byte of an answer, and takes
/// about 20 ns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// For one network.
    network: u32,
    /// For all networks together.
    all: u32,
}

/// By UDP: a hundredth of a processor for a network, a tenth for all. Only work whose
/// result is not cached costs anything: a large service's addresses once after each
/// change, and the addresses of a selection the first time.
pub(super) const UDP: Rates = Rates { network: 500_000, all: 5_000_000 };
/// By TCP every answer costs: 800 of the largest answers a second for a network, and
/// five times as many for all.
pub(super) const TCP: Rates = Rates { network: 2_000_000, all: 10_000_000 };
/// How much work a network can save up while it does not ask. With more, other networks
/// would wait for it.
const BURST: Duration = Duration::from_millis(10);

impl WorkLimit {
    pub(super) fn new(rates: Rates, seed: u64, now: Instant) -> Self {
        Self { rates, networks: vec![now; ACCOUNTS].into(), all: now, seed }
    }

    /// Returns how long the network must wait for its turn; zero means no wait.
    pub(super) fn wait(&self, asker: IpAddr, now: Instant) -> Duration {
        let free = self.networks[account_index(network(asker), self.seed)].max(self.all);
        free.saturating_duration_since(now)
    }

    /// Counts work that was done. Work may exceed the budget; the network then owes it.
    pub(super) fn charge(&mut self, asker: IpAddr, steps: usize, now: Instant) {
        let network = &mut self.networks[account_index(network(asker), self.seed)];
        let saved = now.checked_sub(BURST).unwrap_or(now);
        for (free, rate) in [(network, self.rates.network), (&mut self.all, self.rates.all)] {
            let steps = u32::try_from(steps).unwrap_or(u32::MAX);
            *free = (*free).max(saved) + Duration::from_secs(1) / rate * steps;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { network: 100_000, all: 1_000_000 };

    fn ip(net: u8, last: u8) -> IpAddr {
        [192, 0, net, last].into()
    }

    /// Returns how many questions of this cost a network gets answered in a second when
    /// it asks every millisecond.
    fn answered(limit: &mut WorkLimit, net: u8, cost: usize, from: Instant) -> usize {
        let ask = |milli: &u64| {
            let now = from + Duration::from_millis(*milli);
            let may = limit.wait(ip(net, 1), now).is_zero();
            if may {
                limit.charge(ip(net, 1), cost, now);
            }
            may
        };
        (0..1_000).filter(ask).count()
    }

    #[test]
    fn a_network_gets_its_rate_and_others_theirs() {
        let began = Instant::now();
        let mut limit = WorkLimit::new(RATES, 7, began);
        // 100,000 steps a second, and the saved burst.
        assert!((20..=22).contains(&answered(&mut limit, 1, 5_000, began)));
        let end = began + Duration::from_secs(1);
        limit.charge(ip(1, 1), 5_000, end);
        assert!(!limit.wait(ip(1, 200), end).is_zero(), "neighbours share");
        assert!(limit.wait(ip(2, 1), end).is_zero());
        // A question that costs more than the burst is answered too, and paid off
        // later.
        limit.charge(ip(2, 1), 50_000, end);
        assert_eq!(limit.wait(ip(2, 1), end).as_millis(), 490);
    }

    #[test]
    fn all_networks_together_get_so_much() {
        let began = Instant::now();
        let mut limit = WorkLimit::new(RATES, 7, began);
        let mut taken = 0;
        for milli in 0..1_000 {
            let now = began + Duration::from_millis(milli);
            for net in 0..=255 {
                if limit.wait(ip(net, 1), now).is_zero() {
                    limit.charge(ip(net, 1), 500, now);
                    taken += 1;
                }
            }
        }
        assert!((1_990..=2_030).contains(&taken), "{taken}");
    }

    #[test]
    fn each_waits_for_its_own_turn() {
        let now = Instant::now();
        let mut limit = WorkLimit::new(RATES, 7, now);
        let waits: Vec<_> = (0..4)
            .map(|_| {
                limit.charge(ip(1, 1), 1_000, now);
                limit.wait(ip(1, 1), now).as_millis()
            })
            .collect();
        assert_eq!(waits, [10, 20, 30, 40]);
    }
}
