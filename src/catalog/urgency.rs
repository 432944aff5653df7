//! Whether clients must get a new value at once, or may wait for further changes.
//!
//! In: the value that clients have, and the new one. Out: a yes or no. Pure.

use super::{Known, Service};
use crate::model::Endpoint;

/// Answers the same question for every spelling of a name, and compares only once: large
/// services take long.
#[derive(Debug, Default)]
pub(super) struct Urgency {
    /// The versions of two values of a service, and the answer for them.
    compared: Option<((u64, u64), bool)>,
}

impl Urgency {
    /// Returns whether clients must get the new value at once.
    pub(super) fn is_urgent(&mut self, old: &Known, new: &Known) -> bool {
        let (Known::Present(before), Known::Present(after)) = (old, new) else {
            return is_urgent(old, new);
        };
        let versions = (before.version, after.version);
        match self.compared {
            Some((same, answer)) if same == versions && after.version > 0 => answer,
            _ => {
                let answer = is_urgent(old, new);
                self.compared = Some((versions, answer));
                answer
            }
        }
    }
}

/// Returns whether clients must get the new value at once. They must if a backend leaves,
/// changes its address, gets weight 0 or is unhealthy, because calls fail until clients
/// know; and if the settings, the marks or the share of a split changed.
fn is_urgent(old: &Known, new: &Known) -> bool {
    if let (Some(old), Some(new)) = (old.settings(), new.settings())
        && old != new
    {
        return true;
    }
    let (Known::Present(old), Known::Present(new)) = (old, new) else {
        return matches!(old, Known::Present(_));
    };
    let share_changed = old.facts.ramp_share != new.facts.ramp_share;
    if old.marks != new.marks || share_changed || loses_by_health(old, new) {
        return true;
    }
    let mut rest = new.endpoints.iter();
    let listed = |one: &&Endpoint| one.takes_calls() && old.delayed(one).is_none();
    let mut listed = old.endpoints.iter().filter(listed);
    // Both are sorted by id.
    !listed.all(|old| {
        let same = rest.find(|new| new.id >= old.id);
        same.is_some_and(|new| new.id == old.id && new.addr == old.addr && new.takes_calls())
    })
}

/// Returns whether an unhealthy backend leaves the lists.
fn loses_by_health(old: &Service, new: &Service) -> bool {
    let Some(after) = new.left_out().filter(|_| old.facts.health != new.facts.health) else {
        return false;
    };
    old.left_out().is_none_or(|before| after.keys().any(|addr| !before.contains_key(addr)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Service, ServiceSnapshot};
    use super::*;
    use crate::model::{BackendAddr, Endpoint, ServiceName, Weight};
    use crate::settings::ServiceSettings;

    fn present(ports: &[u16]) -> Known {
        weighing(&ports.iter().map(|&port| (port, Weight::DEFAULT.0)).collect::<Vec<_>>())
    }

    /// Makes a service of endpoints with these ports and weights.
    fn weighing(all: &[(u16, u32)]) -> Known {
        let endpoint = |&(port, weight): &(u16, u32)| Endpoint {
            id: format!("{port:05}").into(),
            addr: BackendAddr::new([10, 0, 0, 1].into(), port).unwrap(),
            weight: Weight(weight),
            meta: Arc::default(),
        };
        let endpoints = all.iter().map(endpoint).collect();
        let name = ServiceName::new("hello").unwrap();
        let snapshot = ServiceSnapshot::new(name, 1, endpoints);
        Known::Present(Arc::new(Service::new(0, snapshot, ServiceSettings::DEFAULT)))
    }

    fn absent() -> Known {
        Known::Absent(Arc::new(ServiceSettings::DEFAULT))
    }

    #[track_caller]
    fn check(old: Known, new: Known, expected: bool) {
        assert_eq!(is_urgent(&old, &new), expected);
    }

    #[test]
    fn a_backend_that_is_gone_or_moved_is_taken_away() {
        check(present(&[1, 2]), present(&[1, 2, 3]), false);
        check(present(&[2]), present(&[1, 2, 3]), false);
        check(present(&[1, 2, 3]), present(&[1, 3]), true);
        check(present(&[3]), present(&[1, 2]), true);
        check(present(&[1]), absent(), true);
        check(absent(), present(&[1]), false);
        check(Known::Syncing, absent(), false);
    }

    #[test]
    fn weight_0_takes_away_and_other_weights_do_not() {
        check(weighing(&[(1, 5), (2, 5)]), weighing(&[(1, 5), (2, 0)]), true);
        check(weighing(&[(1, 5), (2, 5)]), weighing(&[(1, 5), (2, 1)]), false);
        check(weighing(&[(1, 5), (2, 0)]), weighing(&[(1, 5), (2, 5)]), false);
        check(weighing(&[(1, 5), (2, 0)]), weighing(&[(1, 5)]), false);
    }
}
