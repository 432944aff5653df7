//! Groups watch responses into changes by revision. Pure.
//!
//! In: the responses of one watch stream, in order. Out: all changes of each revision
//! together and once, whichever watchers delivered them. It never returns a part of a
//! revision that etcd split into fragments.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use etcd_client::proto::{PbEvent, PbWatchResponse};
// hashbrown's default hash is faster than std's: each key of a large registry is looked
// up.
use hashbrown::HashMap;

use super::connect::EtcdError;
use super::prefixes::{Decode, Stored, entry};
use crate::registry::{Cause, Change, Key};

/// All changes of one revision.
#[derive(Debug, PartialEq)]
pub(super) struct Batch<T> {
    pub(super) revision: i64,
    pub(super) changes: Vec<Change<T>>,
    /// The deleted keys that had a lease, each with its lease. If the lease is still
    /// alive, the key was deregistered or swept; otherwise it may have expired.
    pub(super) leases: Vec<(Key, i64)>,
    /// The cause of deletion for the keys whose lease is still alive.
    pub(super) cause_if_alive: Cause,
}

/// The last write of each existing key.
pub(super) type Keys = HashMap<Key, Written>;

/// The last write of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// The lease of the key; 0 for none. A deletion event does not carry it. Asking
    /// etcd for the previous value (`prev_kv`) would be slow when many keys are deleted
    /// at once.
    pub(super) lease: i64,
    /// The revision of that write.
    pub(super) revision: i64,
}

/// The state of one watch stream.
#[derive(Debug)]
pub(super) struct Batches {
    /// The keys after all revisions that were returned.
    keys: Keys,
    /// One watcher for each range.
    watchers: Vec<Watcher>,
    /// Events that are not returned yet, by revision.
    pending: BTreeMap<i64, Vec<PbEvent>>,
    /// No more events are expected of revisions up to this one: etcd sends one revision
    /// to all watchers before it sends the next.
    passed: i64,
    /// Whether `passed` may be used already: a watcher that starts at an older revision
    /// catches up on its own.
    settled: bool,
}

#[derive(Debug)]
struct Watcher {
    /// The last revision that arrived completely. Only events advance it: up to 3.5.7
    /// and 3.4.24, etcd's progress responses can be ahead of events still to come.
    last: i64,
    /// The events of a revision whose end has not arrived.
    parts: Vec<PbEvent>,
    /// The size of `parts`, in bytes.
    bytes: usize,
    /// Signs of life since the last of `parts` arrived.
    signs: u32,
}

/// etcd's `mvccpb.Event.EventType.DELETE`.
const DELETE: i32 = 1;
/// The most bytes that are kept of one revision whose end has not arrived. etcd accepts
/// requests of 1.5 MiB, and the deletion of 300,000 keys at once fits too.
const PARTS_MAX: usize = 64 << 20;
/// The bytes that one event counts for besides its key and value.
const EVENT: usize = 128;
/// etcd sends the fragments of a response in one go. After more signs of life than this
/// between two of them, the rest never comes.
const SIGNS_MAX: u32 = 2;

impl Batches {
    /// Starts with `watchers` watchers that begin right after the revision `listed`, at
    /// which the store had `keys`.
    pub(super) fn after(listed: i64, watchers: usize, keys: Keys) -> Self {
        let watcher = || Watcher { last: listed, parts: Vec::new(), bytes: 0, signs: 0 };
        let watchers = std::iter::repeat_with(watcher).take(watchers).collect();
        Self { keys, watchers, pending: BTreeMap::new(), passed: listed, settled: false }
    }

    /// Adds the events of one response of one watcher.
    ///
    /// # Errors
    /// If the watcher's revisions do not rise, or one revision is longer than
    /// [`PARTS_MAX`].
    pub(super) fn take(
        &mut self,
        watcher: usize,
        response: PbWatchResponse,
    ) -> Result<(), EtcdError> {
        let Self { watchers, pending, passed, .. } = self;
        let watcher = &mut watchers[watcher];
        let mut first = None;
        watcher.parts.reserve(response.events.len());
        for event in response.events {
            let Some(kv) = &event.kv else { continue };
            let revision = kv.mod_revision;
            // The event was delivered already.
            if revision <= watcher.last {
                continue;
            }
            let open = watcher.parts.first().map_or(revision, revision_of);
            if revision < open {
                return Err(EtcdError(format!("revisions go back from {open} to {revision}")));
            }
            if revision > open {
                watcher.close(pending);
            }
            first.get_or_insert(revision);
            watcher.bytes += kv.key.len() + kv.value.len() + EVENT;
            watcher.parts.push(event);
            watcher.signs = 0;
        }
        if !response.fragment {
            watcher.close(pending);
        } else if watcher.bytes > PARTS_MAX {
            return Err(EtcdError(format!("one revision is longer than {PARTS_MAX} bytes")));
        }
        if let Some(first) = first {
            *passed = (*passed).max(first - 1);
        }
        Ok(())
    }

