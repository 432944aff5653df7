//! Decides in which locality each backend of an assignment lives.
//!
//! In: backends with weights. Out: [`Home`]s: localities with their backends and weights.
//! Pure, and deterministic but for [`Grouping::next`], which depends on the former grouping.
//!
//! | backends | localities | a change of a backend's weight |
//! |---|---|---|
//! | few | one for each backend, named by its address | costs no connection |
//! | many | one for all backends of a group (a zone, the canaries) of about one weight | may cost each client one connection |
//! | any number that clients hash | one for each backend: clients multiply its weight by that of the locality | costs no connection |
//! | any number that clients weigh | one for all backends of a group | is not heeded |
//!
//! The shares of the groups are weights of localities, so their changes cost no connection.
//! A locality is a child policy in the client, and C-core's work for a change grows with
//! the square of their number: 0.03 s for 100 localities, 1 s for 1,000. The shares of small
//! services are exact. In large ones, a backend is less than 10 % off, and exact where weights
//! are equal or whole numbers up to ten.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::BackendAddr;

/// A backend that serves a class. Ordered by address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Backend {
    pub(super) addr: BackendAddr,
    /// Its share of the calls, on the scale of all backends; never 0.
    pub(super) share: u64,
    /// Its weight in its group; never 0.
    pub(super) weight: u32,
    /// Its weight as registered; never 0.
    pub(super) registered: u32,
    /// What it has in common with backends whose shares change together: the beginning of its
    /// locality's name, if it shares one.
    pub(super) group: Arc<str>,
}

/// A locality, and the backends that live in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) name: String,
    /// The sum of the weights of its backends.
    pub(super) weight: u64,
    /// At least one, in the order of the addresses.
    pub(super) backends: Vec<BackendAddr>,
}

/// How backends are put into localities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grouping {
    /// Each backend has its own.
    Each,
    /// Backends of about one weight share one.
    ByWeight,
    /// Backends of a group share one, in which the clients weigh them.
    Together,
}

/// From more backends than this on, they are grouped.
const EACH_MAX: usize = 128;
/// A grouped service of fewer backends than this is no longer grouped. A change of the
/// grouping makes clients connect anew to every backend, so it must not happen often.
const BY_WEIGHT_MIN: usize = 64;
/// A class of weights reaches from its least weight to this many tenths of it, so the mean
/// of a class is less than 10 % from the weight of each backend.
const CLASS_TENTHS: u64 = 11;
/// Each whole weight up to this one, in thousandths, begins a class.
const WHOLE_MAX: u64 = 10 * THOUSAND;
/// Weights are compared in thousandths, because a weight below 1 is possible: the part of a
/// registered weight that slow start gives.
const THOUSAND: u64 = 1_000;

impl Grouping {
    /// Returns the grouping of so many backends. `former` is the grouping of the same
    /// service and class before.
    pub(super) fn next(former: Option<Self>, backends: usize) -> Self {
        match former {
            Some(Self::ByWeight) if backends >= BY_WEIGHT_MIN => Self::ByWeight,
            _ if backends > EACH_MAX => Self::ByWeight,
            _ => Self::Each,
        }
    }

    /// Returns the localities of backends that are sorted.
    pub(super) fn homes(self, backends: &[Backend]) -> Vec<Home> {
        match self {
            Self::Each => backends.iter().map(alone).collect(),
            Self::ByWeight => by_group(backends, homes_by_weight),
            Self::Together => by_group(backends, |name, all| vec![together(name, all)]),
        }
    }
}

fn alone(backend: &Backend) -> Home {
    let Backend { addr, share, .. } = *backend;
    Home { name: addr.to_string(), weight: share, backends: vec![addr] }
}

fn together(group: &str, backends: &[&Backend]) -> Home {
    let weight = backends.iter().map(|one| one.share).fold(0, u64::saturating_add);
    Home {
        name: format!("{group}all"),
        weight,
        backends: backends.iter().map(|one| one.addr).collect(),
    }
}

fn by_group(backends: &[Backend], homes: impl Fn(&str, &[&Backend]) -> Vec<Home>) -> Vec<Home> {
    let mut groups: BTreeMap<&Arc<str>, Vec<&Backend>> = BTreeMap::new();
    for backend in backends {
        groups.entry(&backend.group).or_default().push(backend);
    }
    groups.into_iter().flat_map(|(name, backends)| homes(name, &backends)).collect()
}

fn homes_by_weight(group: &str, backends: &[&Backend]) -> Vec<Home> {
    // The decision's weights have a scale of their own, which changes when a backend joins
    // with slow start. The backend with the highest weight for its registered one has its
    // full share, and defines the scale. So other backends keep their homes.
    let full = backends.iter().max_by(|a, b| ratio(a, b).cmp(&ratio(b, a)));
    let Some(full) = full else { return Vec::new() };
    let mut homes: BTreeMap<u64, Home> = BTreeMap::new();
    let mut last = (THOUSAND, class(THOUSAND));
    for backend in backends {
        let part = u128::from(backend.weight) * u128::from(full.registered) * u128::from(THOUSAND);
        // Rounded: a weight that was multiplied may be a little below a whole one.
        let full_weight = u128::from(full.weight.max(1));
        let thousandths = (part + full_weight / 2) / full_weight;
        let thousandths = u64::try_from(thousandths).unwrap_or(u64::MAX);
        // Most weights are equal.
        if last.0 != thousandths {
            last = (thousandths, class(thousandths));
        }
        let class = last.1;
        let home = homes.entry(class).or_insert_with(|| {
            let name = format!("{group}weight-{}.{:03}", class / THOUSAND, class % THOUSAND);
            Home { name, weight: 0, backends: Vec::new() }
        });
        home.weight = home.weight.saturating_add(backend.share);
        home.backends.push(backend.addr);
    }
    homes.into_values().collect()
}

