//! Watches ranges of keys from a revision on, until something fails.
//!
//! In: a client, ranges, and the listing. Out: `Apply` events, and at the end the
//! reason for the end. One stream carries one watcher for each range. Every second a
//! question on that stream asks for a sign of life, so that silence is noticed. It
//! never resumes a watch: its caller lists again, because only a new listing is right
//! after a compaction, a restore or a bug in the watch.

use std::mem;
use std::time::{Duration, Instant};

use etcd_client::{Client, WatchFilterType, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::StoreState;
use super::batch::{Batch, Batches};
use super::connect::{CALL_TIMEOUT, Connect, EtcdError, MESSAGE_MAX, bounded};
use super::lease_checks::LeaseChecks;
use super::prefixes::{Decode, Range};
use super::watch::{Ask, Watch, WatchMessage};
use crate::registry::{Cause, Change, Event, Key};
use crate::{clock, seed};

/// How often etcd is asked for a sign of life.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long etcd may leave a question unanswered. Together with [`ASK_EVERY`] a frozen
/// etcd is noticed within four seconds.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long a revision waits for events of other watchers. etcd sends the events of one
/// transaction in one go. Only with several ranges.
const SHARES_WITHIN: Duration = Duration::from_millis(2);
/// How long a revision that deletes keys waits for events of other watchers. Only all events
/// together show whether one backend was shut down or many keys were swept, so correctness
/// matters more than speed. The time counts from a sign of life that was asked for after the
/// first event.
const LOSSES_WITHIN: Duration = Duration::from_millis(20);
/// How long watchers may take to catch up with the changes since the listing: etcd
/// serves watchers that are behind ten times a second.
const SETTLES_WITHIN: Duration = Duration::from_millis(500);
/// How long a revision waits for other watchers while they are catching up.
const SETTLING: Duration = Duration::from_millis(150);
/// The longest time that deleted keys wait for a sign of life, or for watchers to catch up.
const LOSSES_MAX: Duration = Duration::from_secs(1);

/// Why following ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The receiver of the events is dropped.
    ReceiverDropped,
    /// The store can no longer be followed.
    Lost(Loss),
}

/// Why a store can no longer be followed.
#[derive(Debug)]
pub(super) struct Loss {
    /// When the store last answered.
    pub(super) last_answer: Instant,
    /// True if the store fell silent; false if it reported an error.
    pub(super) silent: bool,
    pub(super) trouble: EtcdError,
}

/// Which ranges to follow, and where to send events.
pub(super) struct Follow<'a, T> {
    pub(super) connect: &'a Connect,
    pub(super) ranges: &'a [Range],
    pub(super) decode: &'a Decode<T>,
    pub(super) events: &'a mpsc::Sender<Event<T>>,
    /// The version of the credentials that the client was made with.
    pub(super) credentials: u64,
}

/// One watch stream and its state.
struct FollowedStream<'a, T> {
    follow: &'a Follow<'a, T>,
    stream: WatchStream,
    watch: Watch,
    batches: Batches,
    lease_checks: LeaseChecks,
    /// The newest revision that was sent as an event.
    applied: i64,
    last_answer: Instant,
    /// When the question was asked that is still unanswered. The silence counts from
    /// the question, not from the last answer: while events wait for a slow receiver,
    /// nothing is asked and nothing can be answered.
    asked: Option<Instant>,
    /// When revisions stop waiting for events of other watchers.
    waits_until: Option<Instant>,
    /// Since when deleted keys wait for events of other watchers.
    losses_since: Option<Instant>,
    /// When the last range was opened.
    opened: Option<Instant>,
    /// The watcher of the last sign of life.
    needless: Option<i64>,
    denial_logged: bool,
}

/// What to do next.
enum Next {
    Response(etcd_client::proto::PbWatchResponse),
    Certain(Vec<(Key, Cause)>),
    Ask,
    Waited,
}

