//! Decides whether a service is overloaded, and which part of their calls its clients drop.
//!
//! In: each second the rates of clients' calls, and what is known of the capacity of
//! the backends. Out: the part in percent, whenever it must be published. Pure. The state
//! belongs to one replica: it compares the calls of its own clients with their part of the
//! capacity. `shedding.rs` has the rule.

use super::shedding::Shedding;

/// The calls of the clients of one replica, by the newest report of each.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CallRates {
    /// How many clients there are.
    pub clients: usize,
    /// How many of them have reported.
    pub reporting: usize,
    /// Calls per second that these start, dropped ones included.
    pub started: f64,
    /// Calls per second that these send.
    pub sent: f64,
}

/// What the reports of backends say about a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Capacity {
    /// Calls per second at full utilisation, of all backends.
    pub calls: f64,
    /// The weight of these backends.
    pub weight: f64,
    /// Calls per second that they serve, whoever sends them.
    pub served: f64,
    /// Their mean utilisation by their newest reports.
    pub utilisation: f64,
    /// How long ago the newest report came, in milliseconds.
    pub age: u64,
}

/// Whether a service is overloaded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overload {
    shedding: Shedding,
    /// When the last second was applied, in milliseconds.
    at: u64,
    /// The part of the served calls that clients of this replica send.
    own: Option<f64>,
    /// The capacity for each unit of weight, when the service was last not full.
    per_weight: Option<f64>,
    /// When the last report of utilisation came that counted.
    corrected: u64,
    /// Calls per second that clients start, and those that the backends can serve for them.
    measured: Option<(f64, f64)>,
}

/// The time over which the part of this replica is smoothed, in milliseconds.
const OWN_SMOOTHED: f64 = 60_000.0;
/// The part of this replica is measured below this utilisation: beyond it, calls are started
/// that backends do not serve.
const OWN_MEASURED: f64 = 0.9;
/// Shedding begins only from this utilisation on. So a replica that gets the clients of
/// another one sheds nothing while the backends have room.
const LOADED: f64 = 0.8;
/// From this utilisation on, reports say less than the capacity: backends that are full also
/// serve calls in vain.
const FULL: f64 = 0.985;
/// The time between two corrections of the capacity by the utilisation. Milliseconds.
const CORRECTED_EVERY: u64 = 5_000;
/// Older reports of backends say nothing about the present. Milliseconds.
const FRESH: u64 = 90_000;

impl Overload {
    /// Applies one second. Returns the part that clients drop from now on, in percent; `None`
    /// if it stays.
    pub fn second(
        &mut self,
        rates: CallRates,
        capacity: Option<Capacity>,
        now: u64,
    ) -> Option<u32> {
        let passed = now.saturating_sub(std::mem::replace(&mut self.at, now));
        if rates.clients == 0 {
            let shed = self.shedding.percent() > 0;
            *self = Self::default();
            return shed.then_some(0);
        }
        let fresh = |one: &Capacity| one.age <= FRESH;
        let Some(capacity) = capacity.filter(fresh).filter(|_| rates.reporting > 0) else {
            // Nothing is known, so nothing is shed.
            self.measured = None;
            return self.shedding.tick(f64::NAN, f64::NAN);
        };
        // A client that has not reported counts as the mean client.
        let all = rates.clients as f64 / rates.reporting as f64;
        let (demand, sent) = (rates.started * all, rates.sent * all);
        self.measure_own(sent, &capacity, passed);
        if capacity.utilisation < FULL || self.per_weight.is_none() {
            self.per_weight = Some(capacity.calls / capacity.weight.max(1.0));
        }
        let whole = self.per_weight.unwrap_or(0.0) * capacity.weight;
        let own = self.own.unwrap_or(1.0) * whole;
        self.measured = Some((demand, own));
        let reported = now.saturating_sub(capacity.age);
        if reported.saturating_sub(self.corrected) >= CORRECTED_EVERY {
            self.corrected = reported;
            self.shedding.utilisation(capacity.utilisation, now);
        }
        let begins = self.shedding.is_active() || capacity.utilisation >= LOADED;
        self.shedding.tick(if begins { demand } else { 0.0 }, own)
    }

