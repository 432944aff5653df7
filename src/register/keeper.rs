//! The task that holds one registration: a key, or several with one lease.
//!
//! In: keys, their values, which may change, and a time to live. Out: all of it in etcd
//! until the task is told to stop, then none. Each round does the same: it renews the lease
//! or gets a new one, and writes each key that is not as it should be. It uses monotonic
//! time only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, WatchOptions, WatchStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use super::{KeyValue, Options, RegisterError, Status, written};
use crate::registry::etcd::{CALL_TIMEOUT, Connect, EtcdError, backoff, bounded};
use crate::seed;

/// One registration, and its known state in etcd.
pub(super) struct Keeper {
    connect: Connect,
    /// The first key, for log lines.
    key: String,
    wanted_rx: watch::Receiver<Arc<[KeyValue]>>,
    ttl: Duration,
    /// The lease that was granted and is not known to have ended.
    lease: Option<i64>,
    /// The lease with which each key was last written.
    written_under: HashMap<String, i64>,
    /// The number of attempts, which selects the endpoint.
    attempt: usize,
    /// How often the key had to be written since it last stayed unchanged.
    writes: u32,
}

/// Why a round is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It is time.
    Beat,
    /// Somebody wrote or removed a key.
    Changed,
    /// Other values are wanted.
    Wanted,
}

/// The result of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Lease and key were as they should be.
    Unchanged,
    /// The key had to be written.
    Written,
}

/// The most reasons of one outage that are logged.
const REASONS_MAX: usize = 8;
/// How long the lease outlives its key, for balancers that ask whether it is still
/// alive.
const LINGER: Duration = Duration::from_millis(300);
/// How long a removal may take: a rolling restart waits for it.
const WITHDRAW_MAX: Duration = Duration::from_secs(5);

impl Keeper {
    pub(super) fn new(options: Options) -> Result<Self, RegisterError> {
        let (key, value) = written(&options)?;
        let Options { connect, ttl, .. } = options;
        let one: Arc<[KeyValue]> = Arc::from([KeyValue { key, value: Some(value) }]);
        // The sender is dropped; the receiver keeps the only value.
        let (_, wanted_rx) = watch::channel(one);
        Ok(Self::of(connect, ttl, wanted_rx))
    }

    /// Makes a keeper of keys whose values may change. The keys must not.
    pub(super) fn of(
        connect: Connect,
        ttl: Duration,
        wanted_rx: watch::Receiver<Arc<[KeyValue]>>,
    ) -> Self {
        let key = wanted_rx.borrow().first().map_or(String::new(), |first| first.key.clone());
        let attempt = (seed::random() % 1024) as usize;
        let written_under = HashMap::new();
        Self { connect, key, wanted_rx, ttl, lease: None, written_under, attempt, writes: 0 }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Runs until the other end of `stop_rx` is dropped, then removes the key.
    pub(super) async fn run(
        mut self,
        status_tx: watch::Sender<Status>,
        mut stop_rx: oneshot::Receiver<()>,
    ) -> Result<(), RegisterError> {
        tokio::select! {
            biased;
            _ = &mut stop_rx => {}
            () = self.hold_sessions(&status_tx) => {}
        }
        self.withdraw().await
    }

    /// Holds sessions for ever, at one endpoint after another.
    async fn hold_sessions(&mut self, status_tx: &watch::Sender<Status>) {
        let mut failures = 0;
        // The reasons since the key was last registered. Each is logged once, because
        // the members of a cluster can fail in turn for different reasons for hours.
        let mut logged: Vec<String> = Vec::new();
        loop {
            let began = Instant::now();
            let EtcdError(reason) = self.session(status_tx).await;
            if *status_tx.borrow() == Status::Registered {
                logged.clear();
            }
            failures = if began.elapsed() > self.keepalive_interval() { 1 } else { failures + 1 };
            status_tx.send_replace(Status::Trying { reason: reason.clone() });
            if logged.len() < REASONS_MAX && !logged.contains(&reason) {
                let endpoint = self.connect.endpoint(self.attempt);
                warn!(key = self.key, endpoint, reason, "the key may be missing from etcd");
                logged.push(reason);
            }
            self.attempt += 1;
            // The next attempt comes before the lease ends.
            sleep(backoff(failures, seed::random()).min(self.keepalive_interval())).await;
        }
    }

    /// Holds one connection: a round at once, one at each beat, and one whenever the
    /// key is written or removed. Returns why it ended.
    async fn session(&mut self, status_tx: &watch::Sender<Status>) -> EtcdError {
        match self.try_session(status_tx).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }

    async fn try_session(
        &mut self,
        status_tx: &watch::Sender<Status>,
    ) -> Result<std::convert::Infallible, EtcdError> {
        let mut client = self.connect.client(self.attempt).await?;
        let call = client.watch(self.key.as_str(), Some(WatchOptions::new()));
        let mut changes = bounded(CALL_TIMEOUT, call).await?;
        let all = self.wanted_rx.borrow().clone();
        for other in all.iter().skip(1) {
            let call = changes.watch(other.key.as_str(), Some(WatchOptions::new()));
            bounded(CALL_TIMEOUT, call).await?;
        }
        let mut beat = interval(self.keepalive_interval());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let cause = tokio::select! {
                biased;
                _ = beat.tick() => Cause::Beat,
                () = next_wanted(&mut self.wanted_rx) => Cause::Wanted,
                changed = wait_for_change(&mut changes) => { changed?; Cause::Changed }
            };
            let changed = self.wanted_rx.has_changed().unwrap_or(false);
            let cause = if changed { Cause::Wanted } else { cause };
            let wanted = self.wanted_rx.borrow_and_update().clone();
            let round = self.round(&mut client, &wanted).await?;
            if status_tx.send_if_modified(register) {
                let value = wanted.first().and_then(|first| first.value.as_deref());
                info!(key = self.key, value, "registered");
            }
            match round {
                Round::Written if cause == Cause::Changed => {
                    // Two holders that want different values for one key must not
                    // overwrite each other as fast as etcd allows.
                    self.writes += 1;
                    warn!(key = self.key, "the key was removed or overwritten: written again");
                    sleep(backoff(self.writes, seed::random())).await;
                }
                Round::Unchanged if cause == Cause::Beat => self.writes = 0,
                _ => {}
            }
        }
    }

