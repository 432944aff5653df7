//! Decides in which locality each backend of an assignment lives.
//!
//! In: backends with weights. Out: [`Home`]s: localities with their backends and weights.
//! Pure, and deterministic but for [`Grouping::next`], which depends on the former grouping.
//!
//! | backends | localities | a change of a backend's weight |
//! |---|---|---|
//! | few | one for each backend, named by its address | costs no connection |
//! | many | one for all backends of a group (a zone, the canaries) of about one weight, at most 256 | may cost each client one connection |
//! | any number that clients hash | one for each backend: clients multiply its weight by that of the locality, which is no child policy then | costs no connection |
//! | any number that clients weigh | one for all backends of a group | is not heeded |
//!
//! The shares of the groups are weights of localities, so their changes cost no connection.
//! A locality is a child policy in the client, and C-core's work for a change grows with
//! the square of their number: 0.03 s for 100 localities, 1 s for 1,000. The shares of small
//! services are exact. In large ones, a backend is as far off as its class of weights is wide
//! (`classes`): mostly less than 10 %, and exact where weights are equal or whole numbers up
//! to ten.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::Service;
use crate::model::BackendAddr;

mod classes;
mod groups;

use classes::{Classes, LOCALITIES_MAX, THOUSAND, Width};
pub(super) use groups::Groups;

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
    ByWeight(Width),
    /// Backends of a group share one, in which the clients weigh them.
    Together,
}

/// From more backends than this on, they are grouped.
const EACH_MAX: usize = 128;
/// A grouped service of fewer backends than this is no longer grouped. A change of the
/// grouping makes clients connect anew to every backend, so it must not happen often.
const BY_WEIGHT_MIN: usize = 64;
impl Grouping {
    /// Returns the grouping of so many backends of a service. `former` is the grouping of the
    /// same service and class before.
    pub(super) fn next(
        former: Option<Self>,
        backends: usize,
        service: &Service,
        groups: &Groups,
    ) -> Self {
        let former = match former {
            Some(Self::ByWeight(width)) => Some(width),
            _ => None,
        };
        let most_alone = if former.is_some() { BY_WEIGHT_MIN - 1 } else { EACH_MAX };
        if backends <= most_alone {
            return Self::Each;
        }
        Self::ByWeight(Width::next(former, &groups.weights(service)))
    }

    /// Returns the localities of backends that are sorted.
    pub(super) fn homes(self, backends: &[Backend]) -> Vec<Home> {
        match self {
            Self::Each => backends.iter().map(alone).collect(),
            Self::ByWeight(width) => {
                // Factors of weights may make more classes than registered weights do.
                let all = width.and_wider().map(|width| by_weight(width, backends));
                let mut all = all.skip_while(|homes| homes.len() > LOCALITIES_MAX);
                all.next().unwrap_or_default()
            }
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

fn by_weight(width: Width, backends: &[Backend]) -> Vec<Home> {
    let classes = width.classes();
    by_group(backends, |group, backends| homes_of_classes(group, backends, &classes))
}

fn homes_of_classes(group: &str, backends: &[&Backend], classes: &Classes) -> Vec<Home> {
    // The decision's weights have a scale of their own, which changes when a backend joins
    // with slow start. The backend with the highest weight for its registered one has its
    // full share, and defines the scale. So other backends keep their homes.
    let full = backends.iter().max_by(|a, b| ratio(a, b).cmp(&ratio(b, a)));
    let Some(full) = full else { return Vec::new() };
    let mut homes: BTreeMap<Option<u64>, Home> = BTreeMap::new();
    let mut last = (THOUSAND, classes.class(THOUSAND));
    for backend in backends {
        let part = u128::from(backend.weight) * u128::from(full.registered) * u128::from(THOUSAND);
        // Rounded: a weight that was multiplied may be a little below a whole one.
        let full_weight = u128::from(full.weight.max(1));
        let thousandths = (part + full_weight / 2) / full_weight;
        let thousandths = u64::try_from(thousandths).unwrap_or(u64::MAX);
        // Most weights are equal.
        if last.0 != thousandths {
            last = (thousandths, classes.class(thousandths));
        }
        let class = last.1;
        let home = homes.entry(class).or_insert_with(|| {
            let name = match class {
                Some(least) => {
                    format!("{group}weight-{}.{:03}", least / THOUSAND, least % THOUSAND)
                }
                None => format!("{group}weight-low"),
            };
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

#[cfg(test)]
mod tests;