    /// Returns the part of their calls that clients drop, in percent.
    #[must_use]
    pub fn percent(&self) -> u32 {
        self.shedding.percent()
    }

    /// Returns the calls per second that clients start, and those that the backends can serve
    /// for them; `None` if they are not known.
    #[must_use]
    pub fn measured(&self) -> Option<(f64, f64)> {
        self.measured
    }

    fn measure_own(&mut self, sent: f64, capacity: &Capacity, passed: u64) {
        if capacity.served <= 0.0 || (self.own.is_some() && capacity.utilisation >= OWN_MEASURED) {
            return;
        }
        let part = (sent / capacity.served).min(1.0);
        let kept = (-(passed as f64) / OWN_SMOOTHED).exp();
        self.own = Some(self.own.map_or(part, |own| own * kept + (1.0 - kept) * part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service of one weight that can serve 100 calls a second, a part of which clients of
    /// this replica send.
    struct World {
        overload: Overload,
        now: u64,
        /// The calls that clients of other replicas send each second.
        others: f64,
    }

    fn rates(started: f64, sent: f64) -> CallRates {
        // One of two clients has reported.
        CallRates { clients: 2, reporting: 1, started: started / 2.0, sent: sent / 2.0 }
    }

    impl World {
        fn new(others: f64) -> Self {
            Self { overload: Overload::default(), now: 0, others }
        }

        /// Lets clients of this replica start calls for some seconds. Returns the percentages
        /// that were published.
        fn run(&mut self, seconds: u64, started: f64) -> Vec<u32> {
            let mut published = Vec::new();
            for _ in 0..seconds {
                self.now += 1_000;
                let sent = started * (1.0 - f64::from(self.overload.percent()) / 100.0);
                let load = sent + self.others;
                let capacity = Capacity {
                    calls: 100.0,
                    weight: 1.0,
                    served: load.min(100.0),
                    utilisation: (load / 100.0).min(1.0),
                    age: 0,
                };
                let rates = rates(started, sent);
                published.extend(self.overload.second(rates, Some(capacity), self.now));
            }
            published
        }
    }

    #[test]
    fn the_excess_is_shed_and_given_back() {
        let mut world = World::new(0.0);
        assert_eq!(world.run(60, 70.0), [0; 0]);
        let up = world.run(120, 200.0);
        assert!((50..=56).contains(&world.overload.percent()), "{up:?}");
        assert!(up.len() <= 12, "few lists: {up:?}");
        let (demand, capacity) = world.overload.measured().unwrap();
        assert!((demand - 200.0).abs() < 1.0 && (capacity - 100.0).abs() < 1.0);
        world.run(30, 60.0);
        assert_eq!(world.overload.percent(), 0);
    }

    #[test]
    fn a_replica_sheds_its_own_part_of_the_excess() {
        let mut world = World::new(50.0);
        world.run(120, 25.0);
        // All demand grows by the same factor, but the others shed theirs themselves.
        world.others = 66.0;
        world.run(120, 66.0);
        let percent = world.overload.percent();
        assert!((45..=58).contains(&percent), "{percent}");
    }

    #[test]
    fn clients_of_a_lost_replica_are_no_overload() {
        let mut world = World::new(30.0);
        world.run(120, 30.0);
        world.others = 0.0;
        assert_eq!(world.run(120, 60.0), [0; 0]);
    }

    #[test]
    fn nothing_is_shed_while_nothing_is_known() {
        let mut world = World::new(0.0);
        world.run(10, 70.0);
        world.run(60, 200.0);
        assert!(world.overload.percent() > 40);
        let now = world.now;
        let mut second =
            |capacity, at| world.overload.second(rates(200.0, 100.0), capacity, now + at);
        let gone: Vec<_> = (1..=10).filter_map(|at| second(None, at * 1_000)).collect();
        assert_eq!(gone.last(), Some(&0));
        // A report that is too old is none.
        let old = Capacity { calls: 1.0, weight: 1.0, served: 1.0, utilisation: 1.0, age: 100_000 };
        assert_eq!(second(Some(old), 200_000), None);
        world.run(60, 200.0);
        assert_eq!(world.overload.second(CallRates::default(), None, world.now), Some(0));
        assert_eq!(world.overload, Overload::default());
    }
}