impl<T> Follow<'_, T> {
    /// Follows the store from the listed revision on. At the end it stores the newest
    /// revision and keys in `store`.
    pub(super) async fn run(&self, client: &Client, store: &mut StoreState) -> Ended {
        let listed = store.revision;
        let mut watch = Watch::new(store.cluster, listed, self.ranges);
        let last_answer = clock::now();
        let lost = |trouble| Ended::Lost(Loss { last_answer, silent: true, trouble });
        let mut watches = client.watch_client().max_decoding_message_size(MESSAGE_MAX);
        let Some(Ask::Range(first)) = watch.ask() else {
            return lost(EtcdError("there is no prefix to watch".into()));
        };
        let (start, options) = self.range(first, listed);
        let stream = match bounded(CALL_TIMEOUT, watches.watch(start, Some(options))).await {
            Ok(stream) => stream,
            Err(trouble) => return lost(trouble),
        };
        let mut followed = FollowedStream {
            follow: self,
            stream,
            watch,
            batches: Batches::after(listed, self.ranges.len(), mem::take(&mut store.keys)),
            lease_checks: LeaseChecks::new(client.lease_client()),
            applied: listed,
            last_answer,
            asked: Some(last_answer),
            waits_until: None,
            losses_since: None,
            opened: None,
            needless: None,
            denial_logged: false,
        };
        let ended = followed.run(listed).await;
        store.revision = followed.watch.newest();
        store.keys = followed.batches.into_keys();
        ended
    }

    fn range(&self, index: usize, listed: i64) -> (Vec<u8>, WatchOptions) {
        let range = &self.ranges[index];
        let options = WatchOptions::new()
            .with_range(range.end.clone())
            .with_start_revision(listed + 1)
            .with_progress_notify()
            .with_fragment();
        (range.start.clone(), options)
    }

    /// The key that is watched for signs of life. A user with read permission for the prefix
    /// may watch it. No other process uses it, because proxies answer by themselves if two
    /// clients watch one key.
    fn nobodys_key(&self) -> (Vec<u8>, WatchOptions) {
        let start = self.ranges.first().map_or(&[][..], |range| &range.start);
        let key = [start, format!("\0lookaside-{:016x}", seed::random()).as_bytes()].concat();
        let filters = [WatchFilterType::NoPut, WatchFilterType::NoDelete];
        (key, WatchOptions::new().with_filters(filters))
    }
}

