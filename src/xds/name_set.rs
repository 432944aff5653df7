//! A sorted set of names that takes no memory while it is empty.
//!
//! In and out: names. Pure. Each stream has such sets, and they are nearly always empty. An
//! empty set of the standard library keeps room for eleven names once it had one.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The names.
#[derive(Debug, Default)]
pub(super) struct NameSet(BTreeSet<Arc<str>>);

impl NameSet {
    /// Adds a name. Returns whether it was missing.
    pub(super) fn insert(&mut self, name: Arc<str>) -> bool {
        self.0.insert(name)
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
        self.release();
    }

    /// Removes the first name, and returns it.
    pub(super) fn pop_first(&mut self) -> Option<Arc<str>> {
        let name = self.0.pop_first();
        self.release();
        name
    }

    /// Removes the names that are not wanted.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|name| wanted(name));
        self.release();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn release(&mut self) {
        if self.0.is_empty() {
            self.0 = BTreeSet::new();
        }
    }
}
