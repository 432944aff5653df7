//! Follows the marks in etcd while the balancer runs.
//!
//! In: the keys below the zone's prefix, and the wall clock. Out: the newest [`Marks`]
//! in force, each release once, and a [`Report`] of every mark.
//!
//! If a new value cannot be decoded, the previous mark of its key stays in force. An
//! outage of etcd ends no mark before its time. A drain that is missing after an outage
//! stays in force, and so does one whose key has an older value: a command that ends a
//! mark leaves a note in etcd for [`ENDED_FOR`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::{info, warn};

use super::report::{MarkStatus, Report, State};
use super::writer::ENDED_FOR;
use super::{Mark, MarkKey, Marks, Timestamp, Value};
use crate::clock;
use crate::model::Zone;
use crate::registry::etcd::{Decode, Stored, is_denial};
use crate::registry::{Change, Entry, Event, Key};
use crate::telemetry::audit::TARGET;

/// The decoded value of a key in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedMark {
    mark: Result<Arc<Mark>, String>,
    revision: i64,
}

/// A change for the balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These marks are in force from now on.
    InForce(Arc<Marks>),
    /// An operator released the backends that a service held at that time.
    Release {
        /// The service's canonical name.
        service: String,
        /// How long ago; zero for a release that was just made.
        age: Duration,
    },
    /// etcd has been read for the first time, or refuses to be read: nothing needs to
    /// wait for it any longer.
    FirstRead,
}

/// The state of all keys.
struct KeyStates {
    wall: fn() -> Timestamp,
    keys: BTreeMap<Key, KeyState>,
    beyond: usize,
    /// Whether etcd has been read since the start.
    is_read: bool,
    /// When etcd last answered. Before the first answer: when the saved marks were in
    /// force.
    last_answer: Instant,
    outage: Option<String>,
}

/// The state of one key.
#[derive(Default)]
struct KeyState {
    mark: Option<Arc<Mark>>,
    refused: Option<String>,
    revision: i64,
    /// Whether etcd has lost it.
    lost_by_etcd: bool,
}

/// The most keys that are accepted. Operators make marks, not programs.
pub const KEYS_MAX: usize = 10_000;
/// How many events are handled together.
const EVENTS_AT_ONCE: usize = 64;
/// How many characters of a refused key are logged.
const KEY_SHOWN_MAX: usize = 200;
/// While a mark has an end, the wall clock is read at least this often, because it may
/// be set.
const CLOCK_READ_EVERY: Duration = Duration::from_secs(30);

/// Returns a decoder of the keys below a zone's prefix.
#[must_use]
pub fn decode(zone: &Zone) -> Decode<DecodedMark> {
    let prefix = super::prefix(zone);
    Arc::new(move |stored: Stored<'_>| {
        let mark = parse(&prefix, stored.key, stored.value).map(Arc::new);
        DecodedMark { mark, revision: stored.revision }
    })
}

/// Sends every change, until a receiver is dropped. The `saved` marks, which were in
/// force for the given time before the start, stay in force until etcd has been read.
pub async fn run(
    wall: fn() -> Timestamp,
    (saved, age): (Vec<(Key, Arc<Mark>)>, Duration),
    mut events: mpsc::Receiver<Event<DecodedMark>>,
    news_tx: mpsc::Sender<News>,
    report_tx: watch::Sender<Report>,
) {
    let saved = saved
        .into_iter()
        .map(|(key, mark)| (key, KeyState { mark: Some(mark), ..KeyState::default() }));
    let last_answer = clock::now().checked_sub(age).unwrap_or_else(clock::now);
    let mut known = KeyStates {
        wall,
        keys: saved.collect(),
        beyond: 0,
        is_read: false,
        last_answer,
        outage: None,
    };
    let mut current = Arc::new(Marks::default());
    let (mut waiting, mut first_read_sent) = (Vec::new(), false);
    loop {
        let in_force = known.in_force();
        if in_force != *current {
            current = Arc::new(in_force);
            if news_tx.send(News::InForce(current.clone())).await.is_err() {
                return;
            }
        }
        let first = known.is_settled() && !std::mem::replace(&mut first_read_sent, true);
        if first && news_tx.send(News::FirstRead).await.is_err() {
            return;
        }
        report_tx.send_replace(known.report());
        // Most events are signs of life and need no further work.
        let next = known.next_end().map(|next| clock::now() + next);
        let mut changed = false;
        while !changed {
            tokio::select! {
                received = events.recv_many(&mut waiting, EVENTS_AT_ONCE) => {
                    if received == 0 {
                        return;
                    }
                    for event in waiting.drain(..) {
                        changed |= !is_sign_of_life(&event) || known.outage.is_some();
                        for news in known.apply(event) {
                            if news_tx.send(news).await.is_err() {
                                return;
                            }
                        }
                    }
                }
                () = sleep_until(next.unwrap_or_else(clock::now).into()), if next.is_some() => {
                    changed = true;
                }
                () = news_tx.closed() => return,
            }
        }
    }
}

