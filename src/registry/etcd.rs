//! Follows ranges of keys in etcd: lists them, watches them, and lists again after a
//! failure.
//!
//! In: how to reach etcd, and which keys to read. Out: [`Event`]s, without end. A
//! failure of etcd removes no data: it is reported as `Stale`, and the next `Reset` is
//! a complete and consistent listing.

mod backoff;
mod batch;
mod connect;
mod endpoint;
mod follow;
mod keys;
mod lease_checks;
mod list;
mod log_limit;
mod prefixes;
mod tls;
mod watch;

use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

pub use backoff::backoff;
pub use connect::{
    CALL_TIMEOUT, Connect, ConnectError, Credentials, Dial, Dialed, Duplex, EtcdError, bounded,
};
pub use keys::{Found, get, is_denial, put, swap};
pub use tls::Tls;

use self::batch::{Keys, Written};
use self::follow::{Ended, Loss};
use self::list::{Listing, list};
use self::log_limit::LogLimit;
use self::prefixes::Prefixes;
pub use self::prefixes::{Decode, Range, Stored};
use super::Event;
use super::record::Prefix;
use crate::{clock, seed};

/// Which registrations to read, and from which etcd.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach etcd.
    pub connect: Connect,
    /// The prefixes of the registrations; at least one. Prefixes may lie within one
    /// another: the longest prefix that can decode a key decides.
    pub prefixes: Vec<Prefix>,
}

/// Which keys to follow, in which etcd, and how to decode them.
pub struct FollowOptions<T> {
    /// How to reach etcd.
    pub connect: Connect,
    /// The kind of keys, in one word for logs: `registrations`, `settings`.
    pub what: &'static str,
    /// The ranges of keys; at least one, without overlap.
    pub ranges: Vec<Range>,
    /// Decodes one key and its value.
    pub decode: Decode<T>,
}

/// A period in which etcd did not answer.
struct Outage {
    since: Instant,
    /// The reasons that were sent. Each is sent once, because the members of a cluster
    /// can fail in turn for different reasons for hours.
    reasons: Vec<String>,
}

/// The state of the store as it was last listed and watched.
struct StoreState {
    cluster: u64,
    /// The greatest revision that the store is known to have had.
    revision: i64,
    keys: Keys,
}

struct Source<T> {
    connect: Connect,
    what: &'static str,
    decode: Decode<T>,
    ranges: Vec<Range>,
    events: mpsc::Sender<Event<T>>,
    outage: Option<Outage>,
    store: Option<StoreState>,
    log_limit: LogLimit,
}

/// The most reasons of one outage that are sent.
const REASONS_MAX: usize = 8;
/// The pauses stop growing after this many failures, at 1.6 s. Unlike registrants,
/// balancers are few, and an operator who repairs etcd waits for them.
const FAILURES_MAX: u32 = 6;

/// Lists the registrations in etcd and then sends every change. Ends when the receiver
/// of `events` is dropped. Dropping the future cancels it.
pub async fn run(options: Options, events: mpsc::Sender<Event>) {
    let Options { connect, prefixes } = options;
    let prefixes = Prefixes::new(prefixes);
    let (ranges, decode) = (prefixes.ranges(), prefixes.decode());
    follow(FollowOptions { connect, what: "registrations", ranges, decode }, events).await;
}

/// Lists the keys in etcd and then sends every change. Ends when the receiver of
/// `events` is dropped. Dropping the future cancels it.
pub async fn follow<T: Send + 'static>(what: FollowOptions<T>, events: mpsc::Sender<Event<T>>) {
    let FollowOptions { connect, what, ranges, decode } = what;
    let source = Source {
        connect,
        what,
        ranges,
        decode,
        events,
        outage: Some(Outage { since: clock::now(), reasons: Vec::new() }),
        store: None,
        log_limit: LogLimit::default(),
    };
    let receiver = source.events.clone();
    tokio::select! {
        () = source.run() => {}
        () = receiver.closed() => {}
    }
}

/// Returns every key below the prefixes with its value, all at one revision, from the
/// first endpoint that answers.
///
/// # Errors
/// If no endpoint answers: the error of the last one.
pub async fn read_once(options: Options) -> Result<Vec<(Vec<u8>, Vec<u8>)>, EtcdError> {
    let Options { connect, prefixes } = options;
    let ranges = Prefixes::new(prefixes).ranges();
    let read = |stored: Stored<'_>| (stored.key.to_vec(), stored.value.to_vec());
    let listing = connect.first_answer(|client| {
        let ranges = &ranges;
        async move { list(&client, ranges, read).await }
    });
    Ok(listing.await?.all)
}

impl StoreState {
    /// Returns whether this state of the store is older than `before`. A restored store
    /// may have been written to since, and then its revision can be the greater one. In
    /// that case a key shows it: as long as a key exists, its revision never falls.
    fn is_older_than(&self, before: &Self) -> bool {
        let known = |key| before.keys.get(key);
        let older = |(key, now): (_, &Written)| {
            known(key).is_some_and(|known| now.revision < known.revision)
        };
        self.revision < before.revision || self.keys.iter().any(older)
    }
}

