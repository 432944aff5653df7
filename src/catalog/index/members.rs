//! Which keys make up a service, and how often each address is registered.
//!
//! In: registrations that come and go. Out: how many distinct addresses a
//! service has, whether one is registered still, and whether by a lease. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashMap;

use crate::model::BackendAddr;
use crate::registry::Key;

/// The registrations of one service.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) keys: BTreeSet<Key>,
    /// How often those without a lease are probed; zero: never. Kept here, for it is
    /// asked for with each key, and settings are found by comparing patterns.
    pub(super) probe_unleased: Duration,
    addresses: HashMap<BackendAddr, Uses>,
}

/// How many registrations give an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) all: usize,
    pub(super) leased: usize,
}

impl Uses {
    /// Whether it is registered, and by no key with a lease.
    pub(super) fn unleased(self) -> bool {
        self.all > 0 && self.leased == 0
    }
}

impl Members {
    /// A service that nothing registers yet.
    pub(super) fn new(probe_unleased: Duration) -> Self {
        Self { keys: BTreeSet::new(), probe_unleased, addresses: HashMap::new() }
    }

    /// How many backends are registered: addresses, not keys.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn uses(&self, addr: BackendAddr) -> Uses {
        self.addresses.get(&addr).copied().unwrap_or_default()
    }

    /// Those that are registered by no key with a lease.
    pub(super) fn unleased(&self) -> impl Iterator<Item = BackendAddr> {
        self.addresses.iter().filter(|(_, uses)| uses.unleased()).map(|(addr, _)| *addr)
    }

    /// Counts registrations of an address that come. Returns what it was.
    pub(super) fn add(&mut self, addr: BackendAddr, leased: bool, times: usize) -> (Uses, Uses) {
        let uses = self.addresses.entry(addr).or_default();
        let before = *uses;
        uses.all += times;
        uses.leased += if leased { times } else { 0 };
        (before, *uses)
    }

    /// Counts registrations of an address that go.
    pub(super) fn remove(&mut self, addr: BackendAddr, leased: bool, times: usize) -> (Uses, Uses) {
        let Some(uses) = self.addresses.get_mut(&addr) else { return Default::default() };
        let before = *uses;
        uses.all = uses.all.saturating_sub(times);
        uses.leased = uses.leased.saturating_sub(if leased { times } else { 0 });
        let after = *uses;
        if after.all == 0 {
            self.addresses.remove(&addr);
        }
        (before, after)
    }
}
