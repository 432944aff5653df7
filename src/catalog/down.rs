//! Detects dead backends that registered without a lease.
//!
//! In: the addresses that only keys without leases register, and answers of probes. Out:
//! the endpoints of a service that are down, until they take connections again. Pure. It
//! never leaves less than half of the service's endpoints with a weight other than 0: if
//! so many refuse, the balancer itself may be cut off. A backend that registers with a
//! lease, or registers again, starts without refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use hashbrown::HashMap;
use imbl::OrdMap;

use crate::model::{BackendAddr, Endpoint, ServiceName};

use super::liveness::{Liveness, ProbeResult};

/// The addresses that are registered without a lease, and their refusals.
#[derive(Debug, Default)]
pub(super) struct DownDetector {
    /// The services that an address is registered for, and how often each has it probed.
    services: HashMap<BackendAddr, BTreeMap<ServiceName, Duration>>,
    /// The keys of `services` with their shortest interval, for the prober.
    addresses: OrdMap<BackendAddr, Duration>,
    /// How often each address refused in a row.
    refusals: HashMap<BackendAddr, u32>,
    /// How many addresses refused too often.
    refusing: usize,
    down: OrdMap<ServiceName, Vec<Endpoint>>,
    /// The services whose `down` changed since the last call of [`Self::take_changed`].
    changed: BTreeSet<ServiceName>,
    /// Whether `addresses` changed since then.
    addresses_changed: bool,
}

/// How many refusals in a row make a backend down. A server that restarts refuses for
/// some seconds; probes are half a minute apart, so this takes a minute at least.
const REFUSALS_MAX: u32 = 3;

impl DownDetector {
    /// Adds an address that only keys without leases register for a service, and how
    /// often to probe it.
    pub(super) fn add(&mut self, service: &ServiceName, addr: BackendAddr, every: Duration) {
        self.services.entry(addr).or_default().insert(service.clone(), every);
        self.show_interval(addr);
    }

    /// Removes an address that [`Self::add`] added.
    pub(super) fn remove(&mut self, service: &ServiceName, addr: BackendAddr) {
        let Some(services) = self.services.get_mut(&addr) else { return };
        services.remove(service);
        if services.is_empty() {
            self.services.remove(&addr);
            self.forget(addr);
        }
        self.show_interval(addr);
    }

    /// Returns whether no address is probed.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Forgets the refusals of an address. Returns the services that this changes.
    pub(super) fn clear_refusals(&mut self, addr: BackendAddr) -> Vec<ServiceName> {
        if self.forget(addr) { self.services(addr).cloned().collect() } else { Vec::new() }
    }

    /// Applies the answer of a probe. Returns the services that this changes. Only refusals
    /// count, because the network may cause silence. Silence ends a row of refusals.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: ProbeResult) -> Vec<ServiceName> {
        if !self.services.contains_key(&addr) {
            return Vec::new();
        }
        if answer != ProbeResult::Refuses {
            return self.clear_refusals(addr);
        }
        let refusals = self.refusals.entry(addr).or_default();
        *refusals = refusals.saturating_add(1);
        if *refusals != REFUSALS_MAX {
            return Vec::new();
        }
        self.refusing += 1;
        self.services(addr).cloned().collect()
    }

    /// Returns whether any backend of any service refused too often.
    pub(super) fn any_refuses(&self) -> bool {
        self.refusing > 0
    }

    /// Removes the endpoints of a service that are down from `endpoints`.
    pub(super) fn remove_down(&mut self, service: &ServiceName, endpoints: &mut Vec<Endpoint>) {
        if !self.any_refuses() && self.down.is_empty() {
            return;
        }
        let is_down = |endpoint: &Endpoint| {
            self.is_refusing(endpoint.addr) && self.services(endpoint.addr).any(|s| s == service)
        };
        let serving = |endpoint: &&Endpoint| endpoint.takes_calls();
        let all = endpoints.iter().filter(serving).count();
        let up = endpoints.iter().filter(serving).filter(|endpoint| !is_down(endpoint)).count();
        let down: Vec<Endpoint> = match up * 2 >= all && up > 0 {
            true => endpoints.extract_if(.., |endpoint| is_down(endpoint)).collect(),
            false => Vec::new(),
        };
        if self.down.get(service).map_or(&[][..], Vec::as_slice) == down {
            return;
        }
        self.changed.insert(service.clone());
        match down.is_empty() {
            true => drop(self.down.remove(service)),
            false => drop(self.down.insert(service.clone(), down)),
        }
    }

    /// Returns the endpoints of a service that are down.
    pub(super) fn endpoints(&self, service: &ServiceName) -> &[Endpoint] {
        self.down.get(service).map_or(&[], Vec::as_slice)
    }

    /// Returns whether anything that is shown has changed since the last call, and in
    /// which services.
    pub(super) fn take_changed(&mut self) -> (bool, BTreeSet<ServiceName>) {
        let addresses_changed = mem::take(&mut self.addresses_changed);
        let changed = mem::take(&mut self.changed);
        (addresses_changed || !changed.is_empty(), changed)
    }

    /// Writes the down backends and the addresses to probe into `liveness`.
    pub(super) fn copy_into(&self, liveness: &mut Liveness) {
        liveness.unleased = self.addresses.clone();
        liveness.down = self.down.clone();
    }

    fn services(&self, addr: BackendAddr) -> impl Iterator<Item = &ServiceName> {
        self.services.get(&addr).into_iter().flat_map(BTreeMap::keys)
    }

    fn show_interval(&mut self, addr: BackendAddr) {
        let shortest = self.services.get(&addr).and_then(|all| all.values().min()).copied();
        if self.addresses.get(&addr).copied() == shortest {
            return;
        }
        self.addresses_changed = true;
        match shortest {
            Some(every) => drop(self.addresses.insert(addr, every)),
            None => drop(self.addresses.remove(&addr)),
        }
    }

    fn is_refusing(&self, addr: BackendAddr) -> bool {
        self.refusals.get(&addr).is_some_and(|refusals| *refusals >= REFUSALS_MAX)
    }

    /// Forgets the refusals of an address. Returns whether it had refused too often.
    fn forget(&mut self, addr: BackendAddr) -> bool {
        let refused = self.refusals.remove(&addr).is_some_and(|count| count >= REFUSALS_MAX);
        self.refusing -= usize::from(refused);
        refused
    }
}

#[cfg(test)]
mod tests;
