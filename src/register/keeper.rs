//! The task behind one registration.
//!
//! In: a key, its value and a time to live. Out: both in etcd until told to
//! stop, then neither. Every round is the same: the lease lives or is granted
//! anew, the key is as it should be or is written. Monotonic time only.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, WatchOptions, WatchStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use super::{Options, RegisterError, Status, written};
use crate::registry::etcd::{CALL_TIMEOUT, Connect, Trouble, backoff, bounded};
use crate::seed;

/// One registration and what etcd has of it, as far as is known.
pub(super) struct Keeper {
    connect: Connect,
    key: String,
    value: String,
    ttl: Duration,
    /// Ours, granted and not known to be dead.
    lease: Option<i64>,
    /// The lease under which the key was last written.
    written_under: Option<i64>,
    /// Which endpoint is next.
    attempt: usize,
    /// How often the key had to be written since it last stayed.
    writes: u32,
}

/// What a round found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// All was as it should be.
    Unchanged,
    /// The key had to be written.
    Written,
}

/// How many reasons of one outage are told.
const REASONS_MAX: usize = 8;
/// How long the lease outlives its key: for watchers that ask whether it does.
const LINGER: Duration = Duration::from_millis(300);
/// How long a removal may take: a rolling restart waits for it.
const WITHDRAW_MAX: Duration = Duration::from_secs(5);

impl Keeper {
    pub(super) fn new(options: Options) -> Result<Self, RegisterError> {
        let (key, value) = written(&options)?;
        let Options { connect, ttl, .. } = options;
        let attempt = (seed::random() % 1024) as usize;
        Ok(Self { connect, key, value, ttl, lease: None, written_under: None, attempt, writes: 0 })
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Runs until `stop_rx`'s other end is dropped, then removes the key.
    pub(super) async fn run(
        mut self,
        status_tx: watch::Sender<Status>,
        mut stop_rx: oneshot::Receiver<()>,
    ) -> Result<(), RegisterError> {
        tokio::select! {
            biased;
            _ = &mut stop_rx => {}
            () = self.keep(&status_tx) => {}
        }
        self.withdraw().await
    }

    /// For ever: a session at one endpoint after another.
    async fn keep(&mut self, status_tx: &watch::Sender<Status>) {
        let mut failures = 0;
        // Since it was last registered; each is told once, for members of a
        // cluster can fail for different reasons, in turn, for hours.
        let mut told: Vec<String> = Vec::new();
        loop {
            let began = Instant::now();
            let Trouble(reason) = self.session(status_tx).await;
            if *status_tx.borrow() == Status::Registered {
                told.clear();
            }
            failures = if began.elapsed() > self.beat() { 1 } else { failures + 1 };
            status_tx.send_replace(Status::Trying { reason: reason.clone() });
            if told.len() < REASONS_MAX && !told.contains(&reason) {
                let endpoint = self.connect.endpoint(self.attempt);
                warn!(key = self.key, endpoint, reason, "not sure to be registered");
                told.push(reason);
            }
            self.attempt += 1;
            // Back before the lease ends, if etcd is.
            sleep(backoff(failures, seed::random()).min(self.beat())).await;
        }
    }

    /// One connection: a round, then one at each beat and whenever somebody
    /// touches the key. Returns why it ended.
    async fn session(&mut self, status_tx: &watch::Sender<Status>) -> Trouble {
        match self.try_session(status_tx).await {
            Ok(never) => match never {},
            Err(trouble) => trouble,
        }
    }

    async fn try_session(
        &mut self,
        status_tx: &watch::Sender<Status>,
    ) -> Result<std::convert::Infallible, Trouble> {
        let mut client = self.connect.client(self.attempt).await?;
        let call = client.watch(self.key.as_str(), Some(WatchOptions::new()));
        let mut touched = bounded(CALL_TIMEOUT, call).await?;
        let mut beat = interval(self.beat());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let by_hand = tokio::select! {
                biased;
                _ = beat.tick() => false,
                touch = wait_for_touch(&mut touched) => { touch?; true }
            };
            let round = self.round(&mut client).await?;
            if status_tx.send_if_modified(register) {
                info!(key = self.key, value = self.value, "registered");
            }
            match round {
                Round::Written if by_hand => {
                    // Two who want different values under one key must not
                    // overwrite each other as fast as etcd allows.
                    self.writes += 1;
                    warn!(key = self.key, "the key was removed or overwritten, and is back");
                    sleep(backoff(self.writes, seed::random())).await;
                }
                Round::Unchanged if !by_hand => self.writes = 0,
                _ => {}
            }
        }
    }

