//! When the time of each lost backend is over. Pure.
//!
//! In: backends of a service, each with its end. Out: the next one whose end has come,
//! in the order of time, service and address. Backends that were lost together share
//! an entry, so a large loss costs little more than its addresses.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::model::{BackendAddr, ServiceName};

#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<(Instant, ServiceName), BTreeSet<BackendAddr>>);

impl Ends {
    /// Adds backends of a service whose time is over at `end`.
    pub(super) fn extend(
        &mut self,
        end: Instant,
        service: &ServiceName,
        addresses: impl IntoIterator<Item = BackendAddr>,
    ) {
        match self.0.entry((end, service.clone())) {
            // A set that is made of all elements at once is made quickly.
            Entry::Vacant(place) => drop(place.insert(addresses.into_iter().collect())),
            Entry::Occupied(mut before) => before.get_mut().extend(addresses),
        }
    }

    /// Removes a backend that was added with this end.
    pub(super) fn remove(&mut self, end: Instant, service: &ServiceName, addr: BackendAddr) {
        let key = (end, service.clone());
        let Some(addresses) = self.0.get_mut(&key) else { return };
        addresses.remove(&addr);
        if addresses.is_empty() {
            self.0.remove(&key);
        }
    }

    /// Replaces the end of a backend.
    pub(super) fn replace(
        &mut self,
        (before, after): (Instant, Instant),
        service: &ServiceName,
        addr: BackendAddr,
    ) {
        self.remove(before, service, addr);
        self.extend(after, service, [addr]);
    }

    /// Returns the earliest end.
    pub(super) fn first(&self) -> Option<Instant> {
        self.0.first_key_value().map(|((end, _), _)| *end)
    }

    /// Removes the first backend whose time is over by now, and returns it.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(ServiceName, BackendAddr)> {
        let mut first = self.0.first_entry().filter(|first| first.key().0 <= now)?;
        let service = first.key().1.clone();
        let addr = first.get_mut().pop_first();
        if first.get().is_empty() {
            first.remove();
        }
        addr.map(|addr| (service, addr))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
