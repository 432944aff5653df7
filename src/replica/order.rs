//! The order of balancers in a DNS answer: nearest and least loaded first, in rotation.
//!
//! In: the balancers to name, and a number that differs from question to question. Out:
//! all of them, in the order of the answer. Pure.
//!
//! Most clients connect to the first address of an answer, so the first place decides
//! which balancer gets them. It goes to a balancer of the answering one's zone if there is
//! one. Among these, each comes first in proportion to a weight: the mean number of streams
//! divided by its own, between half and twice. A stricter rule, the least loaded first,
//! would send every client that starts within one interval of the announcements to one
//! balancer.

/// A balancer to name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<T> {
    /// What the answer says of it.
    pub name: T,
    /// Whether it is in the zone of the balancer that answers.
    pub near: bool,
    /// Its open streams; `None` if they are not known. Then it counts as the mean.
    pub streams: Option<u64>,
}

/// The weight of a balancer with as many streams as the mean.
const EVEN: u64 = 8;
/// The least and the greatest weight: twice and half the mean load.
const WEIGHTS: (u64, u64) = (EVEN / 2, EVEN * 2);
/// Streams that are added to each balancer before loads are compared, so that a few
/// clients make no difference.
const SLACK: u64 = 16;

/// Returns the names in order. The same `seed` gives the same order.
#[must_use]
pub fn ordered<T>(candidates: Vec<Candidate<T>>, seed: usize) -> Vec<T> {
    let (near, far): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|one| one.near);
    let mut all = rotated(near, seed);
    all.extend(rotated(far, seed));
    all
}

/// Returns the names, begun at the balancer that the seed chooses by weight.
fn rotated<T>(group: Vec<Candidate<T>>, seed: usize) -> Vec<T> {
    let weights = weights(&group);
    let total: u64 = weights.iter().sum();
    let mut left = seed as u64 % total.max(1);
    let before = |weight: &&u64| match left.checked_sub(**weight) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let first = weights.iter().take_while(before).count();
    let mut names: Vec<T> = group.into_iter().map(|one| one.name).collect();
    if first < names.len() {
        names.rotate_left(first);
    }
    names
}

/// Returns each balancer's weight for the first place.
fn weights<T>(group: &[Candidate<T>]) -> Vec<u64> {
    let known: Vec<u64> = group.iter().filter_map(|one| one.streams).collect();
    let sum = known.iter().fold(0_u64, |sum, streams| sum.saturating_add(*streams));
    let mean = sum / (known.len() as u64).max(1);
    let weight = |one: &Candidate<T>| {
        let streams = one.streams.unwrap_or(mean).saturating_add(SLACK);
        let even = u128::from(EVEN) * u128::from(mean.saturating_add(SLACK));
        let weight = even.div_ceil(u128::from(streams));
        u64::try_from(weight).unwrap_or(WEIGHTS.1).clamp(WEIGHTS.0, WEIGHTS.1)
    };
    group.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(loads: &[(bool, Option<u64>)]) -> Vec<Candidate<usize>> {
        let one = |(name, &(near, streams))| Candidate { name, near, streams };
        loads.iter().enumerate().map(one).collect()
    }

    /// Returns how often each balancer comes first, over one whole round of seeds.
    fn firsts(loads: &[(bool, Option<u64>)]) -> Vec<usize> {
        let near: Vec<_> = group(loads).into_iter().filter(|one| one.near).collect();
        let total: u64 = weights(&if near.is_empty() { group(loads) } else { near }).iter().sum();
        let mut firsts = vec![0; loads.len()];
        (0..total as usize).for_each(|seed| firsts[ordered(group(loads), seed)[0]] += 1);
        firsts
    }

    #[test]
    fn an_empty_balancer_gets_up_to_twice_its_share_and_a_full_one_half() {
        let near = |streams| (true, Some(streams));
        assert_eq!(firsts(&[near(0), near(0), near(0)]), [8, 8, 8]);
        assert_eq!(firsts(&[near(5000), near(5000), near(0)]), [6, 6, 16]);
        assert_eq!(firsts(&[near(1000), near(0), (true, None)]), [5, 16, 8]);
        assert_eq!(firsts(&[near(3), near(0), near(1)]), [8, 9, 8]);
    }

    proptest! {
        #[test]
        fn all_are_named_once_and_the_near_ones_first(
            loads in prop::collection::vec((any::<bool>(), prop::option::of(any::<u64>())), 0..9),
            seed in any::<usize>(),
        ) {
            let names = ordered(group(&loads), seed);
            let near = loads.iter().filter(|one| one.0).count();
            prop_assert!(names.iter().take(near).all(|name| loads[*name].0));
            let mut sorted = names;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..loads.len()).collect::<Vec<_>>());
        }

        #[test]
        fn each_near_one_comes_first_and_the_less_loaded_not_less_often(
            loads in prop::collection::vec((any::<bool>(), prop::option::of(0..20_000_u64)), 1..9),
        ) {
            let firsts = firsts(&loads);
            let any_near = loads.iter().any(|one| one.0);
            let eligible: Vec<_> =
                (0..loads.len()).filter(|one| loads[*one].0 == any_near).collect();
            for &one in &eligible {
                prop_assert!(firsts[one] > 0, "{firsts:?}");
                for &other in &eligible {
                    prop_assert!(firsts[one] <= 4 * firsts[other], "{firsts:?}");
                    if let (Some(a), Some(b)) = (loads[one].1, loads[other].1) && a <= b {
                        prop_assert!(firsts[one] >= firsts[other], "{firsts:?}");
                    }
                }
            }
        }
    }
}