impl<T: Send + 'static> Source<T> {
    async fn run(mut self) {
        // A random first endpoint, because all balancers of a site start in the same
        // way.
        let mut attempt = (seed::random() % 1024) as usize;
        let mut failures = 0;
        loop {
            let started = clock::now();
            let (loss, listed) = match self.session(attempt).await {
                (Ended::ReceiverDropped, _) => return,
                (Ended::Lost(loss), listed) => (loss, listed),
            };
            // A watch that lasted counts as a success; one that broke at once does not.
            failures = if loss.last_answer - started > backoff::LONGEST { 1 } else { failures + 1 };
            if self.report_failure(attempt, loss, listed).await.is_err() {
                return;
            }
            attempt += 1;
            sleep(backoff(failures.min(FAILURES_MAX), seed::random())).await;
        }
    }

    /// Lists and watches at one endpoint until that fails. The flag returned is true if
    /// the listing succeeded.
    async fn session(&mut self, attempt: usize) -> (Ended, bool) {
        let begun = clock::now();
        let listing = async {
            let (client, credentials) = self.connect.client_and_credentials(attempt).await?;
            let decode = self.decode.clone();
            let entry = move |stored: Stored<'_>| {
                let written = Written { lease: stored.lease, revision: stored.revision };
                (prefixes::entry(stored, &decode), written)
            };
            let listing = list(&client, &self.ranges, entry).await?;
            Ok((client, credentials, listing))
        };
        let (client, credentials, listing) = match listing.await {
            Ok(found) => found,
            Err(trouble) => {
                return (Ended::Lost(Loss { last_answer: begun, silent: false, trouble }), false);
            }
        };
        let Listing { revision, cluster, all } = listing;
        let keys = all.iter().map(|(entry, written)| (entry.key.clone(), *written)).collect();
        let all: Vec<_> = all.into_iter().map(|(entry, _)| entry).collect();
        let mut store = StoreState { cluster, revision, keys };
        let went_back = self.end_outage(attempt, &store);
        if self.events.send(Event::Reset { revision, all, went_back }).await.is_err() {
            return (Ended::ReceiverDropped, true);
        }
        let follow = follow::Follow {
            connect: &self.connect,
            ranges: &self.ranges,
            decode: &self.decode,
            events: &self.events,
            credentials,
        };
        let ended = follow.run(&client, &mut store).await;
        self.store = Some(store);
        (ended, true)
    }

    /// Ends the outage. Returns whether the store is older than before, or another one.
    fn end_outage(&mut self, attempt: usize, now: &StoreState) -> bool {
        let endpoint = self.connect.endpoint(attempt);
        let reported = self.outage.take().filter(|outage| !outage.reasons.is_empty());
        let long = reported.is_some_and(|outage| clock::now() - outage.since > backoff::LONGEST);
        let due = self.log_limit.due("following", clock::now());
        if let Some(times) = due.or(long.then_some(1)) {
            let (what, revision, keys) = (self.what, now.revision, now.keys.len());
            info!(what, endpoint, revision, keys, times, "following etcd");
        }
        let Some(before) = &self.store else { return false };
        let foreign = before.cluster != now.cluster;
        let older = now.is_older_than(before);
        let (before, now) = (before.revision, now.revision);
        if foreign && let Some(times) = self.log_limit.due("foreign", clock::now()) {
            let what = self.what;
            warn!(what, endpoint, times, "etcd is another cluster than before");
        } else if older && let Some(times) = self.log_limit.due("older", clock::now()) {
            let what = self.what;
            warn!(what, endpoint, before, now, times, "etcd went back to an older state");
        }
        foreign || older
    }

    /// Reports a failure. `Stale` is not sent for an endpoint that was just listed and
    /// then reported an error instead of falling silent: it is sent only if listing
    /// fails too. Otherwise every compaction, and every server that cancels its
    /// watches, would count as an outage.
    async fn report_failure(&mut self, attempt: usize, loss: Loss, listed: bool) -> Result<(), ()> {
        let Loss { last_answer, silent, trouble: EtcdError(reason) } = loss;
        if let Some(times) = self.log_limit.due(&reason, clock::now()) {
            let (what, endpoint) = (self.what, self.connect.endpoint(attempt));
            warn!(what, endpoint, reason, times, "cannot follow etcd");
        }
        let new = || Outage { since: last_answer, reasons: Vec::new() };
        let outage = self.outage.get_or_insert_with(new);
        let known = outage.reasons.len() >= REASONS_MAX || outage.reasons.contains(&reason);
        if known || (listed && !silent) {
            return Ok(());
        }
        outage.reasons.push(reason.clone());
        let stale = Event::Stale { since: outage.since, reason };
        self.events.send(stale).await.map_err(|_| ())
    }
}
