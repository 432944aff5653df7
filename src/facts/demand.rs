//! The demand of a service's clients, by the zone in which they are.
//!
//! In: streams that join and leave, and the calls that they report. Out: the calls per second
//! of each zone, smoothed, as a [`Demand`]. Pure. A client that has not reported counts as the
//! mean client.
//!
//! A zone's rate decays all the time, and each report adds what decayed. So the sum of a
//! zone costs the same however many clients it has, and a client that leaves takes exactly
//! its part with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The demand of the clients of each zone, in thousandths of calls per second. If no client
/// has reported calls, it is in clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// By zone.
    pub zones: BTreeMap<Arc<str>, u64>,
    /// The demand of clients whose zone is unknown.
    pub unknown: u64,
}

/// The clients of one service in one zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZoneClients {
    clients: usize,
    /// How many of them have not reported yet.
    silent: usize,
    /// The calls per second of the others at `at`.
    rate: f64,
    at: Instant,
    smoothed_over: Duration,
}

/// One client's part of its zone's rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClientRate {
    /// Its calls per second at its last report; `None` if it has not reported.
    rate: Option<f64>,
    /// When it reported last, or joined.
    since: Instant,
}

/// The time over which rates are smoothed. With 60 s there are half as many changes of lists
/// again, and the balance is no better.
const SMOOTHED_OVER: Duration = Duration::from_secs(90);
/// Rates are smoothed over at least this many reports of a client.
const REPORTS: u32 = 4;
/// The shortest time that a report counts for. A client may report right after it joined.
const REPORT_MIN: Duration = Duration::from_secs(1);

/// Returns the calls per second of a client that reported `calls` after `time`.
#[must_use]
pub fn per_second(calls: u64, time: Duration) -> f64 {
    calls as f64 / time.max(REPORT_MIN).as_secs_f64()
}

impl ZoneClients {
    /// Makes a zone without clients. Its clients report at this interval.
    #[must_use]
    pub fn new(report_interval: Duration, now: Instant) -> Self {
        let smoothed_over = SMOOTHED_OVER.max(report_interval * REPORTS);
        Self { clients: 0, silent: 0, rate: 0.0, at: now, smoothed_over }
    }

    /// Returns how many clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// Adds a client.
    pub fn join(&mut self, now: Instant) -> ClientRate {
        self.clients += 1;
        self.silent += 1;
        ClientRate { rate: None, since: now }
    }

    /// Adds the calls that a client started since its last report.
    pub fn report(&mut self, client: &mut ClientRate, started: u64, now: Instant) {
        let time = now.saturating_duration_since(client.since);
        let rate = per_second(started, time);
        let kept = self.kept(time);
        let (more, rate) = match client.rate {
            Some(old) => ((1.0 - kept) * rate, old * kept + (1.0 - kept) * rate),
            None => (rate, rate),
        };
        self.silent -= usize::from(client.rate.is_none());
        *client = ClientRate { rate: Some(rate), since: now };
        self.add(more, now);
    }

    /// Removes a client.
    pub fn leave(&mut self, client: ClientRate, now: Instant) {
        self.clients -= 1;
        match client.rate {
            None => self.silent -= 1,
            Some(rate) => {
                self.add(-rate * self.kept(now.saturating_duration_since(client.since)), now);
            }
        }
    }

    fn add(&mut self, more: f64, now: Instant) {
        // Without reporting clients nothing is left, whatever was rounded.
        let reporting = self.clients > self.silent;
        self.rate = if reporting { (self.rate_at(now) + more).max(0.0) } else { 0.0 };
        self.at = now;
    }

    fn rate_at(&self, now: Instant) -> f64 {
        self.rate * self.kept(now.saturating_duration_since(self.at))
    }

    /// Returns the part of a rate that is left after some time.
    fn kept(&self, time: Duration) -> f64 {
        (-time.as_secs_f64() / self.smoothed_over.as_secs_f64()).exp()
    }
}

