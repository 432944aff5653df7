//! Slow start: a backend that joined a short time ago gets a growing part of its share.
//!
//! In: when each backend joined, the window, the time. Out: a factor for each weight, and
//! the time of the next change of a factor. Pure.
//!
//! Every change of a factor is a push to every client. So there are few steps, and they
//! happen at multiples of their length on the wall clock. All starting backends take a step
//! in the same push, and all replicas push it at the same moment.

use super::factor::Factor;

/// The factor in each step of the window. The simulation compared these five steps with
/// eight steps, Envoy's straight line and geometric steps. A newcomer gets no more calls in
/// its first ten seconds than with those. Five steps cost five pushes, including the push
/// with which the newcomer joins.
pub const FACTORS: [Factor; 5] = [
    Factor::millionths(100_000),
    Factor::millionths(200_000),
    Factor::millionths(400_000),
    Factor::millionths(700_000),
    Factor::ONE,
];

/// Slow start with a window of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// The length of a step, in milliseconds.
    step: u64,
}

/// A backend as slow start sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starter {
    /// Its weight without slow start.
    pub weight: u32,
    /// When it joined or recovered, in milliseconds of the wall clock. `None` if it counts
    /// as listed before the balancer started.
    pub joined: Option<u64>,
}

impl SlowStart {
    /// Makes slow start with a window in milliseconds; `None` if the window is 0.
    #[must_use]
    pub fn new(window: u64) -> Option<Self> {
        (window > 0).then(|| Self { step: (window / FACTORS.len() as u64).max(1) })
    }

    /// Returns the factor of a backend that joined at `joined`. Its first step also covers
    /// the rest of the step in which it joined, so the first step is never cut short.
    #[must_use]
    pub fn factor(self, joined: u64, now: u64) -> Factor {
        // A time in the future comes from a clock that is ahead, and counts as now.
        let steps = (now / self.step).saturating_sub(joined / self.step).saturating_sub(1);
        let at = usize::try_from(steps).map_or(FACTORS.len() - 1, |at| at.min(FACTORS.len() - 1));
        FACTORS[at]
    }

    /// Returns the factor of each backend, in the order of `backends`. While more than half
    /// of the weight is starting, all factors are 1: the other backends could not take the
    /// remaining calls, and a factor that most backends share would only cost pushes.
    #[must_use]
    pub fn factors(self, backends: &[Starter], now: u64) -> Vec<Factor> {
        let factor = |backend: &Starter| {
            backend.joined.map_or(Factor::ONE, |joined| self.factor(joined, now))
        };
        let factors: Vec<Factor> = backends.iter().map(factor).collect();
        let weights = backends.iter().map(|backend| backend.weight);
        if starts_mostly(weights.zip(factors.iter().copied())) {
            return vec![Factor::ONE; backends.len()];
        }
        factors
    }

    /// Returns when a factor changes next; `None` if no factor will. The time is a multiple
    /// of the step, so a driver wakes at most once in each step.
    #[must_use]
    pub fn next(self, backends: &[Starter], now: u64) -> Option<u64> {
        let joined = |backend: &Starter| Starter {
            joined: backend.joined.map(|joined| joined.min(now)),
            ..*backend
        };
        let backends: Vec<Starter> = backends.iter().map(joined).collect();
        let factors = self.factors(&backends, now);
        let first = now / self.step + 1;
        let boundaries = (first..=first + FACTORS.len() as u64).map(|at| at * self.step);
        boundaries.into_iter().find(|&at| self.factors(&backends, at) != factors)
    }
}

/// Returns whether more than half of the weight is starting. In: the weight and the factor
/// of each backend.
pub fn starts_mostly(backends: impl Iterator<Item = (u32, Factor)>) -> bool {
    let (mut starting, mut total) = (0, 0);
    for (weight, factor) in backends {
        let weight = u64::from(weight);
        total += weight;
        starting += if factor == Factor::ONE { 0 } else { weight };
    }
    2 * starting > total
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn starter(weight: u32, joined: Option<u64>) -> Starter {
        Starter { weight, joined }
    }

    #[test]
    fn a_backend_takes_five_aligned_steps() {
        let slow = SlowStart::new(60_000).unwrap();
        let all = [starter(1, Some(15_000)), starter(1, None), starter(1, None)];
        let mut changes = Vec::new();
        let mut now = 15_000;
        while let Some(next) = slow.next(&all, now) {
            changes.push((next, slow.factors(&all, next)[0].as_millionths()));
            now = next;
        }
        let expected =
            [(36_000, 200_000), (48_000, 400_000), (60_000, 700_000), (72_000, 1_000_000)];
        assert_eq!(changes, expected);
        assert_eq!(SlowStart::new(0), None);
    }

    #[test]
    fn a_service_that_mostly_starts_has_no_slow_start() {
        let slow = SlowStart::new(60_000).unwrap();
        let old = starter(10, None);
        let new = |weight| starter(weight, Some(0));
        assert_eq!(slow.factors(&[old, new(11)], 0), [Factor::ONE; 2]);
        assert_eq!(slow.factors(&[old, new(10)], 0), [Factor::ONE, FACTORS[0]]);
        assert_eq!(slow.factors(&[new(1)], 0), [Factor::ONE]);
        assert_eq!(slow.next(&[new(1)], 0), None);
    }

    fn starters() -> impl Strategy<Value = Vec<Starter>> {
        let joined = proptest::option::of(0..300_000_u64);
        proptest::collection::vec((1..9_u32, joined), 1..12)
            .prop_map(|all| all.into_iter().map(|(w, joined)| starter(w, joined)).collect())
    }

    proptest! {
        #[test]
        fn factors_grow_and_end_at_one(joined in 0..1_000_000_u64, window in 1..100_000_u64) {
            let slow = SlowStart::new(window).unwrap();
            let step = slow.step;
            let mut last = Factor::ZERO;
            for now in (joined..joined + 6 * step + 1).step_by((step as usize / 7).max(1)) {
                let factor = slow.factor(joined, now);
                prop_assert!(factor >= last);
                // The first step is never cut short, and no later step is prolonged.
                prop_assert!(factor == FACTORS[0] || now - joined >= step);
                prop_assert!(factor == Factor::ONE || now - joined <= 5 * step);
                last = factor;
            }
            prop_assert_eq!(last, Factor::ONE);
        }

        #[test]
        fn nothing_changes_before_the_next_change(
            all in starters(), now in 0..400_000_u64, window in 10..100_000_u64, at in 0.0..1.0,
        ) {
            let slow = SlowStart::new(window).unwrap();
            let next = slow.next(&all, now);
            let end = next.unwrap_or(now + 1_000_000);
            let between = now + ((end - now - 1) as f64 * at) as u64;
            let late = all.iter().any(|one| one.joined.is_some_and(|joined| joined > now));
            prop_assert!(late || slow.factors(&all, now) == slow.factors(&all, between));
            if let Some(next) = next {
                prop_assert!(next > now && next % slow.step == 0);
                prop_assert!(late || slow.factors(&all, now) != slow.factors(&all, next));
            }
        }

        #[test]
        fn the_order_of_backends_does_not_matter(all in starters(), now in 0..400_000_u64) {
            let slow = SlowStart::new(60_000).unwrap();
            let mut factors = slow.factors(&all, now);
            let turned: Vec<Starter> = all.iter().rev().copied().collect();
            factors.reverse();
            prop_assert_eq!(slow.factors(&turned, now), factors);
            prop_assert_eq!(slow.next(&turned, now), slow.next(&all, now));
        }
    }
}
