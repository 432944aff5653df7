//! Holds a set of keys in etcd with one lease. Unlike `register`, it holds many keys, and
//! which ones may change.
//!
//! In: the wanted keys and values; the newest count. Out: the same in etcd, until it is told
//! to stop, then none. No failure of etcd ends it. It compares what it has written with what
//! is wanted, and twice a minute with what etcd has.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions, PutOptions, Txn, TxnOp};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use crate::registry::etcd::{CALL_TIMEOUT, Connect, EtcdError, backoff, bounded};
use crate::seed;

use super::TTL_DEFAULT;
use super::keeper::alive;

/// Keys and their values.
pub type Keys = BTreeMap<String, String>;

/// The keys, and what is known of them in etcd.
struct Holder {
    connect: Connect,
    /// The prefix of all keys.
    below: String,
    lease: Option<i64>,
    /// The keys that were written with the lease.
    written: Keys,
    /// The beats since etcd's keys were last compared.
    beats: u32,
    attempt: usize,
}

/// How many operations are in one transaction; etcd takes at most 128.
const AT_ONCE: usize = 100;
/// How often etcd's keys are compared, in renewals of the lease: twice a minute.
const BEATS_PER_CHECK: u32 = 6;
/// How many failures lengthen the pause before the next attempt.
const FAILURES_MAX: u32 = 6;
/// How long a member of etcd may take to remove the keys. They end with their lease in any
/// case.
const WITHDRAW_MAX: Duration = Duration::from_secs(2);

/// Holds the newest of `wanted_rx` below the prefix `below` until `stop` is ready. Then
/// removes all keys at once.
pub async fn run(
    connect: Connect,
    below: String,
    wanted_rx: watch::Receiver<Arc<Keys>>,
    stop: impl Future<Output = ()>,
) {
    let mut holder =
        Holder { connect, below, lease: None, written: Keys::new(), beats: 0, attempt: 0 };
    tokio::select! {
        biased;
        () = stop => {}
        never = holder.hold(wanted_rx) => match never {},
    }
    holder.withdraw().await;
}

impl Holder {
    async fn hold(&mut self, mut wanted_rx: watch::Receiver<Arc<Keys>>) -> Infallible {
        let (mut failures, mut logged) = (0, false);
        loop {
            let mut done = || {
                if std::mem::take(&mut logged) {
                    info!("the records for other DNS servers are in etcd again");
                }
                failures = 0;
            };
            let EtcdError(reason) = match self.session(&mut wanted_rx, &mut done).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if !std::mem::replace(&mut logged, true) {
                let below = &self.below;
                warn!(below, reason, "the records for other DNS servers may be missing from etcd");
            }
            failures += 1;
            self.attempt += 1;
            sleep(backoff(failures.min(FAILURES_MAX), seed::random())).await;
        }
    }

    async fn session(
        &mut self,
        wanted_rx: &mut watch::Receiver<Arc<Keys>>,
        done: &mut impl FnMut(),
    ) -> Result<Infallible, EtcdError> {
        let mut client = self.connect.client(self.attempt).await?;
        let mut beat = interval(TTL_DEFAULT / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => self.renew(&mut client).await?,
                Ok(()) = wanted_rx.changed() => {}
            }
            let wanted = wanted_rx.borrow_and_update().clone();
            self.write(&mut client, &wanted).await?;
            done();
        }
    }

    /// Renews the lease, or gets a new one.
    async fn renew(&mut self, client: &mut Client) -> Result<(), EtcdError> {
        if let Some(lease) = self.lease
            && bounded(CALL_TIMEOUT, alive(client, lease)).await?
        {
            self.beats += 1;
            return match self.beats % BEATS_PER_CHECK {
                0 => self.check(client, lease).await,
                _ => Ok(()),
            };
        }
        (self.lease, self.beats) = (None, 0);
        self.written.clear();
        let seconds = i64::try_from(TTL_DEFAULT.as_secs()).unwrap_or(i64::MAX);
        let granted = bounded(CALL_TIMEOUT, client.lease_grant(seconds, None)).await?;
        self.lease = Some(granted.id());
        Ok(())
    }

    /// Forgets keys that etcd does not have with the lease, so that they are written again.
    async fn check(&mut self, client: &mut Client, lease: i64) -> Result<(), EtcdError> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let found = bounded(CALL_TIMEOUT, client.get(self.below.as_str(), Some(options))).await?;
        let own = found.kvs().iter().filter(|kv| kv.lease() == lease);
        let own: HashSet<&[u8]> = own.map(|kv| kv.key()).collect();
        self.written.retain(|key, _| own.contains(key.as_bytes()));
        Ok(())
    }

    /// Writes what differs.
    async fn write(&mut self, client: &mut Client, wanted: &Keys) -> Result<(), EtcdError> {
        let Some(lease) = self.lease else { return Ok(()) };
        let puts = wanted.iter().filter(|(key, value)| self.written.get(*key) != Some(*value));
        let puts = puts.map(|(key, value)| (key.clone(), Some(value.clone())));
        let gone = self.written.keys().filter(|key| !wanted.contains_key(*key));
        let gone = gone.map(|key| (key.clone(), None));
        let changes: Vec<_> = puts.chain(gone).collect();
        for some in changes.chunks(AT_ONCE) {
            let operation = |(key, value): &(String, Option<String>)| match value {
                Some(value) => {
                    let options = PutOptions::new().with_lease(lease);
                    TxnOp::put(key.as_str(), value.as_str(), Some(options))
                }
                None => TxnOp::delete(key.as_str(), None),
            };
            // After a failure it is unknown what etcd has, so it is written again.
            for (key, value) in some {
                match value {
                    Some(_) => drop(self.written.remove(key)),
                    None => drop(self.written.insert(key.clone(), String::new())),
                }
            }
            let txn = Txn::new().and_then(some.iter().map(operation).collect::<Vec<_>>());
            bounded(CALL_TIMEOUT, client.txn(txn)).await?;
            for (key, value) in some {
                match value {
                    Some(value) => drop(self.written.insert(key.clone(), value.clone())),
                    None => drop(self.written.remove(key)),
                }
            }
        }
        Ok(())
    }

    /// Revokes the lease, which removes all keys at once.
    async fn withdraw(self) {
        let Some(lease) = self.lease else { return };
        let mut reason = "etcd does not answer".to_owned();
        for attempt in 0..self.connect.endpoints() {
            let removed = async {
                let mut client = self.connect.client(self.attempt + attempt).await?;
                bounded(WITHDRAW_MAX, client.lease_revoke(lease)).await.map(drop)
            };
            match removed.await {
                Ok(()) => return,
                Err(EtcdError(why)) => reason = why,
            }
        }
        warn!(reason, "the records for other DNS servers stay until their lease ends");
    }
}
