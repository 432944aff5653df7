//! Watch responses → changes by revision. Pure.
//!
//! In: the responses of one watch stream in order. Out: all changes of each
//! revision together, once, whichever watchers they came through. Never hands
//! out a part of a revision that etcd cut into fragments.

use std::collections::BTreeMap;

use etcd_client::proto::{PbEvent, PbWatchResponse};
// With a hash that is quicker than std's: each key of a large registry is looked up.
use hashbrown::HashMap;

use super::connect::Trouble;
use super::prefixes::{Decode, Stored, entry};
use crate::registry::{Cause, Change, Key};

/// All that happened at one revision.
#[derive(Debug, PartialEq)]
pub(super) struct Batch<T> {
    pub(super) revision: i64,
    pub(super) changes: Vec<Change<T>>,
    /// Keys that went, each with the lease it hung on: whether that lives
    /// on tells a deregistration from an expiry.
    pub(super) leases: Vec<(Key, i64)>,
    /// What those whose lease lives on went by.
    pub(super) otherwise: Cause,
}

/// What is known of each key that is there.
pub(super) type Keys = HashMap<Key, Written>;

/// How a key was written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Its lease; 0 for none. A deletion does not say it, and to have etcd look
    /// it up for each would make it slow when many go at once.
    pub(super) lease: i64,
    /// At which revision that was.
    pub(super) revision: i64,
}

/// What one watch stream has said so far.
#[derive(Debug)]
pub(super) struct Batches {
    /// As far as revisions are handed out.
    keys: Keys,
    /// One of each range.
    watchers: Vec<Watcher>,
    /// What is not handed out yet, by revision.
    held: BTreeMap<i64, Vec<PbEvent>>,
    /// Of revisions up to here nothing more is expected: etcd tells all watchers
    /// of one revision before it tells any of the next.
    passed: i64,
    /// Whether that is so yet: a watcher that begins in the past catches up by
    /// itself.
    settled: bool,
}

#[derive(Debug)]
struct Watcher {
    /// The last revision that came whole. Only events count: up to 3.5.7 and
    /// 3.4.24 etcd's progress answers can run ahead of events still to come.
    last: i64,
    /// The beginning of a revision whose end has not arrived.
    parts: Vec<PbEvent>,
    /// How long they are.
    bytes: usize,
    /// Signs of life since they came.
    signs: u32,
}

/// etcd's `mvccpb.Event.EventType.DELETE`.
const DELETE: i32 = 1;
/// What is kept of one revision before its end has arrived. etcd takes requests
/// of 1.5 MiB, and 300,000 keys that go in one stroke are not longer than this.
const PARTS_MAX: usize = 64 << 20;
/// What an event costs besides its key and value.
const EVENT: usize = 128;
/// etcd sends the parts of an answer in one go. So many signs of life between
/// two of them mean that the rest never comes.
const SIGNS_MAX: u32 = 2;

impl Batches {
    /// For so many watchers that start right after this revision, at which there
    /// were these keys.
    pub(super) fn after(listed: i64, watchers: usize, keys: Keys) -> Self {
        let watcher = || Watcher { last: listed, parts: Vec::new(), bytes: 0, signs: 0 };
        let watchers = std::iter::repeat_with(watcher).take(watchers).collect();
        Self { keys, watchers, held: BTreeMap::new(), passed: listed, settled: false }
    }

    /// Takes in what one watcher said.
    ///
    /// # Errors
    /// When its revisions do not rise, or one of them never ends.
    pub(super) fn take(&mut self, watcher: usize, said: PbWatchResponse) -> Result<(), Trouble> {
        let Self { watchers, held, passed, .. } = self;
        let watcher = &mut watchers[watcher];
        let mut first = None;
        for event in said.events {
            let Some(kv) = &event.kv else { continue };
            let revision = kv.mod_revision;
            // It was told already.
            if revision <= watcher.last {
                continue;
            }
            let open = watcher.parts.first().map_or(revision, revision_of);
            if revision < open {
                return Err(Trouble(format!("revisions go back from {open} to {revision}")));
            }
            if revision > open {
                watcher.close(held);
            }
            first.get_or_insert(revision);
            watcher.bytes += kv.key.len() + kv.value.len() + EVENT;
            watcher.parts.push(event);
            watcher.signs = 0;
        }
        if !said.fragment {
            watcher.close(held);
        } else if watcher.bytes > PARTS_MAX {
            return Err(Trouble(format!("one revision is longer than {PARTS_MAX} bytes")));
        }
        if let Some(first) = first {
            *passed = (*passed).max(first - 1);
        }
        Ok(())
    }

