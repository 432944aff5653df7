//! A share that grows over time, in steps.
//!
//! In: the steps, the moment at which the first begins, the time. Out: the share at that
//! time, and when it changes next. Pure. Times are of the wall clock, so every replica takes
//! each step at the same moment.

use super::factor::Factor;

/// A step of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    /// The share while it lasts.
    pub share: Factor,
    /// How long it lasts, in milliseconds. The last step never ends.
    pub hold: u64,
}

/// A share that grows over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp<'a> {
    /// When its first step begins, in milliseconds of the wall clock.
    pub begins: u64,
    /// Its steps, in order.
    pub steps: &'a [Step],
}

impl Ramp<'_> {
    /// Returns the share at `now`: 0 before the first step.
    #[must_use]
    pub fn share(&self, now: u64) -> Factor {
        let begun = self.beginnings().take_while(|&begins| begins <= now).count();
        let step = begun.checked_sub(1).and_then(|at| self.steps.get(at));
        step.map_or(Factor::ZERO, |step| step.share)
    }

    /// Returns when the next step begins; `None` after the last.
    #[must_use]
    pub fn next(&self, now: u64) -> Option<u64> {
        self.beginnings().find(|&begins| begins > now)
    }

    fn beginnings(&self) -> impl Iterator<Item = u64> {
        let begins = |begins: &mut u64, step: &Step| {
            let own = *begins;
            *begins = own.saturating_add(step.hold);
            Some(own)
        };
        self.steps.iter().scan(self.begins, begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_goes_through_its_steps() {
        let percent = |percent: u32| Factor::millionths(percent * 10_000);
        let step = |share, hold| Step { share: percent(share), hold };
        let steps = [step(1, 10), step(5, 20), step(100, 0)];
        let ramp = Ramp { begins: 100, steps: &steps };
        let shares = [99, 100, 109, 110, 129, 130, u64::MAX].map(|now| ramp.share(now));
        assert_eq!(shares, [0, 1, 1, 5, 5, 100, 100].map(percent));
        let next = [0, 100, 110, 130].map(|now| ramp.next(now));
        assert_eq!(next, [Some(100), Some(110), Some(130), None]);
    }
}
