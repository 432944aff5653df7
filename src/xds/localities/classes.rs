//! Classes of weights: which backends of a group share a locality.
//!
//! In: the registered weights of a service's backends. Out: how wide classes must be, so that
//! there are never more than [`LOCALITIES_MAX`] localities, and the class of each weight. Pure.
//!
//! | step | a class reaches beyond its least weight by | weights below a sixteenth of the highest |
//! |---|---|---|
//! | 0 | 10 %; whole weights up to ten have classes of their own | as the others |
//! | 1 | the same | share one class |
//! | 2 to 5 | 20, 50, 100, 300 % | share one class |
//!
//! Only registrations decide the step, so no failure of backends and no factor of a weight
//! changes it. It narrows late: another step makes clients connect anew.

use std::collections::BTreeSet;

/// The most localities of an assignment whose backends are grouped by weight.
pub(super) const LOCALITIES_MAX: usize = 256;
/// The most localities by registered weights alone. Factors of weights add some.
const REGISTERED_MAX: usize = LOCALITIES_MAX / 4 * 3;
/// Classes become narrower again once there are at most so many localities then.
const NARROWER_MAX: usize = REGISTERED_MAX / 2;
/// Weights are compared in thousandths, because a weight below 1 is possible: the part of a
/// registered weight that slow start gives.
pub(super) const THOUSAND: u64 = 1_000;
/// Weights below this part of the highest may share a class.
const LOW_PART: u64 = 16;

/// How wide the classes of a service's weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xds) struct Width {
    step: usize,
    /// The highest registered weight.
    highest: u32,
}

/// The classes of one width.
pub(super) struct Classes {
    /// The least weight of each class, sorted, in thousandths.
    starts: Vec<u64>,
    /// Weights below it share a class, in thousandths.
    floor: u64,
}

struct Step {
    /// How far a class reaches beyond its least weight.
    percent: u64,
    /// Each whole weight up to this one, in thousandths, begins a class.
    whole_max: u64,
    /// Whether low weights share a class.
    has_floor: bool,
}

/// The last has at most three classes within a sixteenth of the highest weight, and one below:
/// four for each of 64 groups.
const STEPS: [Step; 6] = [
    Step::new(10, 10, false),
    Step::new(10, 10, true),
    Step::new(20, 1, true),
    Step::new(50, 1, true),
    Step::new(100, 1, true),
    Step::new(300, 1, true),
];

impl Step {
    const fn new(percent: u64, whole_max: u64, has_floor: bool) -> Self {
        Self { percent, whole_max: whole_max * THOUSAND, has_floor }
    }
}

impl Width {
    /// Returns the width for backends with these groups and registered weights. `former` is
    /// that of the same backends before.
    pub(super) fn next(former: Option<Self>, registered: &BTreeSet<(u8, u32)>) -> Self {
        let highest = registered.iter().map(|one| one.1).max().unwrap_or(0);
        let fits = |step: &usize, most: usize| {
            let classes = Self { step: *step, highest }.classes();
            let class =
                |&(group, weight): &(u8, u32)| (group, classes.class(u64::from(weight) * THOUSAND));
            // The classes of a group are not more than its weights.
            registered.len() <= most
                || registered.iter().map(class).collect::<BTreeSet<_>>().len() <= most
        };
        let now = former.map_or(0, |former| former.step);
        let narrower = (0..now).find(|step| fits(step, NARROWER_MAX));
        let step = narrower.or_else(|| (now..STEPS.len()).find(|step| fits(step, REGISTERED_MAX)));
        Self { step: step.unwrap_or(STEPS.len() - 1), highest }
    }

    /// Returns this width and all that are wider.
    pub(super) fn and_wider(self) -> impl Iterator<Item = Self> {
        (self.step..STEPS.len()).map(move |step| Self { step, ..self })
    }

    /// Returns how far a share may be off: by which part of itself, or else by which part of the
    /// highest share.
    #[cfg(test)]
    pub(super) fn promise(self) -> (f64, f64) {
        let Step { percent, has_floor, .. } = STEPS[self.step];
        (percent as f64 / 100.0, if has_floor { 1.0 / LOW_PART as f64 } else { 0.0 })
    }

