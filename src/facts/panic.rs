//! Panic: lists unhealthy backends too, if too little of a service is healthy.
//!
//! In: the healthy weight and the whole weight, the threshold, the time. Out: whether the
//! service is in panic, and which backends are listed then. Pure. Panic lists only backends
//! that health alone excludes, and never backends that operators or selectors exclude.
//!
//! The rule is Envoy's panic threshold, applied to weight instead of hosts. It adds a
//! hysteresis: without one, lists change with every probe while a service is at the
//! threshold.

/// How many percentage points above the threshold a service must be to leave panic.
const ABOVE: u32 = 5;
/// How many probe intervals it must stay there to leave panic.
const INTERVALS: u64 = 2;

/// The rules for when a service is in panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The percentage of the weight that must be healthy. 0 switches panic off.
    pub percent: u32,
    /// The time between two probes of a backend, in milliseconds.
    pub interval: u64,
}

/// Whether one service is in panic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Panic {
    active: bool,
    /// Since when enough weight is healthy to leave panic, in milliseconds.
    well_since: Option<u64>,
}

impl Panic {
    /// Applies the rules. `healthy` is the healthy weight, `total` the weight of all
    /// backends that could be listed, and `now` is in milliseconds. Returns whether the
    /// service is in panic.
    pub fn update(&mut self, healthy: u64, total: u64, rules: Rules, now: u64) -> bool {
        let reaches = |percent: u32| {
            let part = u128::from(healthy) * 100;
            part >= u128::from(total) * u128::from(percent)
        };
        if rules.percent == 0 {
            *self = Self::default();
        } else if !reaches(rules.percent.min(100)) {
            *self = Self { active: true, well_since: None };
        } else if self.active {
            let well = reaches((rules.percent + ABOVE).min(100));
            self.well_since = well.then(|| self.well_since.unwrap_or(now));
            if self.leaves_at(rules).is_some_and(|at| at <= now) {
                *self = Self::default();
            }
        }
        self.active
    }

    /// Returns whether the service is in panic.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Returns when the service leaves panic if its health does not change; `None` if it
    /// would not leave panic.
    #[must_use]
    pub fn leaves_at(&self, rules: Rules) -> Option<u64> {
        self.well_since.map(|since| since.saturating_add(INTERVALS * rules.interval))
    }

    /// Returns whether a backend is listed. `passed` says whether the passes before health
    /// keep it.
    #[must_use]
    pub fn lists(&self, passed: bool, healthy: bool) -> bool {
        passed && (healthy || self.active)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { percent: 50, interval: 10_000 };

    #[test]
    fn panic_begins_at_once_and_ends_after_two_intervals() {
        let mut panic = Panic::default();
        assert!(!panic.update(50, 100, RULES, 0), "half is enough");
        assert!(panic.update(49, 100, RULES, 1));
        assert!(
            panic.lists(true, false) && !panic.lists(false, false) && !panic.lists(false, true)
        );
        assert!(panic.update(54, 100, RULES, 2));
        assert_eq!(panic.leaves_at(RULES), None, "it would be back at once");
        assert!(panic.update(55, 100, RULES, 3));
        assert!(panic.update(60, 100, RULES, 20_002));
        assert_eq!(panic.leaves_at(RULES), Some(20_003));
        // The time starts again after any fall.
        assert!(panic.update(54, 100, RULES, 20_003));
        assert!(panic.update(55, 100, RULES, 30_000));
        assert!(!panic.update(55, 100, RULES, 50_000));
        assert!(!panic.lists(true, false));
    }

    #[test]
    fn a_service_without_backends_or_without_a_threshold_is_not_in_panic() {
        let mut panic = Panic::default();
        assert!(!panic.update(0, 0, RULES, 0));
        let none = Rules { percent: 0, ..RULES };
        assert!(!panic.update(0, 100, none, 0));
        assert!(panic.update(0, 100, RULES, 0));
        assert!(!panic.clone().update(0, 100, none, 1), "the threshold was taken away");
        let all = Rules { percent: 100, ..RULES };
        assert!(panic.update(99, 100, all, 0) && panic.update(100, 100, all, 30_000));
        assert!(!panic.update(100, 100, all, 50_000));
    }

    proptest! {
        #[test]
        fn the_threshold_always_holds(
            healths in proptest::collection::vec((0..=100_u64, 0..30_000_u64), 1..40), percent in 0..=100_u32,
        ) {
            let (mut panic, mut now, mut changes) = (Panic::default(), 0, Vec::new());
            let rules = Rules { percent, ..RULES };
            for (healthy, pause) in healths {
                now += pause;
                let before = panic.is_active();
                let active = panic.update(healthy, 100, rules, now);
                if before != active { changes.push((active, now)); }
                prop_assert!(active || healthy >= u64::from(percent));
                prop_assert_eq!(panic.clone().update(healthy, 100, rules, now), active, "asking again");
            }
            // It never ends sooner than two intervals after it began.
            let soon = |two: &[(bool, u64)]| two[0].0 && two[1].1 - two[0].1 < 20_000;
            prop_assert!(!changes.windows(2).any(soon));
        }
    }
}