    /// Makes etcd have what it should have.
    async fn round(&mut self, client: &mut Client) -> Result<Round, Trouble> {
        let limit = CALL_TIMEOUT.min(self.beat());
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
        let found = bounded(limit, client.get(self.key.as_str(), None)).await?;
        if let Some(kv) = found.kvs().first() {
            // Once written, it may pass under somebody else's lease: a successor's
            // that registers the same while we are still here. Taking it back
            // would never end. Under no lease it would outlive us both.
            let passed_on = kv.lease() != 0 && self.written_under == Some(lease);
            if kv.value() == self.value.as_bytes() && (kv.lease() == lease || passed_on) {
                return Ok(Round::Unchanged);
            }
        }
        let options = PutOptions::new().with_lease(lease);
        let put = client.put(self.key.as_str(), self.value.as_str(), Some(options));
        bounded(limit, put).await?;
        self.written_under = Some(lease);
        Ok(Round::Written)
    }

    /// A third of the time to live: two beats may be lost.
    fn beat(&self) -> Duration {
        self.ttl / 3
    }

    /// Removes the key if it is ours, then the lease: a watcher that looks at
    /// the lease right after the deletion sees that it was no expiry.
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
                Ok(Err(Trouble(reason))) => reason,
                Err(_) => format!("no answer in {WITHDRAW_MAX:?}"),
            };
            self.attempt += 1;
            failures += 1;
            sleep_until((Instant::now() + backoff(failures, seed::random())).min(deadline)).await;
            if Instant::now() >= deadline {
                let ttl = self.ttl;
                warn!(key = self.key, reason, ?ttl, "not withdrawn: its lease will end by itself");
                return Err(RegisterError::NotWithdrawn { reason, ttl });
            }
        }
    }

    async fn remove(&self, lease: i64) -> Result<(), Trouble> {
        // At least two endpoints get their chance.
        let limit = WITHDRAW_MAX / 3;
        let mut client = self.connect.client(self.attempt).await?;
        let key = self.key.as_str();
        let ours = Txn::new()
            .when([Compare::lease(key, CompareOp::Equal, lease)])
            .and_then([TxnOp::delete(key, None)]);
        bounded(limit, client.txn(ours)).await?;
        sleep(LINGER).await;
        match bounded(limit, client.lease_revoke(lease)).await {
            // It has ended already, and what it held with it.
            Err(Trouble(reason)) if reason.contains("lease not found") => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn register(now: &mut Status) -> bool {
    let news = *now != Status::Registered;
    *now = Status::Registered;
    news
}

/// One keepalive. A lease that is gone is an answer, not an error.
async fn alive(client: &mut Client, lease: i64) -> Result<bool, etcd_client::Error> {
    match client.lease_keep_alive(lease).await {
        Ok(_) => Ok(true),
        // What the library makes of the answer "time to live: 0".
        Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns when somebody wrote or removed the key; fails when the watch did.
async fn wait_for_touch(touched: &mut WatchStream) -> Result<(), Trouble> {
    loop {
        let response = touched.message().await.map_err(Trouble::from)?;
        let response = response.ok_or_else(|| Trouble("etcd ended the watch".into()))?;
        if response.canceled() {
            let reason = response.cancel_reason();
            return Err(Trouble(format!("etcd canceled the watch: {reason}")));
        }
        if !response.events().is_empty() {
            return Ok(());
        }
    }
}
