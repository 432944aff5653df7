//! Compares two decisions: what changes for the clients that get the second in place of the
//! first.
//!
//! In: two decisions, each with its service. Out: the [`Difference`]. Pure.

use std::collections::BTreeMap;

use crate::catalog::Service;
use crate::model::BackendAddr;

use super::Decision;

/// What changes from one decision to another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// The backends that join, that leave or whose shares change, the largest change first.
    pub shares: Vec<ShareChange>,
    /// The part of their calls that clients drop, in percent, before and after; `None` if it
    /// stays the same.
    pub drop_percent: Option<(u32, u32)>,
    /// Whether there is no backend, before and after.
    pub is_empty: (bool, bool),
}

/// How the share of one backend changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareChange {
    /// The backend.
    pub backend: BackendAddr,
    /// Its share of all calls; `None`: it is not listed.
    pub before: Option<f64>,
    /// Its share after the change.
    pub after: Option<f64>,
}

/// Shares that differ by less than this part of themselves count as equal: they differ by the
/// rounding of weights alone.
const EQUAL: f64 = 1e-4;

/// Returns what changes between two decisions; `None` stands for a service without a backend.
#[must_use]
pub fn between(
    before: Option<(&Service, &Decision)>,
    after: Option<(&Service, &Decision)>,
) -> Difference {
    let mut shares: BTreeMap<BackendAddr, (Option<f64>, Option<f64>)> = BTreeMap::new();
    for (backend, due) in before.into_iter().flat_map(dues) {
        shares.entry(backend).or_default().0 = Some(due);
    }
    for (backend, due) in after.into_iter().flat_map(dues) {
        shares.entry(backend).or_default().1 = Some(due);
    }
    let differ = |before: f64, after: f64| (before - after).abs() > EQUAL * before.max(after);
    let mut changes: Vec<ShareChange> = shares
        .into_iter()
        .map(|(backend, (before, after))| ShareChange { backend, before, after })
        .filter(|one| one.before.zip(one.after).is_none_or(|(a, b)| differ(a, b)))
        .collect();
    // Of equal changes, the one with the smaller address comes first.
    changes.sort_by(|a, b| b.size().total_cmp(&a.size()));
    let drops = [before, after].map(|side| side.map_or(0, |(_, one)| one.drop_percent));
    let empty = [before, after].map(|side| side.is_none_or(|(_, one)| one.picks().is_empty()));
    Difference {
        shares: changes,
        drop_percent: (drops[0] != drops[1]).then_some((drops[0], drops[1])),
        is_empty: (empty[0], empty[1]),
    }
}

/// Returns the share of all calls that each backend is due.
fn dues<'a>(
    (service, decision): (&'a Service, &'a Decision),
) -> impl Iterator<Item = (BackendAddr, f64)> + 'a {
    let backends = decision.picks().iter();
    let backends = backends.map(|pick| service.endpoints[pick.endpoint as usize].addr);
    backends.zip(decision.dues())
}

impl Difference {
    /// Returns whether the clients get the same list, and drop the same part of their calls.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.shares.is_empty() && self.drop_percent.is_none()
    }
}

impl ShareChange {
    /// Returns whether the backend joins.
    #[must_use]
    pub fn joins(&self) -> bool {
        self.before.is_none()
    }

    /// Returns whether the backend leaves.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.after.is_none()
    }

    fn size(&self) -> f64 {
        (self.before.unwrap_or(0.0) - self.after.unwrap_or(0.0)).abs()
    }
}
