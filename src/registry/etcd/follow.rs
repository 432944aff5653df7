//! Watches some ranges from a revision on, until something goes wrong.
//!
//! In: a client, ranges and the revision that was listed. Out: `Apply` events,
//! and at the end the reason for it. One stream carries a watcher for each
//! range. It asks etcd every second whether it is still there, so silence is
//! noticed; it never resumes: whoever called lists again, for that alone is right
//! after a compaction, a restore and a bug in the watch.

use std::time::{Duration, Instant};

use etcd_client::{Client, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::batch::{Batch, Batches, Leases};
use super::connect::{CALL_TIMEOUT, MESSAGE_MAX, Trouble, bounded};
use super::doubt::Doubts;
use super::prefixes::{Prefixes, Range};
use crate::clock;
use crate::registry::Event;

/// How often etcd is asked for a sign of life.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long it may leave a question unanswered. With [`ASK_EVERY`] a frozen
/// etcd is known as such within four seconds.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Why following ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody listens to the events any more.
    Unheard,
    /// The store was heard until then, and why it no longer is.
    Lost { heard: Instant, trouble: Trouble },
}

/// Where events go, and how far they have come.
pub(super) struct Follow<'a> {
    pub(super) ranges: &'a [Range],
    pub(super) prefixes: &'a Prefixes,
    pub(super) events: &'a mpsc::Sender<Event>,
}

impl Follow<'_> {
    /// Follows from the revision `applied` on, which it moves on.
    pub(super) async fn run(&self, client: &Client, applied: &mut i64, leases: Leases) -> Ended {
        let listed = *applied;
        let mut heard = clock::now();
        let mut stream = match self.open(client, listed).await {
            Ok(stream) => stream,
            Err(trouble) => return Ended::Lost { heard, trouble },
        };
        let mut batches = Batches::after(listed, leases);
        let mut doubts = Doubts::new(client.lease_client());
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Counted from a question, not from the last answer: while events wait
        // for a slow listener nothing is asked, so nothing can be answered.
        let mut asked: Option<Instant> = None;
        loop {
            let silent_at = asked.unwrap_or_else(clock::now) + SILENCE_MAX;
            let lost = |trouble| Ended::Lost { heard, trouble };
            let response = tokio::select! {
                biased;
                message = stream.message() => match message {
                    Ok(Some(response)) => response.0,
                    Ok(None) => return lost(Trouble("etcd ended the watch".into())),
                    Err(error) => return lost(error.into()),
                },
                changes = doubts.certain() => {
                    let certain = Event::Apply { revision: *applied, changes };
                    if self.events.send(certain).await.is_err() {
                        return Ended::Unheard;
                    }
                    continue;
                }
                _ = ask.tick() => {
                    if let Err(trouble) = bounded(CALL_TIMEOUT, stream.request_progress()).await {
                        return lost(trouble);
                    }
                    asked.get_or_insert_with(clock::now);
                    continue;
                }
                () = sleep_until(silent_at.into()), if asked.is_some() => {
                    return lost(Trouble(format!("etcd said nothing for {SILENCE_MAX:?}")));
                }
            };
            if response.canceled {
                return lost(canceled(&response.cancel_reason, response.compact_revision));
            }
            heard = clock::now();
            asked = None;
            let idle = response.events.is_empty() && !response.fragment;
            for batch in batches.take(response, self.prefixes) {
                doubts.note(&batch);
                let Batch { revision, changes, .. } = batch;
                // One watcher can be behind another; what is shown never goes back.
                *applied = revision.max(*applied);
                let event = Event::Apply { revision: *applied, changes };
                if self.events.send(event).await.is_err() {
                    return Ended::Unheard;
                }
            }
            // Its revision is not the answer's own: that may be ahead of events
            // still on their way (see `Batches`).
            let fresh = Event::Apply { revision: *applied, changes: Vec::new() };
            if idle && self.events.send(fresh).await.is_err() {
                return Ended::Unheard;
            }
        }
    }

    async fn open(&self, client: &Client, listed: i64) -> Result<WatchStream, Trouble> {
        let mut client = client.watch_client().max_decoding_message_size(MESSAGE_MAX);
        let mut stream: Option<WatchStream> = None;
        for range in self.ranges {
            let options = WatchOptions::new()
                .with_range(range.end.clone())
                .with_start_revision(listed + 1)
                .with_progress_notify()
                .with_fragment();
            let start = range.start.clone();
            match &mut stream {
                None => {
                    let call = client.watch(start, Some(options));
                    stream = Some(bounded(CALL_TIMEOUT, call).await?);
                }
                Some(stream) => bounded(CALL_TIMEOUT, stream.watch(start, Some(options))).await?,
            }
        }
        stream.ok_or_else(|| Trouble("there is no prefix to watch".into()))
    }
}

/// A watcher that etcd took back. One at a compacted revision is created,
/// canceled, and then silent for ever.
fn canceled(reason: &str, compacted: i64) -> Trouble {
    match (reason, compacted) {
        ("", 0) => Trouble("etcd canceled the watch".into()),
        ("", revision) => Trouble(format!("etcd canceled the watch: compacted at {revision}")),
        (reason, _) => Trouble(format!("etcd canceled the watch: {reason}")),
    }
}
