//! Asks whether the leases of keys that went live on.
//!
//! In: batches, as they are told. Out: changes that say again, and for certain,
//! what was told in doubt. It holds nothing up: a key is in doubt until there is
//! an answer, and remains so when there is none, or when too many went at once
//! for each to be asked for.

use etcd_client::LeaseClient;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
// With a hash that is quicker than std's: a mass loss is all look-ups.
use hashbrown::{HashMap, HashSet};

use super::batch::Batch;
use super::connect::{CALL_TIMEOUT, bounded};
use crate::registry::{Cause, Change, Key};

/// Batches that are asked for at a time. A deployment that takes 50 servers
/// down together is answered in milliseconds; leases that run out by the
/// thousand are an outage, and etcd has better things to do than to be asked.
const BATCHES_MAX: usize = 64;
/// Leases of one batch that are asked for, for the same reason.
const LEASES_MAX: usize = 64;

/// What is being asked.
pub(super) struct Doubts {
    client: LeaseClient,
    /// Keys that are gone, each with the revision at which it went.
    gone: HashMap<Key, i64>,
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
}

/// The keys of one batch whose leases live on.
struct Answer {
    revision: i64,
    asked: Vec<Key>,
    certain: HashSet<Key>,
    cause: Cause,
}

impl Doubts {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, gone: HashMap::new(), asked: FuturesUnordered::new() }
    }

    /// Takes note of a batch that is told now.
    pub(super) fn note<T>(&mut self, batch: &Batch<T>) {
        for change in &batch.changes {
            if let Change::Put(entry) = change {
                // It is back: why it went is no matter any more.
                self.gone.remove(&entry.key);
            }
        }
        let leases: HashSet<i64> = batch.leases.iter().map(|(_, lease)| *lease).collect();
        if leases.is_empty() || leases.len() > LEASES_MAX || self.asked.len() >= BATCHES_MAX {
            return;
        }
        let revision = batch.revision;
        self.gone.extend(batch.leases.iter().map(|(key, _)| (key.clone(), revision)));
        let asks = join_all(leases.into_iter().map(|lease| lives(self.client.clone(), lease)));
        let (leases, cause) = (batch.leases.clone(), batch.otherwise);
        self.asked.push(Box::pin(async move {
            let alive: HashSet<i64> = asks.await.into_iter().flatten().collect();
            let lives = |(key, lease): &(Key, i64)| alive.contains(lease).then(|| key.clone());
            let certain = leases.iter().filter_map(lives).collect();
            let asked = leases.into_iter().map(|(key, _)| key).collect();
            Answer { revision, asked, certain, cause }
        }));
    }

    /// What has become certain: which keys went, and by what. Waits for ever while
    /// nothing is asked.
    pub(super) async fn certain(&mut self) -> Vec<(Key, Cause)> {
        loop {
            let Some(Answer { revision, asked, certain, cause }) = self.asked.next().await else {
                return std::future::pending().await;
            };
            let still = |key: &Key| self.gone.get(key) == Some(&revision);
            let asked: Vec<Key> = asked.into_iter().filter(still).collect();
            for key in &asked {
                self.gone.remove(key);
            }
            let certain: Vec<_> = asked
                .into_iter()
                .filter(|key| certain.contains(key))
                .map(|key| (key, cause))
                .collect();
            if !certain.is_empty() {
                return certain;
            }
        }
    }
}

/// The lease, if it has time left.
async fn lives(mut client: LeaseClient, lease: i64) -> Option<i64> {
    match bounded(CALL_TIMEOUT, client.time_to_live(lease, None)).await {
        Ok(answer) => (answer.ttl() > 0).then_some(lease),
        Err(trouble) => {
            tracing::debug!(lease, %trouble, "etcd does not say whether a lease lives");
            None
        }
    }
}
