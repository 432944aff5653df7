//! Registrations without a lease: who does not live though nothing says so.
//!
//! In: their addresses, answers of probes. Out: which of a service's endpoints
//! are set aside until they take connections again. Pure. Never sets so many
//! aside that less than half of a service that may have calls is left: then
//! our view is in doubt, not they.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::model::{BackendAddr, Endpoint, ServiceName, Weight};

use super::doubts::{Answer, Doubts};

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Unleased {
    services: HashMap<BackendAddr, BTreeSet<ServiceName>>,
    addresses: Arc<BTreeSet<BackendAddr>>,
    /// Refusals in a row.
    refusals: HashMap<BackendAddr, u32>,
    down: BTreeMap<ServiceName, Vec<Endpoint>>,
    /// When the addresses are to be gathered again.
    due: Option<Instant>,
}

/// A server that restarts refuses for some seconds. Probes are half a minute
/// apart, so this is a minute at least.
const REFUSALS_MAX: u32 = 3;

impl Unleased {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the addresses as they are now, for as long as that. Says whether
    /// they are others.
    pub(super) fn renew(&mut self, all: Vec<(BackendAddr, ServiceName)>, due: Instant) -> bool {
        self.due = Some(due);
        self.services.clear();
        for (addr, service) in all {
            self.services.entry(addr).or_default().insert(service);
        }
        self.refusals.retain(|addr, _| self.services.contains_key(addr));
        let addresses: BTreeSet<_> = self.services.keys().copied().collect();
        let differ = addresses != *self.addresses;
        if differ {
            self.addresses = Arc::new(addresses);
        }
        differ
    }

    /// Takes in what a probe came to. Says which services that concerns. Only
    /// refusals count: silence may be the network's.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: Answer) -> Vec<ServiceName> {
        let Some(services) = self.services.get(&addr) else { return Vec::new() };
        let refusals = self.refusals.entry(addr).or_default();
        let before = *refusals;
        *refusals = if answer == Answer::Refuses { before.saturating_add(1) } else { 0 };
        if (before >= REFUSALS_MAX) == (*refusals >= REFUSALS_MAX) {
            return Vec::new();
        }
        services.iter().cloned().collect()
    }

    /// Takes those of a service that are down out of its endpoints. Says
    /// whether they are others than before.
    pub(super) fn set_aside(
        &mut self,
        service: &ServiceName,
        endpoints: &mut Vec<Endpoint>,
    ) -> bool {
        let is_down = |endpoint: &Endpoint| {
            let refused = self.refusals.get(&endpoint.addr);
            refused.is_some_and(|refusals| *refusals >= REFUSALS_MAX)
        };
        let serving = |endpoint: &&Endpoint| endpoint.weight != Weight(0);
        let all = endpoints.iter().filter(serving).count();
        let up = endpoints.iter().filter(serving).filter(|endpoint| !is_down(endpoint)).count();
        let down: Vec<Endpoint> = match up * 2 >= all && up > 0 {
            true => endpoints.extract_if(.., |endpoint| is_down(endpoint)).collect(),
            false => Vec::new(),
        };
        let before = match down.is_empty() {
            true => self.down.remove(service).unwrap_or_default(),
            false => mem::take(self.down.entry(service.clone()).or_default()),
        };
        let differ = before != down;
        if !down.is_empty() {
            self.down.insert(service.clone(), down);
        }
        differ
    }

    /// Adds what is to be shown and probed.
    pub(super) fn show(&self, doubts: &mut Doubts) {
        doubts.unleased = self.addresses.clone();
        doubts.down = self.down.clone();
    }
}

#[cfg(test)]
mod tests;