    pub(super) fn classes(self) -> Classes {
        let Step { percent, whole_max, has_floor } = STEPS[self.step];
        let highest = u64::from(self.highest) * THOUSAND;
        let below = |start: &u64| Some(start * 100 / (100 + percent)).filter(|start| *start > 1);
        let mut starts: Vec<u64> = std::iter::successors(Some(THOUSAND), below).skip(1).collect();
        starts.push(1);
        starts.reverse();
        let mut start = THOUSAND;
        while start <= highest {
            starts.push(start);
            let next = (start * (100 + percent)).div_ceil(100);
            let whole = (start / THOUSAND + 1) * THOUSAND;
            start = if whole <= whole_max { next.min(whole) } else { next };
        }
        let mut classes = Classes { starts, floor: 0 };
        if has_floor {
            // A change of the highest weight within its class changes no other class.
            classes.floor = classes.start(classes.start(highest) / LOW_PART);
        }
        classes
    }
}

impl Classes {
    /// Returns the least weight of the class that a weight belongs to, in thousandths; `None`
    /// for the class of low weights.
    pub(super) fn class(&self, thousandths: u64) -> Option<u64> {
        (thousandths >= self.floor).then(|| self.start(thousandths))
    }

    fn start(&self, thousandths: u64) -> u64 {
        let behind = self.starts.partition_point(|start| *start <= thousandths);
        self.starts[behind.saturating_sub(1)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn width(step: usize, highest: u32) -> Width {
        Width { step, highest }
    }

    fn registered(groups: u8, weights: impl Iterator<Item = u32> + Clone) -> BTreeSet<(u8, u32)> {
        (0..groups).flat_map(|group| weights.clone().map(move |weight| (group, weight))).collect()
    }

    #[test]
    fn small_whole_weights_have_classes_of_their_own() {
        let classes = width(0, 10).classes();
        let starts: Vec<_> = (1..=10).map(|weight| classes.class(weight * THOUSAND)).collect();
        assert_eq!(starts, (1..=10).map(|weight| Some(weight * THOUSAND)).collect::<Vec<_>>());
    }

    /// As docs/xds.md says of zones with weights from 1 to 1,000.
    #[test]
    fn classes_are_as_wide_as_the_number_of_groups_needs() {
        let step = |groups, weights: std::ops::RangeInclusive<u32>| {
            Width::next(None, &registered(groups, weights)).step
        };
        for (most, expected) in [3, 6, 10, 21, 32, 64].into_iter().zip(0..) {
            assert_eq!(step(most, 1..=1_000), expected, "{most}");
            assert_eq!(step(most + 1, 1..=1_000), (expected + 1).min(5), "{most}");
        }
        assert_eq!([step(64, 1..=3), step(19, 1..=10), step(1, 1..=1_000)], [0, 0, 0]);
    }

    #[test]
    fn classes_become_narrower_late() {
        let mut last = None;
        let mut next = |groups: u8| {
            let next = Width::next(last, &registered(groups, 1..=1_000));
            last = Some(next);
            next.step
        };
        assert_eq!([next(1), next(3), next(5), next(3), next(2), next(1)], [0, 0, 1, 1, 1, 0]);
        assert_eq!([next(64), next(20), next(10), next(1)], [5, 5, 3, 0]);
    }

    proptest! {
        /// A class has no weight that is farther from another than its width allows.
        #[test]
        fn weights_of_a_class_are_near_each_other(
            step in 0..STEPS.len(),
            highest in 1..=u32::MAX,
            weights in prop::collection::vec((any::<u64>(), 0..42_u32), 2),
        ) {
            let classes = width(step, highest).classes();
            let most = u64::from(highest) * THOUSAND;
            let [one, other] = [0, 1].map(|at| ((weights[at].0 >> weights[at].1) % most).max(1));
            let (least, most_of_both) = (one.min(other), one.max(other));
            match (classes.class(one), classes.class(other)) {
                (None, None) => prop_assert!(most_of_both * LOW_PART < most),
                (a, b) if a == b => {
                    let percent = STEPS[step].percent;
                    prop_assert!(most_of_both * 100 <= least * (100 + percent) + 100);
                    prop_assert!(STEPS[step].has_floor || a.is_some());
                }
                (a, b) => prop_assert_eq!(one < other, a < b),
            }
        }
    }
}
