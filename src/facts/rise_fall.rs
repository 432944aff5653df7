//! Counts the results of one backend's health probes until they make a verdict.
//!
//! In: results of probes, the time. Out: the verdict (whether the backend is healthy), and
//! each change of it. Pure. One failure is not enough, because a lost packet can fail a
//! probe.
//!
//! HAProxy (`rise` and `fall`) and AWS's target groups have the same rule.

/// How many results in a row change the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Successes until an unhealthy backend is healthy. 0 counts as 1.
    pub rise: u32,
    /// Failures until a healthy backend is unhealthy. 0 counts as 1.
    pub fall: u32,
}

impl Default for Thresholds {
    /// Two failures make a backend unhealthy, and one success makes it healthy again.
    fn default() -> Self {
        Self { rise: 1, fall: 2 }
    }
}

/// The health of one backend. A backend that was never probed is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiseFall {
    healthy: bool,
    /// Results in a row that contradict `healthy`.
    against: u32,
    /// Since when the verdict has been the same, in milliseconds.
    since: u64,
}

/// A change of the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The backend is unhealthy.
    Fell,
    /// The backend is healthy again.
    Rose {
        /// How many milliseconds it was unhealthy.
        after: u64,
    },
}

/// A backend that was unhealthy for longer than this starts slowly again: its caches and
/// connections are cold. Milliseconds.
pub const COLD: u64 = 30_000;

impl RiseFall {
    /// Makes the state of a backend that has not been probed yet.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { healthy: true, against: 0, since: now }
    }

    /// Adds the result of a probe. Returns the change of the verdict, if it changed.
    pub fn record(&mut self, success: bool, thresholds: Thresholds, now: u64) -> Option<Change> {
        if success == self.healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if success { thresholds.rise } else { thresholds.fall };
        if self.against < needed.max(1) {
            return None;
        }
        let after = now.saturating_sub(self.since);
        *self = Self { healthy: success, against: 0, since: now };
        Some(if success { Change::Rose { after } } else { Change::Fell })
    }

    /// Returns whether the backend is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Returns since when the verdict has been the same, in milliseconds.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Returns how many results in a row contradict the verdict.
    #[must_use]
    pub fn against(&self) -> u32 {
        self.against
    }
}

impl Change {
    /// Returns whether the backend must start slowly.
    #[must_use]
    pub fn is_cold_start(self) -> bool {
        matches!(self, Self::Rose { after } if after > COLD)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_failures_in_a_row_take_away_and_one_success_brings_back() {
        let mut one = RiseFall::new(0);
        let thresholds = Thresholds::default();
        let mut record = |success, now| one.record(success, thresholds, now);
        assert_eq!(record(false, 1), None);
        assert_eq!(record(true, 2), None);
        assert_eq!(record(false, 3), None);
        assert_eq!(record(false, 4), Some(Change::Fell));
        assert_eq!(record(false, 5), None);
        let rose = record(true, 30_004).unwrap();
        assert_eq!(rose, Change::Rose { after: 30_000 });
        assert!(!rose.is_cold_start() && Change::Rose { after: 30_001 }.is_cold_start());
        assert!(!Change::Fell.is_cold_start());
        assert!(one.is_healthy());
        assert_eq!((one.since(), one.against()), (30_004, 0));
    }

    #[test]
    fn thresholds_of_nought_are_one() {
        let mut one = RiseFall::new(0);
        let thresholds = Thresholds { rise: 0, fall: 0 };
        assert_eq!(one.record(false, thresholds, 0), Some(Change::Fell));
        assert_eq!(one.record(true, thresholds, 0), Some(Change::Rose { after: 0 }));
    }

    proptest! {
        /// The verdict changes exactly when as many results in a row contradict it as the
        /// threshold says.
        #[test]
        fn the_verdict_is_that_of_the_last_results(
            results in proptest::collection::vec(any::<bool>(), 0..60), rise in 1..5_u32, fall in 1..5_u32,
        ) {
            let thresholds = Thresholds { rise, fall };
            let mut one = RiseFall::new(0);
            for at in 0..results.len() {
                let before = one.is_healthy();
                let needed = if before { fall } else { rise } as usize;
                let row = results[..=at].iter().rev().take_while(|&&result| result != before);
                let changes = row.count() >= needed;
                let change = one.record(results[at], thresholds, at as u64);
                prop_assert_eq!(change.is_some(), changes);
                prop_assert_eq!(one.is_healthy(), before != changes);
            }
        }
    }
}
