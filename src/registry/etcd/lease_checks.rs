//! Asks etcd whether the leases of deleted keys are still alive.
//!
//! In: batches, when they are sent. Out: deletions that were sent in doubt, again and
//! with a certain cause. It delays no event: a key is in doubt until etcd answers. It
//! stays in doubt if etcd does not answer, or if too many keys were deleted at once to
//! ask about each.

use etcd_client::LeaseClient;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
// hashbrown's default hash is faster than std's: a mass loss means many look-ups.
use hashbrown::{HashMap, HashSet};

use super::batch::Batch;
use super::connect::{CALL_TIMEOUT, bounded};
use crate::registry::{Cause, Change, Key};

/// The most batches that are asked about at a time. A deployment that stops 50 backends
/// at once is answered in milliseconds. Thousands of expired leases mean an outage, in
/// which etcd should not be asked so much.
const BATCHES_MAX: usize = 64;
/// The most leases of one batch that are asked about, for the same reason.
const LEASES_MAX: usize = 64;

/// The questions that are open.
pub(super) struct LeaseChecks {
    client: LeaseClient,
    /// The keys that were written while a question is open, each with the revision of its
    /// last write. A key that exists again needs no cause.
    written: HashMap<Key, i64>,
    asked: FuturesUnordered<BoxFuture<'static, LeaseAnswer>>,
}

/// The answer about one batch: the keys whose lease is still alive.
struct LeaseAnswer {
    revision: i64,
    certain: Vec<Key>,
    cause: Cause,
}

impl LeaseChecks {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, written: HashMap::new(), asked: FuturesUnordered::new() }
    }

    /// Takes a batch that is being sent, and asks about its leases.
    pub(super) fn start<T>(&mut self, batch: &mut Batch<T>) {
        let revision = batch.revision;
        if !self.asked.is_empty() {
            for change in &batch.changes {
                if let Change::Put(entry) = change {
                    self.written.insert(entry.key.clone(), revision);
                }
            }
        }
        let keys = std::mem::take(&mut batch.leases);
        let leases: HashSet<i64> = keys.iter().map(|(_, lease)| *lease).collect();
        if leases.is_empty() || leases.len() > LEASES_MAX || self.asked.len() >= BATCHES_MAX {
            return;
        }
        // A set has no order, and etcd shall be asked in the same order everywhere.
        let mut leases: Vec<i64> = leases.into_iter().collect();
        leases.sort_unstable();
        let asks =
            join_all(leases.into_iter().map(|lease| lease_if_alive(self.client.clone(), lease)));
        let cause = batch.cause_if_alive;
        self.asked.push(Box::pin(async move {
            let alive: HashSet<i64> = asks.await.into_iter().flatten().collect();
            let lives = |(key, lease): (Key, i64)| alive.contains(&lease).then_some(key);
            let certain = match alive.is_empty() {
                true => Vec::new(),
                false => keys.into_iter().filter_map(lives).collect(),
            };
            LeaseAnswer { revision, certain, cause }
        }));
    }

    /// Waits for keys whose cause of deletion has become certain, and returns them.
    /// Waits for ever while no question is open.
    pub(super) async fn next_certain(&mut self) -> Vec<(Key, Cause)> {
        loop {
            let Some(LeaseAnswer { revision, mut certain, cause }) = self.asked.next().await else {
                return std::future::pending().await;
            };
            certain.retain(|key| self.written.get(key).is_none_or(|written| *written < revision));
            if self.asked.is_empty() {
                self.written = HashMap::new();
            }
            if !certain.is_empty() {
                return certain.into_iter().map(|key| (key, cause)).collect();
            }
        }
    }
}

/// Returns the lease if it has time left.
async fn lease_if_alive(mut client: LeaseClient, lease: i64) -> Option<i64> {
    match bounded(CALL_TIMEOUT, client.time_to_live(lease, None)).await {
        Ok(answer) => (answer.ttl() > 0).then_some(lease),
        Err(trouble) => {
            tracing::debug!(lease, %trouble, "etcd does not say whether a lease is alive");
            None
        }
    }
}