fn is_sign_of_life(event: &Event<DecodedMark>) -> bool {
    matches!(event, Event::Apply { changes, .. } if changes.is_empty())
}

fn parse(prefix: &str, key: &[u8], value: &[u8]) -> Result<Mark, String> {
    let text = std::str::from_utf8(key).map_err(|_| "the key is no UTF-8 text".to_owned())?;
    let below = text.strip_prefix(prefix).unwrap_or_default();
    let key = MarkKey::parse(below)?;
    // Each mark has exactly one key, by which it is found again.
    if key.to_string() != below {
        return Err(format!("the key means {key}: put {prefix}{key} instead"));
    }
    Ok(Mark { key, value: Value::parse(value)? })
}

impl KeyStates {
    /// Returns whether nothing needs to wait for etcd: it has been read, or refuses to
    /// be read.
    fn is_settled(&self) -> bool {
        self.is_read || self.outage.as_deref().is_some_and(is_denial)
    }

    fn note_answer(&mut self) {
        self.last_answer = clock::now();
        self.outage = None;
    }

    fn apply(&mut self, event: Event<DecodedMark>) -> Vec<News> {
        let mut news = Vec::new();
        match event {
            Event::Reset { all, went_back, .. } => {
                let keeps = went_back || clock::now().duration_since(self.last_answer) < ENDED_FOR;
                self.note_answer();
                self.beyond = 0;
                self.is_read = true;
                let mut missing = std::mem::take(&mut self.keys);
                for entry in all {
                    let former = missing.remove(&entry.key);
                    news.extend(self.put(entry, former, true));
                }
                for (key, former) in missing {
                    // A release has acted already, and a mark that has ended is not
                    // needed.
                    let stands =
                        |mark: &Arc<Mark>| mark.key.lasts() && !mark.is_over((self.wall)());
                    let stands = former.mark.as_ref().is_some_and(stands);
                    if (keeps || former.lost_by_etcd) && stands {
                        self.keep_lost_mark(key, former);
                    } else {
                        gone(&key, &former);
                    }
                }
            }
            Event::Apply { changes, .. } => {
                self.note_answer();
                for change in changes {
                    match change {
                        Change::Put(entry) => {
                            let former = self.keys.remove(&entry.key);
                            news.extend(self.put(entry, former, false));
                        }
                        Change::Delete(key, _) => {
                            self.keys.remove(&key).inspect(|former| gone(&key, former));
                        }
                    }
                }
            }
            Event::Stale { reason, .. } => self.outage = Some(reason),
        }
        news
    }