impl Demand {
    /// Returns the demand of a service's clients; the zone `None` is that of clients whose
    /// zone is unknown.
    #[must_use]
    pub fn of(zones: &[(Option<Arc<str>>, ZoneClients)], now: Instant) -> Self {
        let rate: f64 = zones.iter().map(|(_, zone)| zone.rate_at(now)).sum();
        let reporting: usize = zones.iter().map(|(_, zone)| zone.clients - zone.silent).sum();
        let mean = rate / reporting.max(1) as f64;
        let mut demand = Self::default();
        for (name, zone) in zones {
            let calls = zone.rate_at(now) + zone.silent as f64 * mean;
            let all = if rate > 0.0 { calls } else { zone.clients as f64 };
            let all = (1_000.0 * all).round() as u64;
            match name {
                Some(name) => *demand.zones.entry(name.clone()).or_default() += all,
                None => demand.unknown += all,
            }
        }
        demand
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn of(zones: &[(&str, ZoneClients)], now: Instant) -> Vec<u64> {
        let zone = |&(name, zone): &(&str, ZoneClients)| (Some(name.into()), zone);
        let zones: Vec<_> = zones.iter().map(zone).collect();
        Demand::of(&zones, now).zones.into_values().collect()
    }

    #[test]
    fn a_client_that_has_not_reported_counts_as_the_mean_client() {
        let start = Instant::now();
        let (mut a, mut b) = (ZoneClients::new(INTERVAL, start), ZoneClients::new(INTERVAL, start));
        let (mut one, mut two) = (a.join(start), a.join(start));
        let silent = b.join(start);
        assert_eq!(of(&[("a", a), ("b", b)], start), [2_000, 1_000], "clients count");
        let now = at(start, 10);
        a.report(&mut one, 300, now);
        assert_eq!(of(&[("a", a), ("b", b)], now), [60_000, 30_000]);
        a.report(&mut two, 100, now);
        assert_eq!(of(&[("a", a), ("b", b)], now), [40_000, 20_000]);
        a.leave(one, now);
        assert_eq!(of(&[("a", a), ("b", b)], now), [10_000, 10_000]);
        a.leave(two, now);
        b.leave(silent, now);
        assert_eq!((a.clients(), of(&[("a", a), ("b", b)], now)), (0, vec![0, 0]));
        // Clients that make no calls count alike, whether they report or not.
        let (mut idle, _) = (a.join(now), b.join(now));
        a.report(&mut idle, 0, at(start, 20));
        assert_eq!(of(&[("a", a), ("b", b)], at(start, 20)), [1_000, 1_000]);
    }

    #[test]
    fn a_steady_client_is_seen_at_once_and_an_idle_one_is_forgotten() {
        let start = Instant::now();
        let mut zone = ZoneClients::new(INTERVAL, start);
        let mut client = zone.join(start);
        for report in 1..=60 {
            let now = at(start, 10 * report);
            zone.report(&mut client, 50, now);
            assert_eq!(of(&[("a", zone)], now), [5_000]);
            let before = of(&[("a", zone)], at(now, 9))[0];
            assert!(before > 4_400, "{before}");
        }
        // C-core reports no second time that there are no calls.
        let mut busy = ZoneClients::new(INTERVAL, start);
        let mut other = busy.join(start);
        busy.report(&mut other, 50, at(start, 10));
        let later = at(start, 600 + 10 * 60);
        let all = of(&[("a", zone), ("b", busy)], later);
        assert!(all[0] < 10, "{all:?}");
    }

    proptest! {
        /// The sum of a zone is that of its clients, in whatever order they report and leave.
        #[test]
        fn a_zone_is_the_sum_of_its_clients(
            steps in proptest::collection::vec((0..6_usize, 0..20_u64, 0..1_000_u64, 0..9_u8), 1..80),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut zone = ZoneClients::new(INTERVAL, now);
            let mut alone: [Option<(ZoneClients, ClientRate, ClientRate)>; 6] = [None; 6];
            for (at, wait, calls, action) in steps {
                now += Duration::from_secs(wait);
                match (alone[at].take(), action) {
                    (None, _) => {
                        let mut own = ZoneClients::new(INTERVAL, now);
                        let same = own.join(now);
                        alone[at] = Some((own, zone.join(now), same));
                    }
                    (Some((_, client, _)), 0) => zone.leave(client, now),
                    (Some((mut own, mut client, mut same)), _) => {
                        zone.report(&mut client, calls, now);
                        own.report(&mut same, calls, now);
                        alone[at] = Some((own, client, same));
                    }
                }
                let sum: f64 = alone.iter().flatten().map(|(own, ..)| own.rate_at(now)).sum();
                prop_assert!((zone.rate_at(now) - sum).abs() < 1e-6 * (1.0 + sum));
                prop_assert_eq!(zone.clients(), alone.iter().flatten().count());
            }
        }
    }
}
