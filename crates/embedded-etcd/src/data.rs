//! What a server serves: the store, and whose it is.
//!
//! In: nothing, or another's data. Out: a handle that outlives servers, so that
//! one can be started again with what it had, or with an older copy. The lock
//! never leaves this file.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::store::Store;

/// A store with its identity, to be served by [`serve_data`](crate::serve_data).
/// A clone is the same store.
#[derive(Clone)]
pub struct Data(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    cluster_id: u64,
    member_id: u64,
}

impl Data {
    /// An empty store. Each has an identity of its own, so that clients can tell
    /// it, whose revisions begin anew, from any before.
    #[must_use]
    pub fn new() -> Self {
        // The standard library seeds each differently, from the system's chance.
        Self::with_random(|| RandomState::new().hash_one(0))
    }

    /// An empty store whose identity and lease ids follow from the numbers that
    /// `random` returns, for simulations that must repeat themselves. It is called
    /// three times.
    #[must_use]
    pub fn with_random(mut random: impl FnMut() -> u64) -> Self {
        let store = Mutex::new(Store::new(random()));
        Self(Arc::new(Shared { store, cluster_id: random(), member_id: random() }))
    }

    /// Copies the store as it is now, to go back to it later. The copy is a store
    /// of its own under the same identity, as when etcd is restored from a backup.
    #[must_use]
    pub fn backup(&self) -> Self {
        let Shared { cluster_id, member_id, .. } = *self.0;
        let store = Mutex::new(self.with(|store| store.clone()));
        Self(Arc::new(Shared { store, cluster_id, member_id }))
    }

    /// For a server that starts: leases have all of their time before them, as
    /// with an etcd that starts, for while nobody served none could be renewed.
    pub(super) fn resume(&self, now: Instant) {
        self.with(|store| store.renew_all(now));
    }

    /// Lends the store.
    ///
    /// # Panics
    /// When an earlier call did: the store may be half changed.
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
