//! Leases with their deadlines and keys.
//!
//! In: grants, renewals, and keys that are attached or detached. Out: the lease that ends
//! next, and the keys of a lease that ended. It never deletes keys itself.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreError;

/// The shortest TTL in seconds, as in etcd with its default election timeout: one and a half
/// times 1 s, rounded up (`minLeaseTTL` in etcd's lease/lessor.go).
pub(super) const TTL_MIN: i64 = 2;
/// The longest TTL in seconds, as in etcd (`MaxLeaseTTL`).
const TTL_MAX: i64 = 9_000_000_000;
/// The most leases. A hundred thousand backends that take a new lease every few seconds and
/// let the old ones expire have a few hundred thousand at a time.
const LEASES_MAX: usize = 500_000;

/// All leases that have not ended.
#[derive(Clone)]
pub(super) struct Leases {
    by_id: HashMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
    /// The state of the generator of ids.
    seed: u64,
}

#[derive(Clone)]
struct Lease {
    /// The TTL in seconds.
    granted: i64,
    deadline: Instant,
    keys: BTreeSet<Arc<[u8]>>,
}

/// The state of a lease.
pub(super) struct LeaseStatus<'a> {
    /// The time left, in whole seconds.
    pub(super) ttl: i64,
    /// The granted TTL, in seconds.
    pub(super) granted: i64,
    /// The attached keys, in order.
    pub(super) keys: &'a BTreeSet<Arc<[u8]>>,
}

impl Leases {
    /// Returns no leases. Stores with different seeds choose different ids, so that a client
    /// of one store does not by chance renew another client's lease in the next store.
    pub(super) fn new(seed: u64) -> Self {
        Self { by_id: HashMap::new(), by_deadline: BTreeSet::new(), seed }
    }

    /// Grants a lease with this id, or with a new id for 0. Returns id and TTL (seconds).
    pub(super) fn grant(
        &mut self,
        id: i64,
        ttl: i64,
        now: Instant,
    ) -> Result<(i64, i64), StoreError> {
        if ttl > TTL_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if self.by_id.contains_key(&id) {
            return Err(StoreError::LeaseExists);
        }
        if self.by_id.len() >= LEASES_MAX {
            return Err(StoreError::NoSpace);
        }
        let id = if id == 0 { self.choose() } else { id };
        let granted = ttl.max(TTL_MIN);
        let deadline = now + seconds(granted);
        self.by_id.insert(id, Lease { granted, deadline, keys: BTreeSet::new() });
        self.by_deadline.insert((deadline, id));
        Ok((id, granted))
    }

    /// Renews a lease. Returns its TTL in seconds, or `None` if there is no such lease.
    pub(super) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.by_id.get_mut(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = now + seconds(lease.granted);
        self.by_deadline.insert((lease.deadline, id));
        Some(lease.granted)
    }

    /// Ends a lease. Returns its keys in order, or `None` if there is no such lease.
    pub(super) fn remove(&mut self, id: i64) -> Option<BTreeSet<Arc<[u8]>>> {
        let lease = self.by_id.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        Some(lease.keys)
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn status(&self, id: i64, now: Instant) -> Option<LeaseStatus<'_>> {
        let lease = self.by_id.get(&id)?;
        let left = lease.deadline.saturating_duration_since(now).as_secs();
        let ttl = i64::try_from(left).unwrap_or(i64::MAX);
        Some(LeaseStatus { ttl, granted: lease.granted, keys: &lease.keys })
    }

    /// Returns the keys of a lease.
    pub(super) fn keys(&self, id: i64) -> impl Iterator<Item = &Arc<[u8]>> {
        self.by_id.get(&id).into_iter().flat_map(|lease| &lease.keys)
    }

    /// Returns all ids, sorted by the end of the lease.
    pub(super) fn ids(&self) -> impl Iterator<Item = i64> {
        self.by_deadline.iter().map(|&(_, id)| id)
    }

    /// Returns the time at which the next lease ends if it is not renewed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|&(deadline, _)| deadline)
    }

    /// Returns a lease whose time is over and that is not removed yet.
    pub(super) fn due(&self, now: Instant) -> Option<i64> {
        self.by_deadline.first().filter(|(deadline, _)| *deadline <= now).map(|&(_, id)| id)
    }

    pub(super) fn attach(&mut self, id: i64, key: &Arc<[u8]>) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    fn choose(&mut self) -> i64 {
        loop {
            self.seed = self.seed.wrapping_add(1);
            let id = i64::try_from(scatter(self.seed) >> 1).unwrap_or(0);
            if id != 0 && !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs())
}

/// Maps 64 bits one to one (the finaliser of SplitMix64, Steele et al. 2014), so that
/// neighbouring seeds have no common sequence of ids.
fn scatter(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