    /// Renews the lease and repairs the keys in etcd.
    async fn round(
        &mut self,
        client: &mut Client,
        wanted: &[KeyValue],
    ) -> Result<Round, EtcdError> {
        let limit = CALL_TIMEOUT.min(self.keepalive_interval());
        let lease = match self.lease {
            Some(lease) if bounded(limit, alive(client, lease)).await? => lease,
            _ => {
                self.lease = None;
                let seconds =
                    i64::try_from(self.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
                let granted = bounded(limit, client.lease_grant(seconds, None)).await?;
                debug!(key = self.key, lease = granted.id(), "lease granted");
                *self.lease.insert(granted.id())
            }
        };
        let mut round = Round::Unchanged;
        for KeyValue { key, value } in wanted {
            let Some(value) = value else { continue };
            let found = bounded(limit, client.get(key.as_str(), None)).await?;
            if let Some(kv) = found.kvs().first() {
                // After it was written, the key may be taken over with another lease: that
                // of a successor that registers the same while this task still runs. Taking
                // the key back would never end. A key without a lease would outlive both.
                let passed_on = kv.lease() != 0 && self.written_under.get(key) == Some(&lease);
                if kv.value() == value.as_bytes() && (kv.lease() == lease || passed_on) {
                    continue;
                }
            }
            let options = PutOptions::new().with_lease(lease);
            let put = client.put(key.as_str(), value.as_str(), Some(options));
            bounded(limit, put).await?;
            self.written_under.insert(key.clone(), lease);
            round = Round::Written;
        }
        Ok(round)
    }

    /// Returns a third of the time to live: two beats may be lost.
    fn keepalive_interval(&self) -> Duration {
        self.ttl / 3
    }

    /// Removes each key that still has our lease, then the lease. A balancer that asks
    /// for the lease right after the deletion finds it alive, so the key did not
    /// expire.
    async fn withdraw(mut self) -> Result<(), RegisterError> {
        let Some(lease) = self.lease else { return Ok(()) };
        let deadline = Instant::now() + WITHDRAW_MAX;
        let mut failures = 0;
        loop {
            let removal = timeout_at(deadline, self.remove(lease)).await;
            let reason = match removal {
                Ok(Ok(())) => {
                    info!(key = self.key, "withdrawn");
                    return Ok(());
                }
                Ok(Err(EtcdError(reason))) => reason,
                Err(_) => format!("no answer in {WITHDRAW_MAX:?}"),
            };
            self.attempt += 1;
            failures += 1;
            sleep_until((Instant::now() + backoff(failures, seed::random())).min(deadline)).await;
            if Instant::now() >= deadline {
                let ttl = self.ttl;
                warn!(
                    key = self.key,
                    reason,
                    ?ttl,
                    "the key could not be removed: it expires with its lease"
                );
                return Err(RegisterError::NotWithdrawn { reason, ttl });
            }
        }
    }

    async fn remove(&self, lease: i64) -> Result<(), EtcdError> {
        // At least two endpoints can be tried.
        let limit = WITHDRAW_MAX / 3;
        let mut client = self.connect.client(self.attempt).await?;
        let all = self.wanted_rx.borrow().clone();
        for KeyValue { key, .. } in all.iter() {
            let ours = Txn::new()
                .when([Compare::lease(key.as_str(), CompareOp::Equal, lease)])
                .and_then([TxnOp::delete(key.as_str(), None)]);
            bounded(limit, client.txn(ours)).await?;
        }
        sleep(LINGER).await;
        match bounded(limit, client.lease_revoke(lease)).await {
            // The lease has ended already, and its keys with it.
            Err(EtcdError(reason)) if reason.contains("lease not found") => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn register(now: &mut Status) -> bool {
    let news = *now != Status::Registered;
    *now = Status::Registered;
    news
}

/// Sends one keepalive. An ended lease is an answer, not an error.
pub(super) async fn alive(client: &mut Client, lease: i64) -> Result<bool, etcd_client::Error> {
    match client.lease_keep_alive(lease).await {
        Ok(_) => Ok(true),
        // The library's error for the answer "time to live: 0".
        Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns when other values are wanted: never if they cannot change.
async fn next_wanted(wanted_rx: &mut watch::Receiver<Arc<[KeyValue]>>) {
    if wanted_rx.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Returns when a key was written or removed.
///
/// # Errors
/// If the watch failed.
async fn wait_for_change(changes: &mut WatchStream) -> Result<(), EtcdError> {
    loop {
        let response = changes.message().await.map_err(EtcdError::from)?;
        let response = response.ok_or_else(|| EtcdError("etcd ended the watch".into()))?;
        if response.canceled() {
            let reason = response.cancel_reason();
            return Err(EtcdError(format!("etcd canceled the watch: {reason}")));
        }
        if !response.events().is_empty() {
            return Ok(());
        }
    }
}
