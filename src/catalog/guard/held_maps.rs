//! The held backends as the prober and the admin port see them. Pure.
//!
//! In: backends that become held, change or leave. Out: persistent maps for [`Liveness`],
//! kept up to date. Computing them again with each answer of a probe would cost as much as
//! all held backends.

use std::collections::BTreeSet;
use std::mem;

use imbl::{OrdMap, OrdSet};

use crate::catalog::liveness::{HeldBackend, Liveness};
use crate::model::{BackendAddr, ServiceName};

#[derive(Debug, Clone, Default)]
pub(super) struct HeldMaps {
    held: OrdMap<ServiceName, OrdMap<BackendAddr, HeldBackend>>,
    guarded: OrdSet<ServiceName>,
    held_addresses: OrdSet<BackendAddr>,
    held_len: usize,
    /// The services in which any of this changed since the last call of
    /// [`Self::take_changed`].
    changed: BTreeSet<ServiceName>,
}

impl HeldMaps {
    /// Adds backends of a service.
    pub(super) fn extend(
        &mut self,
        service: &ServiceName,
        backends: impl IntoIterator<Item = (BackendAddr, HeldBackend)>,
    ) {
        let all = self.held.entry(service.clone()).or_default();
        for (addr, held) in backends {
            all.insert(addr, held);
            self.held_addresses.insert(addr);
            self.held_len += 1;
        }
        self.note(service);
    }

    /// Replaces the value of a backend.
    pub(super) fn update(&mut self, service: &ServiceName, addr: BackendAddr, held: HeldBackend) {
        if let Some(all) = self.held.get_mut(service) {
            all.insert(addr, held);
        }
        self.note(service);
    }

    /// Removes a backend of a service. `elsewhere` says whether another service still lists
    /// its address.
    pub(super) fn hide(&mut self, service: &ServiceName, addr: BackendAddr, elsewhere: bool) {
        if !elsewhere {
            self.held_addresses.remove(&addr);
        }
        let Some(all) = self.held.get_mut(service) else { return };
        self.held_len -= usize::from(all.remove(&addr).is_some());
        if all.is_empty() {
            self.held.remove(service);
        }
        self.note(service);
    }

    /// Sets whether a service keeps backends that do not answer.
    pub(super) fn guard(&mut self, service: &ServiceName, is: bool) {
        if is != self.guarded.contains(service) {
            match is {
                true => drop(self.guarded.insert(service.clone())),
                false => drop(self.guarded.remove(service)),
            }
            self.note(service);
        }
    }

    /// Forgets all held backends. The services that are guarded, and the changes, stay.
    pub(super) fn clear(&mut self) {
        let Self { guarded, changed, .. } = mem::take(self);
        *self = Self { guarded, changed, ..Self::default() };
    }

    /// Returns the services in which something changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<ServiceName> {
        mem::take(&mut self.changed)
    }

    /// Writes the maps into `liveness`. The cost does not depend on their length.
    pub(super) fn copy_into(&self, liveness: &mut Liveness) {
        liveness.held = self.held.clone();
        liveness.guarded = self.guarded.clone();
        liveness.held_addresses = self.held_addresses.clone();
        liveness.held_len = self.held_len;
    }

    fn note(&mut self, service: &ServiceName) {
        if !self.changed.contains(service) {
            self.changed.insert(service.clone());
        }
    }
}
