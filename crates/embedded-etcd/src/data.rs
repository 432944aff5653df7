//! A store with its identity (cluster id and member id).
//!
//! In: nothing, or other data. Out: a handle that outlives servers, so that a server can be
//! restarted with the same data or with an older copy. The lock never leaves this file.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::store::Store;

/// A store with its identity, for [`serve_data`](crate::serve_data). Clones share the store.
#[derive(Clone)]
pub struct Data(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    cluster_id: u64,
    member_id: u64,
}

impl Data {
    /// Returns an empty store with a new identity, so that clients can distinguish it from
    /// earlier stores: its revisions start again.
    #[must_use]
    pub fn new() -> Self {
        // The standard library seeds each `RandomState` from the system's randomness.
        Self::with_random(|| RandomState::new().hash_one(0))
    }

    /// Returns an empty store whose identity and lease ids depend only on the numbers that
    /// `random` returns, for repeatable simulations. `random` is called three times.
    #[must_use]
    pub fn with_random(mut random: impl FnMut() -> u64) -> Self {
        let store = Mutex::new(Store::new(random()));
        Self(Arc::new(Shared { store, cluster_id: random(), member_id: random() }))
    }

    /// Returns a copy of the store, to go back to it later. The copy is a separate store with
    /// the same identity, like an etcd restored from a backup.
    #[must_use]
    pub fn backup(&self) -> Self {
        let Shared { cluster_id, member_id, .. } = *self.0;
        let store = Mutex::new(self.with(|store| store.clone()));
        Self(Arc::new(Shared { store, cluster_id, member_id }))
    }

    /// Renews all leases for a server that starts, as etcd does, because clients could not
    /// renew them while no server ran.
    pub(super) fn resume(&self, now: Instant) {
        self.with(|store| store.renew_all(now));
    }

    /// Calls `call` with the store.
    ///
    /// # Panics
    /// Panics if an earlier call panicked, because the store may be half changed.
    pub(super) fn with<T>(&self, call: impl FnOnce(&mut Store) -> T) -> T {
        call(&mut self.0.store.lock().expect("no call to the store panics"))
    }

    pub(super) fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }

    pub(super) fn member_id(&self) -> u64 {
        self.0.member_id
    }
}

impl Default for Data {
    fn default() -> Self {
        Self::new()
    }
}