impl<T> FollowedStream<'_, T> {
    async fn run(&mut self, listed: i64) -> Ended {
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ask.reset();
        loop {
            let next = match self.next(&mut ask).await {
                Ok(next) => next,
                Err((silent, trouble)) => return self.lost(silent, trouble),
            };
            let done = match next {
                Next::Response(response) => self.handle(response).await,
                Next::Ask => self.ask().await,
                Next::Certain(gone) => {
                    let delete = |(key, cause)| Change::Delete(key, cause);
                    let changes = gone.into_iter().map(delete).collect();
                    Ok(self.send(self.applied, changes).await)
                }
                Next::Waited if self.losses_wait() => {
                    self.waits_until = Some(clock::now() + LOSSES_WITHIN);
                    Ok(true)
                }
                Next::Waited => Ok(self.send_ready(true).await),
            };
            let done = match done {
                Ok(true) if self.watch.opening() => self.open(listed).await.map(|()| true),
                done => done,
            };
            match done {
                Ok(true) => {}
                Ok(false) => return Ended::ReceiverDropped,
                Err(trouble) => return self.lost(false, trouble),
            }
        }
    }

    async fn next(&mut self, ask: &mut tokio::time::Interval) -> Result<Next, (bool, EtcdError)> {
        let silent_at = self.asked.unwrap_or_else(clock::now) + SILENCE_MAX;
        let waits_until = self.waits_until.unwrap_or_else(clock::now);
        tokio::select! {
            // Events may never end, so they come last but for the timers. The cases
            // before them are rare; the timers matter only while no events come.
            biased;
            changes = self.lease_checks.next_certain() => Ok(Next::Certain(changes)),
            _ = ask.tick() => Ok(Next::Ask),
            message = self.stream.message() => match message {
                Ok(Some(response)) => Ok(Next::Response(response.0)),
                Ok(None) => Err((false, EtcdError("etcd ended the watch".into()))),
                Err(error) => Err((false, error.into())),
            },
            () = sleep_until(waits_until.into()), if self.waits_until.is_some() => Ok(Next::Waited),
            () = sleep_until(silent_at.into()), if self.asked.is_some() => {
                Err((true, EtcdError(format!("etcd did not answer for {SILENCE_MAX:?}"))))
            }
        }
    }

    /// Handles one response of etcd. Returns false if the receiver of the events is
    /// dropped.
    async fn handle(
        &mut self,
        response: etcd_client::proto::PbWatchResponse,
    ) -> Result<bool, EtcdError> {
        let message = self.watch.take(&response)?;
        self.last_answer = clock::now();
        self.asked = None;
        match message {
            WatchMessage::Nothing => Ok(true),
            WatchMessage::Opened => {
                self.opened = Some(self.last_answer);
                Ok(true)
            }
            WatchMessage::SignOfLife(watcher) => {
                self.needless = Some(watcher);
                self.send_sign_of_life().await
            }
            WatchMessage::Denied => {
                self.denied().await?;
                self.send_sign_of_life().await
            }
            WatchMessage::Events(range) => {
                self.batches.take(range, response)?;
                let sent = self.send_ready(false).await;
                if self.losses_since.is_some() {
                    self.ask().await?;
                }
                Ok(sent)
            }
        }
    }

    /// Sends an `Apply` without changes. It carries the last revision that was sent,
    /// because the store's own may be ahead of events still on their way.
    async fn send_sign_of_life(&mut self) -> Result<bool, EtcdError> {
        self.batches.sign()?;
        if self.losses_since.is_some() {
            self.waits_until = Some(clock::now() + LOSSES_WITHIN);
        }
        Ok(self.send(self.applied, Vec::new()).await)
    }

    /// The open watch goes on, but etcd refuses a new one with this login: the password
    /// was changed, or the token has expired. Fails if there are newer credentials, so
    /// that the caller connects again with them.
    async fn denied(&mut self) -> Result<(), EtcdError> {
        if self.follow.connect.newest_credentials().await != self.follow.credentials {
            return Err(EtcdError(
                "etcd no longer accepts the login, and there is a newer one".into(),
            ));
        }
        if !std::mem::replace(&mut self.denial_logged, true) {
            tracing::info!("etcd refuses this login new watches: the open one goes on");
        }
        Ok(())
    }

    /// Asks for a sign of life, unless an answer is due already.
    async fn ask(&mut self) -> Result<bool, EtcdError> {
        self.asked.get_or_insert_with(clock::now);
        if self.watch.ask().is_some() {
            // Now, so that both messages are one packet, and both answers too.
            if let Some(watcher) = self.needless.take() {
                bounded(CALL_TIMEOUT, self.stream.cancel(watcher)).await?;
            }
            let (key, options) = self.follow.nobodys_key();
            bounded(CALL_TIMEOUT, self.stream.watch(key, Some(options))).await?;
        }
        Ok(true)
    }

    /// Asks for the watcher of the next range.
    async fn open(&mut self, listed: i64) -> Result<(), EtcdError> {
        if let Some(Ask::Range(index)) = self.watch.ask() {
            self.asked.get_or_insert_with(clock::now);
            let (start, options) = self.follow.range(index, listed);
            bounded(CALL_TIMEOUT, self.stream.watch(start, Some(options))).await?;
        }
        Ok(())
    }

    /// Sends every complete revision. With `waited`, also sends revisions that other
    /// watchers may have more of. Returns false if the receiver of the events is
    /// dropped.
    async fn send_ready(&mut self, waited: bool) -> bool {
        let decode = self.follow.decode;
        self.settled();
        loop {
            let batch = match waited {
                true => self.batches.next_pending(decode),
                false => self.batches.next(decode),
            };
            let Some(mut batch) = batch else { break };
            self.lease_checks.start(&mut batch);
            let Batch { revision, changes, .. } = batch;
            // One watcher can be behind another, but the revision shown must never
            // fall.
            self.applied = self.applied.max(revision);
            if !self.send(self.applied, changes).await {
                return false;
            }
        }
        // After waiting, only unfinished revisions are left: their end arrives as a
        // response.
        let waiting = self.batches.waiting().filter(|_| !waited);
        self.losses_since = match waiting {
            Some(true) => self.losses_since.or_else(|| Some(clock::now())),
            _ => None,
        };
        let settled = self.settled();
        let within = |losses| match (settled, losses) {
            (false, _) => SETTLING,
            (true, true) => LOSSES_WITHIN,
            (true, false) => SHARES_WITHIN,
        };
        self.waits_until = waiting.map(|losses| clock::now() + within(losses));
        true
    }

    /// Returns whether all watchers have caught up with the changes since the listing.
    fn settled(&mut self) -> bool {
        let long = |opened| clock::now().duration_since(opened) >= SETTLES_WITHIN;
        let settled = self.watch.open() && self.opened.is_some_and(long);
        if settled {
            self.batches.settle();
        }
        settled
    }

    /// Returns whether deleted keys wait for a sign of life that is due, or for watchers
    /// that catch up with the changes since the listing.
    fn losses_wait(&mut self) -> bool {
        let waits = |since| clock::now().duration_since(since) < LOSSES_MAX;
        let more = self.watch.awaits_answer() || !self.settled();
        more && self.losses_since.is_some_and(waits)
    }

    async fn send(&mut self, revision: i64, changes: Vec<Change<T>>) -> bool {
        self.follow.events.send(Event::Apply { revision, changes }).await.is_ok()
    }

    fn lost(&self, silent: bool, trouble: EtcdError) -> Ended {
        Ended::Lost(Loss { last_answer: self.last_answer, silent, trouble })
    }
}