    /// The keys that there are after all that was handed out.
    pub(super) fn into_keys(self) -> Keys {
        self.keys
    }

    /// All watchers have caught up.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Takes note of a sign of life.
    ///
    /// # Errors
    /// When a watcher has left a revision unfinished for too long.
    pub(super) fn sign(&mut self) -> Result<(), Trouble> {
        for watcher in self.watchers.iter_mut().filter(|watcher| !watcher.parts.is_empty()) {
            watcher.signs += 1;
            if watcher.signs > SIGNS_MAX {
                return Err(Trouble("the rest of a fragmented answer does not come".into()));
            }
        }
        Ok(())
    }

    /// The next revision of which all is there.
    pub(super) fn next<T>(&mut self, decode: &Decode<T>) -> Option<Batch<T>> {
        let (&revision, _) = self.held.first_key_value()?;
        let heard = |watcher: &Watcher| watcher.last >= revision;
        let passed = self.settled && revision <= self.passed;
        if !passed && !self.watchers.iter().all(heard) {
            return None;
        }
        self.next_held(decode)
    }

    /// The next revision, for those who have waited for more of it in vain.
    pub(super) fn next_held<T>(&mut self, decode: &Decode<T>) -> Option<Batch<T>> {
        let (&revision, _) = self.held.first_key_value()?;
        let unfinished = |watcher: &Watcher| {
            watcher.parts.first().is_some_and(|event| revision_of(event) <= revision)
        };
        if self.watchers.iter().any(unfinished) {
            return None;
        }
        let events = self.held.remove(&revision)?;
        Some(batch(revision, &events, decode, &mut self.keys))
    }

    /// Whether anything waits for more of its revision, and if so, whether keys
    /// are gone by it.
    pub(super) fn waiting(&self) -> Option<bool> {
        let (_, events) = self.held.first_key_value()?;
        Some(events.iter().any(|event| event.r#type == DELETE))
    }
}

impl Watcher {
    /// The revision that was open is whole.
    fn close(&mut self, held: &mut BTreeMap<i64, Vec<PbEvent>>) {
        let Some(revision) = self.parts.first().map(revision_of) else { return };
        let parts = std::mem::take(&mut self.parts);
        held.entry(revision).or_default().extend(parts);
        (self.last, self.bytes) = (revision, 0);
    }
}

fn revision_of(event: &PbEvent) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn batch<T>(revision: i64, events: &[PbEvent], decode: &Decode<T>, keys: &mut Keys) -> Batch<T> {
    let mut changes = Vec::new();
    let mut gone = Vec::new();
    for event in events {
        let Some(kv) = &event.kv else { continue };
        let key = Key::new(&kv.key);
        if event.r#type == DELETE {
            gone.push(keys.remove(&key).map_or(0, |written| written.lease));
            changes.push(Change::Delete(key, Cause::InDoubt));
            continue;
        }
        let (key_bytes, value, lease, revision) = (&kv.key, &kv.value, kv.lease, kv.mod_revision);
        let entry = entry(Stored { key: key_bytes, value, lease, revision }, decode);
        keys.insert(key, Written { lease, revision });
        changes.push(Change::Put(entry));
    }
    // A process takes back its own key, or all that hang on its lease.
    let own = gone.len() == 1 || gone.iter().all(|lease| *lease != 0 && *lease == gone[0]);
    let otherwise = if own { Cause::Deregistered } else { Cause::Swept };
    let mut batch = Batch { revision, changes, leases: Vec::new(), otherwise };
    let mut gone = gone.into_iter();
    for change in &mut batch.changes {
        let Change::Delete(key, cause) = change else { continue };
        match gone.next() {
            None | Some(0) => *cause = otherwise,
            Some(lease) => batch.leases.push((key.clone(), lease)),
        }
    }
    batch
}

#[cfg(test)]
mod tests;