/// Returns the weight of `a` for its registered weight, on a scale that it shares with `b`.
fn ratio(a: &Backend, b: &Backend) -> u64 {
    u64::from(a.weight) * u64::from(b.registered)
}

/// Returns the least weight of the class that a weight belongs to. Whole weights up to ten
/// have classes of their own.
fn class(thousandths: u64) -> u64 {
    let mut least = 1;
    loop {
        let next = (least * CLASS_TENTHS).div_ceil(10);
        let whole = (least / THOUSAND + 1) * THOUSAND;
        let next = if whole <= WHOLE_MAX { next.min(whole) } else { next };
        if next > thousandths || next >= u64::MAX / CLASS_TENTHS {
            return least;
        }
        least = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backend(port: u16, weight: u32, registered: u32) -> Backend {
        let addr = BackendAddr::new([10, 0, 0, 1].into(), port).unwrap();
        Backend { addr, share: weight.into(), weight, registered, group: "".into() }
    }

    fn by_weight(backends: &[Backend]) -> Vec<Home> {
        Grouping::ByWeight.homes(backends)
    }

    fn names(homes: &[Home]) -> Vec<(&str, u64, usize)> {
        homes.iter().map(|home| (&*home.name, home.weight, home.backends.len())).collect()
    }

    #[test]
    fn a_grouping_changes_late() {
        let mut grouping = None;
        let mut next = |backends| {
            grouping = Some(Grouping::next(grouping, backends));
            grouping
        };
        for (backends, expected) in [
            (1, Grouping::Each),
            (128, Grouping::Each),
            (129, Grouping::ByWeight),
            (64, Grouping::ByWeight),
            (63, Grouping::Each),
            (128, Grouping::Each),
        ] {
            assert_eq!(next(backends), Some(expected), "{backends}");
        }
    }

    #[test]
    fn equal_weights_share_one_locality_and_a_newcomer_moves_nobody() {
        let old: Vec<_> = (1..=3).map(|port| backend(port, 1, 1)).collect();
        assert_eq!(names(&by_weight(&old)), [("weight-1.000", 3, 3)]);
        // Slow start gives the newcomer a fifth: all weights get another scale.
        let mut new: Vec<_> = (1..=3).map(|port| backend(port, 5, 1)).collect();
        new.push(backend(4, 1, 1));
        let homes = by_weight(&new);
        assert_eq!(homes.len(), 2);
        assert_eq!(names(&homes)[1], ("weight-1.000", 15, 3));
    }

    /// The share of a zone changes with the demand, and that of canaries by steps.
    #[test]
    fn a_change_of_the_share_of_a_group_moves_nobody() {
        let all = |a: u32, b: u32| -> Vec<Backend> {
            let group = |group: &str, factor, port| Backend {
                group: group.into(),
                ..backend(port, factor * u32::from(1 + port % 2), u32::from(1 + port % 2))
            };
            vec![group("a/", a, 1), group("b/", b, 2), group("a/", a, 3), group("b/", b, 4)]
        };
        let before = by_weight(&all(7, 2));
        let expected = [("a/weight-2.000", 28, 2), ("b/weight-1.000", 4, 2)];
        assert_eq!(names(&before), expected);
        let after = by_weight(&all(1, 30));
        assert_eq!(names(&after), [("a/weight-2.000", 4, 2), ("b/weight-1.000", 60, 2)]);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.backends, after.backends);
        }
    }

    /// Clients weigh backends only within a locality.
    #[test]
    fn backends_that_clients_weigh_share_a_locality() {
        let canary = Backend { group: "canaries/".into(), ..backend(3, 5, 5) };
        let homes = Grouping::Together.homes(&[backend(1, 1, 1), backend(2, 3, 3), canary]);
        assert_eq!(names(&homes), [("all", 4, 2), ("canaries/all", 5, 1)]);
    }

    #[test]
    fn small_whole_weights_have_classes_of_their_own() {
        let classes: Vec<_> = (1..=10).map(|weight| class(weight * THOUSAND)).collect();
        let expected: Vec<_> = (1..=10).map(|weight| weight * THOUSAND).collect();
        assert_eq!(classes, expected);
    }

    proptest! {
        #[test]
        fn no_backend_is_far_from_its_share(
            weights in prop::collection::vec(1..=u32::MAX, 1..60),
        ) {
            let all: Vec<_> = weights.iter().zip(1..).map(|(&w, port)| backend(port, w, w)).collect();
            let homes = by_weight(&all);
            let count: usize = homes.iter().map(|home| home.backends.len()).sum();
            prop_assert_eq!(count, all.len());
            prop_assert_eq!(
                homes.iter().map(|home| home.weight).sum::<u64>(),
                weights.iter().map(|&weight| u64::from(weight)).sum::<u64>()
            );
            for home in &homes {
                let each = home.weight as f64 / home.backends.len() as f64;
                for addr in &home.backends {
                    let due = f64::from(weights[usize::from(addr.port()) - 1]);
                    prop_assert!((each / due - 1.0).abs() < 0.101, "{each} {due}");
                }
            }
        }
    }
}
