//! How many calls each client starts per second, by what it reports.
//!
//! In: clients that join and leave, and their reports. Out: the demand of each client. A client
//! that never reported counts as the mean of those that did.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::facts::demand::per_second;

/// The rates of some clients, by the numbers of the clients.
#[derive(Default)]
pub(super) struct ClientRates(BTreeMap<u64, Rate>);

/// How many calls a client starts per second, smoothed.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// `None` before its first report.
    rate: Option<f64>,
    /// When it reported last, or joined.
    since: Instant,
}

/// The time over which rates are smoothed.
const SMOOTHED_OVER: Duration = Duration::from_secs(60);
/// A client that has been silent for longer makes no calls: C-core reports no second time that
/// there are none.
const SILENT: Duration = Duration::from_secs(60);
/// The least demand of a client, as a part of the mean: an idle client has connections too.
const IDLE: f64 = 0.05;

impl ClientRates {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, client: u64) -> bool {
        self.0.contains_key(&client)
    }

    pub(super) fn join(&mut self, client: u64, now: Instant) {
        self.0.insert(client, Rate { rate: None, since: now });
    }

    pub(super) fn leave(&mut self, client: u64) {
        self.0.remove(&client);
    }

    /// Counts the calls that a client has started since its last report.
    pub(super) fn report(&mut self, client: u64, started: u64, now: Instant) {
        let Some(client) = self.0.get_mut(&client) else { return };
        let time = now.saturating_duration_since(client.since);
        let rate = per_second(started, time);
        let kept = (-time.as_secs_f64() / SMOOTHED_OVER.as_secs_f64()).exp();
        let smoothed = client.rate.map_or(rate, |old| old * kept + (1.0 - kept) * rate);
        *client = Rate { rate: Some(smoothed), since: now };
    }

    /// Forgets a client's calls, because it reports no more.
    pub(super) fn forget(&mut self, client: u64, now: Instant) {
        if let Some(client) = self.0.get_mut(&client) {
            *client = Rate { rate: None, since: now };
        }
    }

    /// Returns the demand of each client.
    pub(super) fn demands(&self, now: Instant) -> Vec<(u64, f64)> {
        let rate = |client: &Rate| {
            let silent = now.saturating_duration_since(client.since).saturating_sub(SILENT);
            let kept = (-silent.as_secs_f64() / SMOOTHED_OVER.as_secs_f64()).exp();
            client.rate.map(|rate| rate * kept)
        };
        let rates: Vec<(u64, Option<f64>)> =
            self.0.iter().map(|(&client, state)| (client, rate(state))).collect();
        let known: Vec<f64> = rates.iter().filter_map(|one| one.1).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        // If no client makes calls, clients count alike.
        let mean = if mean > 0.0 { mean } else { 1.0 };
        let demand =
            |(client, rate): (u64, Option<f64>)| (client, rate.unwrap_or(mean).max(IDLE * mean));
        rates.into_iter().map(demand).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients in their order, and the time that has passed.
    struct Scene(ClientRates, Instant);

    impl Scene {
        fn start(clients: u64) -> Self {
            let now = Instant::now();
            let mut rates = ClientRates::default();
            (0..clients).for_each(|client| rates.join(client, now));
            Self(rates, now)
        }

        fn pass(&mut self, seconds: u64) {
            self.1 += Duration::from_secs(seconds);
        }

        fn report(&mut self, client: u64, started: u64) {
            self.0.report(client, started, self.1);
        }

        #[track_caller]
        fn has(&self, expected: &[f64]) {
            let demands: Vec<f64> = self.0.demands(self.1).into_iter().map(|one| one.1).collect();
            let is_near = |(one, other): (&f64, &f64)| (one - other).abs() < 0.01;
            assert_eq!(demands.len(), expected.len());
            assert!(demands.iter().zip(expected).all(is_near), "{demands:?}");
        }
    }

    #[test]
    fn clients_count_by_their_calls_and_others_as_the_mean() {
        let mut scene = Scene::start(4);
        scene.has(&[1.0; 4]);
        scene.pass(10);
        for (client, started) in [1_000, 0, 200].into_iter().enumerate() {
            scene.report(client as u64, started);
        }
        // One without calls has connections too.
        scene.has(&[100.0, 2.0, 20.0, 40.0]);
        scene.0.forget(0, scene.1);
        scene.has(&[10.0, 0.5, 20.0, 10.0]);
    }

    #[test]
    fn rates_are_smoothed_and_fade_when_a_client_falls_silent() {
        let mut scene = Scene::start(2);
        scene.pass(10);
        (0..2).for_each(|client| scene.report(client, 1_000));
        scene.pass(60);
        scene.report(1, 6_000);
        scene.has(&[100.0, 100.0]);
        // The silent minute is over for one, and the other says that it made no calls.
        scene.pass(60);
        scene.report(1, 0);
        let rest = 100.0 / std::f64::consts::E;
        scene.has(&[rest, rest]);
    }
}
