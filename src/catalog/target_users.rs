//! The services for which each backend is asked something.
//!
//! In: services and targets. Out: whether a target must be asked from now on, or no more.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ServiceName;

/// The services of each target.
#[derive(Debug)]
pub(super) struct TargetUsers<T>(BTreeMap<T, BTreeSet<ServiceName>>);

impl<T: Ord + Clone> TargetUsers<T> {
    /// Adds a service of a target. Returns whether it is the target's first.
    pub(super) fn add(&mut self, target: &T, service: &ServiceName) -> bool {
        let users = self.0.entry(target.clone()).or_default();
        let is_first = users.is_empty();
        users.insert(service.clone());
        is_first
    }

    /// Removes a service of a target. Returns whether it was the target's last.
    pub(super) fn remove(&mut self, target: &T, service: &ServiceName) -> bool {
        let Some(users) = self.0.get_mut(target) else { return false };
        users.remove(service);
        let was_last = users.is_empty();
        if was_last {
            self.0.remove(target);
        }
        was_last
    }

    /// Returns the services of a target.
    pub(super) fn of(&self, target: &T) -> impl Iterator<Item = &ServiceName> {
        self.0.get(target).into_iter().flatten()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for TargetUsers<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}
