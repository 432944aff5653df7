//! Counts what a key registers for its services.
//!
//! In: what a key registered, and what it registers now. Out: each service's members, and
//! the effect on held backends and on backends without a lease. Pure.

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::{Key, Reading, Registration, Rejected};

use super::super::affected::Affected;
use super::{Index, KeyContent, Members};

impl Index {
    /// Counts a key's new registrations, and then removes its old ones. In this order a
    /// registration that stays is never missing in between: its host name keeps its
    /// addresses, and its address keeps its refusals.
    pub(super) fn replace(
        &mut self,
        key: &Key,
        old: &KeyContent,
        new: &KeyContent,
        affected: &mut Affected,
    ) {
        for come in &new.registrations {
            let settings = &self.settings;
            let new_members = || Members::new(settings.for_service(&come.service).probe_unleased);
            let members = self.services.entry_ref(&come.service).or_insert_with(new_members);
            members.keys.insert(key.clone());
            self.add_registration(key, come, new.leased, affected);
        }
        old.registrations
            .iter()
            .for_each(|gone| self.remove_registration(key, gone, old.leased, affected));
        for Registration { service, .. } in &old.registrations {
            if new.registrations.iter().any(|come| come.service == *service) {
                continue;
            }
            if let Some(members) = self.services.get_mut(service) {
                members.keys.remove(key);
                if members.keys.is_empty() {
                    self.services.remove(service);
                }
            }
        }
    }

    /// Counts registrations of an address. `times` is how many are added and how many are
    /// removed.
    pub(super) fn count(
        &mut self,
        service: &ServiceName,
        addr: BackendAddr,
        leased: bool,
        times: (u32, u32),
        affected: &mut Affected,
    ) {
        let Some(members) = self.services.get_mut(service) else { return };
        let (before, after) = members.count(addr, leased, times);
        let every = members.probe_unleased;
        if before.all == 0 {
            self.guard.forget_address(service, addr);
        }
        if every.is_zero() && self.down.is_empty() {
            return;
        }
        if before.leased == 0 && after.leased > 0 {
            affected.services.extend(self.down.clear_refusals(addr));
        }
        match (before.unleased(), after.unleased()) {
            (false, true) if !every.is_zero() => self.down.add(service, addr, every),
            (true, false) => self.down.remove(service, addr),
            _ => {}
        }
    }

    /// Returns whether a key's new value takes the place of the backends that are held for it.
    /// A mistake does not, nor does a host name whose addresses are not known yet.
    pub(super) fn replaces_held(&self, key: &Key, decoded: &Result<Reading, Rejected>) -> bool {
        match decoded {
            Ok(reading) => !self.waits_for_addresses(&reading.registrations),
            Err(_) => self.forbidden.contains_key(key),
        }
    }

    /// Forgets the backends that are held for a key.
    pub(super) fn forget_held(&mut self, key: &Key, affected: &mut Affected) {
        let services = self.guard.forget_key(key).into_iter().map(|(service, _)| service);
        affected.services.extend(services);
    }

    pub(super) fn is_registered(&self, service: &ServiceName, addr: BackendAddr) -> bool {
        self.services.get(service).is_some_and(|members| members.uses(addr).all > 0)
    }

    /// Returns every backend that a key registers.
    pub(super) fn endpoints_of(&self, key: &Key) -> Vec<(ServiceName, Endpoint)> {
        self.entries.get(key).map_or_else(Vec::new, |all| self.endpoints(&all.registrations))
    }

    /// Returns every backend of some registrations, with its service.
    pub(super) fn endpoints(&self, registrations: &[Registration]) -> Vec<(ServiceName, Endpoint)> {
        let mut endpoints = Vec::with_capacity(registrations.len());
        for registration in registrations {
            let service = &registration.service;
            self.each_endpoint(registration, |endpoint| {
                endpoints.push((service.clone(), endpoint))
            });
        }
        endpoints
    }
}
