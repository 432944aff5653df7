//! etcd as a registry: reads all, follows what changes, starts over when it must.
//!
//! In: where etcd is and which prefixes are read. Out: [`Event`]s, for ever. No
//! trouble with etcd ends it or takes anything away: trouble is a `Stale`, and
//! the next `Reset` is a whole and consistent reading.

mod backoff;
mod batch;
mod connect;
mod doubt;
mod endpoint;
mod follow;
mod keys;
mod list;
mod prefixes;
mod tls;
mod told;
mod watch;

use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

pub use backoff::backoff;
pub use connect::{
    CALL_TIMEOUT, Connect, ConnectError, Credentials, Dial, Dialed, Duplex, Trouble, bounded,
};
pub use keys::{Found, get, is_denial, put, swap};
pub use tls::Tls;

use self::batch::{Keys, Written};
use self::follow::{Ended, Loss};
use self::list::{Listing, list};
use self::prefixes::Prefixes;
pub use self::prefixes::{Decode, Range, Stored};
use self::told::Told;
use super::Event;
use super::record::Prefix;
use crate::{clock, seed};

/// What to read, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// How etcd is reached.
    pub connect: Connect,
    /// Where the registrations are; one at least. They may lie within one another:
    /// the longest that knows a key decides how it is read.
    pub prefixes: Vec<Prefix>,
}

/// What to follow, where, and what to make of it.
pub struct Following<T> {
    /// How etcd is reached.
    pub connect: Connect,
    /// What it is, in one word: `registrations`, `settings`.
    pub what: &'static str,
    /// Which keys; one range at least, without overlap.
    pub ranges: Vec<Range>,
    /// What is made of each.
    pub decode: Decode<T>,
}

/// A time in which etcd was not heard.
struct Outage {
    since: Instant,
    /// Each is sent once: members of a cluster can fail for different reasons,
    /// in turn, for hours.
    reasons: Vec<String>,
}

/// The store as last read and followed.
struct Seen {
    cluster: u64,
    /// The greatest that it is known to have had.
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
    seen: Option<Seen>,
    told: Told,
}

/// How many reasons of one outage are sent.
const REASONS_MAX: usize = 8;
/// From then on the pauses grow no longer: to 1.6 s. Balancers are few, unlike
/// registrants, and whoever mends etcd waits for them.
const FAILURES_MAX: u32 = 6;

/// Sends the registrations that etcd holds, and then what changes, for as long as
/// somebody receives; ends when nobody does. Cancelled by dropping it.
pub async fn run(options: Options, events: mpsc::Sender<Event>) {
    let Options { connect, prefixes } = options;
    let prefixes = Prefixes::new(prefixes);
    let (ranges, decode) = (prefixes.ranges(), prefixes.decode());
    follow(Following { connect, what: "registrations", ranges, decode }, events).await;
}

/// Sends what etcd holds, and then what changes, for as long as somebody receives; ends
/// when nobody does. Cancelled by dropping it.
pub async fn follow<T: Send + 'static>(what: Following<T>, events: mpsc::Sender<Event<T>>) {
    let Following { connect, what, ranges, decode } = what;
    let source = Source {
        connect,
        what,
        ranges,
        decode,
        events,
        outage: Some(Outage { since: clock::now(), reasons: Vec::new() }),
        seen: None,
        told: Told::default(),
    };
    let unheard = source.events.clone();
    tokio::select! {
        () = source.run() => {}
        () = unheard.closed() => {}
    }
}

/// Every key below the prefixes and its value, as they are at one revision,
/// from the first endpoint that answers.
///
/// # Errors
/// When none does: what the last one said.
pub async fn read_once(options: Options) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Trouble> {
    let Options { connect, prefixes } = options;
    let ranges = Prefixes::new(prefixes).ranges();
    let read = |stored: Stored<'_>| (stored.key.to_vec(), stored.value.to_vec());
    let listing = connect.first_answer(|client| {
        let ranges = &ranges;
        async move { list(&client, ranges, read).await }
    });
    Ok(listing.await?.all)
}