    /// Returns the keys that exist after all returned revisions.
    pub(super) fn into_keys(self) -> Keys {
        self.keys
    }

    /// Records that all watchers have caught up.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Counts a sign of life.
    ///
    /// # Errors
    /// If a watcher has left a revision unfinished for more than [`SIGNS_MAX`] signs of
    /// life.
    pub(super) fn sign(&mut self) -> Result<(), EtcdError> {
        for watcher in self.watchers.iter_mut().filter(|watcher| !watcher.parts.is_empty()) {
            watcher.signs += 1;
            if watcher.signs > SIGNS_MAX {
                return Err(EtcdError("the rest of a fragmented answer does not come".into()));
            }
        }
        Ok(())
    }

    /// Returns the next revision that is complete.
    pub(super) fn next<T>(&mut self, decode: &Decode<T>) -> Option<Batch<T>> {
        let (&revision, _) = self.pending.first_key_value()?;
        let heard = |watcher: &Watcher| watcher.last >= revision;
        let passed = self.settled && revision <= self.passed;
        if !passed && !self.watchers.iter().all(heard) {
            return None;
        }
        self.next_pending(decode)
    }

    /// Returns the next revision even if other watchers may have more of it: the caller
    /// has waited long enough. Returns `None` if a fragment of it is still missing.
    pub(super) fn next_pending<T>(&mut self, decode: &Decode<T>) -> Option<Batch<T>> {
        let (&revision, _) = self.pending.first_key_value()?;
        let unfinished = |watcher: &Watcher| {
            watcher.parts.first().is_some_and(|event| revision_of(event) <= revision)
        };
        if self.watchers.iter().any(unfinished) {
            return None;
        }
        let events = self.pending.remove(&revision)?;
        Some(batch(revision, &events, decode, &mut self.keys))
    }

    /// Returns `None` if no revision waits to be completed; otherwise whether the next
    /// one deletes keys.
    pub(super) fn waiting(&self) -> Option<bool> {
        let (_, events) = self.pending.first_key_value()?;
        Some(events.iter().any(|event| event.r#type == DELETE))
    }
}

impl Watcher {
    /// Marks the open revision as complete.
    fn close(&mut self, pending: &mut BTreeMap<i64, Vec<PbEvent>>) {
        let Some(revision) = self.parts.first().map(revision_of) else { return };
        let parts = std::mem::take(&mut self.parts);
        match pending.entry(revision) {
            // Not copied: there may be as many as there are keys.
            Entry::Vacant(place) => drop(place.insert(parts)),
            Entry::Occupied(mut before) => before.get_mut().extend(parts),
        }
        (self.last, self.bytes) = (revision, 0);
    }
}

fn revision_of(event: &PbEvent) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn batch<T>(revision: i64, events: &[PbEvent], decode: &Decode<T>, keys: &mut Keys) -> Batch<T> {
    let mut changes = Vec::with_capacity(events.len());
    let mut gone = Vec::new();
    for event in events {
        let Some(kv) = &event.kv else { continue };
        if event.r#type == DELETE {
            let key = Key::new(&kv.key);
            gone.push(keys.remove(&key).map_or(0, |written| written.lease));
            changes.push(Change::Delete(key, Cause::InDoubt));
            continue;
        }
        let (key_bytes, value, lease, revision) = (&kv.key, &kv.value, kv.lease, kv.mod_revision);
        let entry = entry(Stored { key: key_bytes, value, lease, revision }, decode);
        keys.insert(entry.key.clone(), Written { lease, revision });
        changes.push(Change::Put(entry));
    }
    // A registrant deletes its own key, or all keys of its lease.
    let own = gone.len() == 1 || gone.iter().all(|lease| *lease != 0 && *lease == gone[0]);
    let cause_if_alive = if own { Cause::Deregistered } else { Cause::Swept };
    let mut batch = Batch { revision, changes, leases: Vec::new(), cause_if_alive };
    let mut gone = gone.into_iter();
    for change in &mut batch.changes {
        let Change::Delete(key, cause) = change else { continue };
        match gone.next() {
            None | Some(0) => *cause = cause_if_alive,
            Some(lease) => batch.leases.push((key.clone(), lease)),
        }
    }
    batch
}

#[cfg(test)]
mod tests;
