//! Detects dead backends that registered without a lease.
//!
//! In: which addresses are registered by keys without leases only, answers of
//! probes. Out: which of a service's endpoints are set aside until they take
//! connections again. Pure. It never sets so many aside that less than half of
//! a service that may have calls is left: then our view is in doubt, not they.
//! Whoever registers with a lease, or anew, begins without refusals.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use hashbrown::HashMap;
use imbl::OrdMap;

use crate::model::{BackendAddr, Endpoint, ServiceName, Weight};

use super::doubts::{Answer, Doubts};

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Unleased {
    /// The services that an address is registered for, and how often each wants it probed.
    services: HashMap<BackendAddr, BTreeMap<ServiceName, Duration>>,
    /// The keys of `services` with the shortest interval, for others.
    addresses: OrdMap<BackendAddr, Duration>,
    /// Refusals in a row.
    refusals: HashMap<BackendAddr, u32>,
    /// How many refused too often.
    refusing: usize,
    down: OrdMap<ServiceName, Vec<Endpoint>>,
    /// The services whose `down` changed since it was asked for last.
    changed: BTreeSet<ServiceName>,
    /// Whether `addresses` changed since then.
    others: bool,
}

/// A server that restarts refuses for some seconds. Probes are half a minute
/// apart, so this is a minute at least.
const REFUSALS_MAX: u32 = 3;

impl Unleased {
    /// An address is registered for a service, by keys without leases only, and is to
    /// be probed that often.
    pub(super) fn add(&mut self, service: &ServiceName, addr: BackendAddr, every: Duration) {
        self.services.entry(addr).or_default().insert(service.clone(), every);
        self.show_interval(addr);
    }

    /// It is not any more.
    pub(super) fn remove(&mut self, service: &ServiceName, addr: BackendAddr) {
        let Some(services) = self.services.get_mut(&addr) else { return };
        services.remove(service);
        if services.is_empty() {
            self.services.remove(&addr);
            self.forget(addr);
        }
        self.show_interval(addr);
    }

    /// Whether nothing is probed.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Somebody holds a lease for an address: its refusals are old. Returns the
    /// services that this changes.
    pub(super) fn vouch(&mut self, addr: BackendAddr) -> Vec<ServiceName> {
        if self.forget(addr) { self.services(addr).cloned().collect() } else { Vec::new() }
    }

    /// Takes in what a probe came to. Returns the services that this changes.
    /// Only refusals count: silence may be the network's.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: Answer) -> Vec<ServiceName> {
        if !self.services.contains_key(&addr) {
            return Vec::new();
        }
        if answer != Answer::Refuses {
            return self.vouch(addr);
        }
        let refusals = self.refusals.entry(addr).or_default();
        *refusals = refusals.saturating_add(1);
        if *refusals != REFUSALS_MAX {
            return Vec::new();
        }
        self.refusing += 1;
        self.services(addr).cloned().collect()
    }

    /// Whether any backend refuses, of whatever service.
    pub(super) fn any_refuses(&self) -> bool {
        self.refusing > 0
    }

    /// Takes those of a service that are down out of its endpoints.
    pub(super) fn set_aside(&mut self, service: &ServiceName, endpoints: &mut Vec<Endpoint>) {
        if !self.any_refuses() && self.down.is_empty() {
            return;
        }
        let is_down = |endpoint: &Endpoint| {
            self.is_refusing(endpoint.addr) && self.services(endpoint.addr).any(|s| s == service)
        };
        let serving = |endpoint: &&Endpoint| endpoint.weight != Weight(0);
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

    /// Those of a service that are set aside.
    pub(super) fn down(&self, service: &ServiceName) -> &[Endpoint] {
        self.down.get(service).map_or(&[], Vec::as_slice)
    }

    /// Whether anything that is shown has changed since this was asked for
    /// last, and in which services.
    pub(super) fn changed(&mut self) -> (bool, BTreeSet<ServiceName>) {
        let others = mem::take(&mut self.others);
        let changed = mem::take(&mut self.changed);
        (others || !changed.is_empty(), changed)
    }

    /// Sets what is to be shown and probed.
    pub(super) fn show(&self, doubts: &mut Doubts) {
        doubts.unleased = self.addresses.clone();
        doubts.down = self.down.clone();
    }

    fn services(&self, addr: BackendAddr) -> impl Iterator<Item = &ServiceName> {
        self.services.get(&addr).into_iter().flat_map(BTreeMap::keys)
    }

    fn show_interval(&mut self, addr: BackendAddr) {
        let shortest = self.services.get(&addr).and_then(|all| all.values().min()).copied();
        if self.addresses.get(&addr).copied() == shortest {
            return;
        }
        self.others = true;
        match shortest {
            Some(every) => drop(self.addresses.insert(addr, every)),
            None => drop(self.addresses.remove(&addr)),
        }
    }

    fn is_refusing(&self, addr: BackendAddr) -> bool {
        self.refusals.get(&addr).is_some_and(|refusals| *refusals >= REFUSALS_MAX)
    }

    /// Returns whether it refused too often.
    fn forget(&mut self, addr: BackendAddr) -> bool {
        let refused = self.refusals.remove(&addr).is_some_and(|count| count >= REFUSALS_MAX);
        self.refusing -= usize::from(refused);
        refused
    }
}

#[cfg(test)]
mod tests;