impl Seen {
    /// Whether it is an older state than that one. A store that was restored may
    /// have been written to since, so that its revision is greater: then a key
    /// tells, for while it is there it is never of a smaller revision than before.
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
        // Anywhere: all balancers of a site start alike.
        let mut attempt = (seed::random() % 1024) as usize;
        let mut failures = 0;
        loop {
            let started = clock::now();
            let (loss, listed) = match self.session(attempt).await {
                (Ended::Unheard, _) => return,
                (Ended::Lost(loss), listed) => (loss, listed),
            };
            // A watch that lasted was a success, one that broke at once was not.
            failures = if loss.heard - started > backoff::LONGEST { 1 } else { failures + 1 };
            if self.tell(attempt, loss, listed).await.is_err() {
                return;
            }
            attempt += 1;
            sleep(backoff(failures.min(FAILURES_MAX), seed::random())).await;
        }
    }

    /// Lists and follows at one endpoint until that fails. Whether it came to
    /// follow, too.
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
                return (Ended::Lost(Loss { heard: begun, silent: false, trouble }), false);
            }
        };
        let Listing { revision, cluster, all } = listing;
        let keys = all.iter().map(|(entry, written)| (entry.key.clone(), *written)).collect();
        let all: Vec<_> = all.into_iter().map(|(entry, _)| entry).collect();
        let mut seen = Seen { cluster, revision, keys };
        let went_back = self.note(attempt, &seen);
        if self.events.send(Event::Reset { revision, all, went_back }).await.is_err() {
            return (Ended::Unheard, true);
        }
        let follow = follow::Follow {
            connect: &self.connect,
            ranges: &self.ranges,
            decode: &self.decode,
            events: &self.events,
            credentials,
        };
        let ended = follow.run(&client, &mut seen).await;
        self.seen = Some(seen);
        (ended, true)
    }

    /// Ends the outage, and says whether the store is an older one than before.
    fn note(&mut self, attempt: usize, now: &Seen) -> bool {
        let endpoint = self.connect.endpoint(attempt);
        let told = self.outage.take().filter(|outage| !outage.reasons.is_empty());
        let long = told.is_some_and(|outage| clock::now() - outage.since > backoff::LONGEST);
        let due = self.told.due("following", clock::now());
        if let Some(times) = due.or(long.then_some(1)) {
            let (what, revision, keys) = (self.what, now.revision, now.keys.len());
            info!(what, endpoint, revision, keys, times, "following etcd");
        }
        let Some(before) = &self.seen else { return false };
        let foreign = before.cluster != now.cluster;
        let older = now.is_older_than(before);
        let (before, now) = (before.revision, now.revision);
        if foreign && let Some(times) = self.told.due("foreign", clock::now()) {
            let what = self.what;
            warn!(what, endpoint, times, "etcd is another cluster than before");
        } else if older && let Some(times) = self.told.due("older", clock::now()) {
            let what = self.what;
            warn!(what, endpoint, before, now, times, "etcd went back to an older state");
        }
        foreign || older
    }

    /// Tells of trouble. Whoever was listed a moment ago and said that something
    /// is wrong, instead of falling silent, is stale only if it cannot be listed
    /// again: else every compaction, and every server that takes its watches
    /// back, would be an outage.
    async fn tell(&mut self, attempt: usize, loss: Loss, listed: bool) -> Result<(), ()> {
        let Loss { heard, silent, trouble: Trouble(reason) } = loss;
        if let Some(times) = self.told.due(&reason, clock::now()) {
            let (what, endpoint) = (self.what, self.connect.endpoint(attempt));
            warn!(what, endpoint, reason, times, "etcd is not heard");
        }
        let new = || Outage { since: heard, reasons: Vec::new() };
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
