//! The keys of one service, and how often each address is registered.
//!
//! In: registrations that come and go. Out: how many distinct addresses a service has,
//! whether an address is still registered, and whether a lease stands behind it. Pure.

use std::time::Duration;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use crate::model::BackendAddr;
use crate::registry::Key;

/// The registrations of one service.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) keys: HashSet<Key>,
    /// How often addresses without a lease are probed. Zero: never. It is kept here
    /// because it is read for each key, and settings are found by comparing patterns.
    pub(super) probe_unleased: Duration,
    addresses: HashMap<BackendAddr, Uses>,
}

/// How many registrations have an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) all: u32,
    pub(super) leased: u32,
}

impl Uses {
    /// Returns whether the address is registered, and by no key with a lease.
    pub(super) fn unleased(self) -> bool {
        self.all > 0 && self.leased == 0
    }
}

impl Members {
    /// Makes a service without registrations.
    pub(super) fn new(probe_unleased: Duration) -> Self {
        Self { keys: HashSet::new(), probe_unleased, addresses: HashMap::new() }
    }

    /// Returns how many backends are registered: addresses, not keys.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn uses(&self, addr: BackendAddr) -> Uses {
        self.addresses.get(&addr).copied().unwrap_or_default()
    }

    /// Returns the addresses that are registered by no key with a lease.
    pub(super) fn unleased(&self) -> impl Iterator<Item = BackendAddr> {
        self.addresses.iter().filter(|(_, uses)| uses.unleased()).map(|(addr, _)| *addr)
    }

    /// Counts new and removed registrations of an address. Returns the counts before and
    /// after.
    pub(super) fn count(
        &mut self,
        addr: BackendAddr,
        leased: bool,
        (come, go): (u32, u32),
    ) -> (Uses, Uses) {
        let entry = self.addresses.entry(addr);
        let before = match &entry {
            Entry::Occupied(uses) => *uses.get(),
            Entry::Vacant(_) => Uses::default(),
        };
        let after = |count: u32| (count + come).saturating_sub(go);
        let leased = if leased { after(before.leased) } else { before.leased };
        let after = Uses { all: after(before.all), leased };
        match entry {
            Entry::Occupied(uses) if after.all == 0 => drop(uses.remove()),
            Entry::Vacant(_) if after.all == 0 => {}
            entry => drop(entry.insert(after)),
        }
        (before, after)
    }
}
