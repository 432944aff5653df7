//! Leases: until when they live and which keys hang on them.
//!
//! In: grants, renewals, keys that come and go. Out: which lease is due next,
//! and what hung on one that ended. It deletes no key itself.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreError;

/// As etcd with its default election timeout: one and a half times 1 s, rounded
/// up (`minLeaseTTL` in etcd's lease/lessor.go).
pub(super) const TTL_MIN: i64 = 2;
/// etcd's own limit (`MaxLeaseTTL`), in seconds.
const TTL_MAX: i64 = 9_000_000_000;
/// A hundred thousand backends that take a new lease every few seconds and let
/// the old ones run out have a few hundred thousand at a time.
const LEASES_MAX: usize = 500_000;

/// All leases that live.
#[derive(Clone)]
pub(super) struct Leases {
    by_id: HashMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
    /// Where the choice of ids stands.
    seed: u64,
}

#[derive(Clone)]
struct Lease {
    /// Seconds.
    granted: i64,
    deadline: Instant,
    keys: BTreeSet<Arc<[u8]>>,
}

/// How a lease stands.
pub(super) struct Standing<'a> {
    /// Whole seconds left.
    pub(super) ttl: i64,
    /// As granted, in seconds.
    pub(super) granted: i64,
    /// In order.
    pub(super) keys: &'a BTreeSet<Arc<[u8]>>,
}

impl Leases {
    /// Two stores with different seeds choose different ids, so that a client of
    /// one does not by chance keep a stranger's lease alive in the next.
    pub(super) fn new(seed: u64) -> Self {
        Self { by_id: HashMap::new(), by_deadline: BTreeSet::new(), seed }
    }

    /// Grants `id`, or one of its own choice for 0, and tells id and TTL.
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

    /// Starts its time anew and tells its TTL; none when there is no such lease.
    pub(super) fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let lease = self.by_id.get_mut(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        lease.deadline = now + seconds(lease.granted);
        self.by_deadline.insert((lease.deadline, id));
        Some(lease.granted)
    }

    /// Ends the lease and tells what hung on it, in order.
    pub(super) fn remove(&mut self, id: i64) -> Option<BTreeSet<Arc<[u8]>>> {
        let lease = self.by_id.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline, id));
        Some(lease.keys)
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn standing(&self, id: i64, now: Instant) -> Option<Standing<'_>> {
        let lease = self.by_id.get(&id)?;
        let left = lease.deadline.saturating_duration_since(now).as_secs();
        let ttl = i64::try_from(left).unwrap_or(i64::MAX);
        Some(Standing { ttl, granted: lease.granted, keys: &lease.keys })
    }

    /// What hangs on a lease.
    pub(super) fn keys(&self, id: i64) -> impl Iterator<Item = &Arc<[u8]>> {
        self.by_id.get(&id).into_iter().flat_map(|lease| &lease.keys)
    }

    /// All ids, those that end first before the others.
    pub(super) fn ids(&self) -> impl Iterator<Item = i64> {
        self.by_deadline.iter().map(|&(_, id)| id)
    }

    /// When the next one ends if it is not renewed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|&(deadline, _)| deadline)
    }

    /// One that has ended and was not removed yet.
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

/// A one-to-one scrambling of 64 bits (the finaliser of SplitMix64, Steele et
/// al. 2014), so that neighbouring seeds share no run of ids.
fn scatter(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