    /// Stores the new value of a key. Returns the release, if it is a new one.
    fn put(
        &mut self,
        entry: Entry<DecodedMark>,
        former: Option<KeyState>,
        listed: bool,
    ) -> Option<News> {
        let Entry { key, decoded: DecodedMark { mark, revision }, .. } = entry;
        let is_new = former.as_ref().is_none_or(|former| former.revision != revision);
        let former = former.unwrap_or_default();
        let full = self.keys.len() >= KEYS_MAX;
        let mark = mark.and_then(|mark| match full {
            false => Ok(mark),
            true => Err(format!("there are more than {KEYS_MAX} marks: remove some")),
        });
        match mark {
            Ok(mark) if listed && self.is_newer(&former, &mark, revision) => {
                self.keep_lost_mark(key, former);
                None
            }
            Ok(mark) => {
                if is_new {
                    let Value { by, why, until, .. } = &mark.value;
                    let until = until.map(|until| until.to_string());
                    let before = former.mark.as_ref().map(ToString::to_string);
                    info!(target: TARGET, key = %mark.key, by, why, until, before, "mark is set");
                }
                let release = match &mark.key {
                    MarkKey::Release(service) if is_new => {
                        // A listed release may be old, and backends lost since then are
                        // not meant. Without a time it may be older than all held
                        // backends, so it is ignored.
                        let age = match (listed, mark.value.set) {
                            (false, _) => Some(Duration::ZERO),
                            (true, set) => set.map(|set| (self.wall)().since(set)),
                        };
                        age.map(|age| News::Release { service: service.clone(), age })
                    }
                    _ => None,
                };
                let latest =
                    KeyState { mark: Some(mark), refused: None, revision, lost_by_etcd: false };
                self.keys.insert(key, latest);
                release
            }
            Err(reason) => {
                if former.refused.as_ref() != Some(&reason) {
                    let remedy = "put it again with lookaside, or delete the key";
                    let key = shown(&key);
                    warn!(
                        target: TARGET,
                        key,
                        reason, remedy, "mark refused: the key's previous one stays in force"
                    );
                }
                // Beyond the bound, only keys that were known before are kept.
                self.beyond += usize::from(full && former.mark.is_none());
                if !full || former.mark.is_some() {
                    let latest = KeyState { refused: Some(reason), revision, ..former };
                    self.keys.insert(key, latest);
                }
                None
            }
        }
    }

    /// Returns whether a drain in force is newer than the value that etcd lists: etcd has
    /// gone back to an older state. A saved mark has no revision to compare.
    fn is_newer(&self, former: &KeyState, listed: &Mark, revision: i64) -> bool {
        let Some(mark) = &former.mark else { return false };
        let stands = mark.key.lasts() && !mark.is_over((self.wall)());
        let newer = match (mark.value.set, listed.value.set) {
            (Some(ours), Some(theirs)) if former.revision == 0 => ours > theirs,
            (Some(ours), Some(theirs)) => ours >= theirs && former.revision > revision,
            _ => false,
        };
        stands && newer
    }

    fn keep_lost_mark(&mut self, key: Key, former: KeyState) {
        if !former.lost_by_etcd {
            let kind = former.mark.as_ref().map_or("drain", |mark| mark.key.kind().as_str());
            let remedy = format!("lookaside un{kind} ends it");
            warn!(%key, remedy, "etcd has lost this mark, which was not ended: it stays in force");
        }
        self.keys.insert(key, KeyState { lost_by_etcd: true, ..former });
    }

    fn in_force(&self) -> Marks {
        let now = (self.wall)();
        let marks = self.keys.values().filter_map(|latest| latest.mark.as_ref());
        Marks::new(marks.filter(|mark| !mark.is_over(now)).cloned())
    }

    /// Returns the time until the marks in force must be computed again.
    fn next_end(&self) -> Option<Duration> {
        let now = (self.wall)();
        let marks = self.keys.values().filter_map(|latest| latest.mark.as_ref());
        let ends = marks.filter_map(|mark| mark.value.until).filter(|until| *until > now);
        ends.min().map(|end| end.since(now).min(CLOCK_READ_EVERY))
    }

    fn report(&self) -> Report {
        let now = (self.wall)();
        let shown = |latest: &KeyState| {
            let mark = latest.mark.clone()?;
            let state = match (mark.is_over(now), latest.lost_by_etcd) {
                (true, _) => State::Over,
                (false, true) => State::Kept,
                (false, false) => State::InForce,
            };
            Some(MarkStatus { mark, state })
        };
        let refused =
            |(key, latest): (&Key, &KeyState)| Some((key.clone(), latest.refused.clone()?));
        Report {
            marks: self.keys.values().filter_map(shown).collect(),
            refused: self.keys.iter().filter_map(refused).collect(),
            beyond: self.beyond,
            outage: self.outage.clone(),
        }
    }
}

impl Mark {
    /// Returns whether its end has passed.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.value.until.is_some_and(|until| until <= now)
    }
}

fn shown(key: &Key) -> String {
    key.to_string().chars().take(KEY_SHOWN_MAX).collect()
}

fn gone(key: &Key, former: &KeyState) {
    if let Some(mark) = &former.mark {
        info!(target: TARGET, %key, before = %mark, "mark is removed");
    }
}

#[cfg(test)]
mod tests;
