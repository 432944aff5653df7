//! Every key at every revision that is not compacted.
//!
//! In: puts and deletions, closed by [`History::commit`] into one revision.
//! Out: keys as they were at a revision, and each revision's changes for
//! watchers. Must never grow without bound: it forgets its oldest revisions by
//! itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use etcd_client::proto as pb;

use super::Span;

/// Revisions kept. A reader of pages pinned to one revision, or a watcher that
/// was away, has as many changes' time to come back: 25 s at 2,000 a second.
pub(crate) const KEPT_REVISIONS: usize = 50_000;
/// Bytes of changes kept, so that large values cannot turn those revisions
/// into gigabytes.
pub(crate) const KEPT_BYTES: usize = 64 * 1024 * 1024;
/// What a change costs beside its key and value: map and log entries.
const OVERHEAD: usize = 200;

/// What the store holds, now and lately.
#[derive(Clone)]
pub(super) struct History {
    keys: BTreeMap<Arc<[u8]>, Vec<Version>>,
    /// The last one is revision `revision`, the others lead up to it.
    log: VecDeque<Logged>,
    /// What happened since the last commit.
    open: Vec<Change>,
    revision: i64,
    compacted: i64,
    live_bytes: usize,
    log_bytes: usize,
}

/// One key's change at one revision.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: Arc<[u8]>,
    version: Version,
}

/// What a key was from one revision on; without `live`, deleted.
#[derive(Debug, Clone)]
struct Version {
    modified: i64,
    live: Option<Live>,
}

#[derive(Debug, Clone)]
struct Live {
    value: Arc<[u8]>,
    created: i64,
    version: i64,
    lease: i64,
}

#[derive(Clone)]
struct Logged {
    changes: Vec<Change>,
    bytes: usize,
}

/// A key as it was at some revision.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) key: &'a Arc<[u8]>,
    pub(super) modified: i64,
    live: &'a Live,
}

impl History {
    /// Empty, at revision 1 as a new etcd is.
    pub(super) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            log: VecDeque::from([Logged { changes: Vec::new(), bytes: 0 }]),
            open: Vec::new(),
            revision: 1,
            compacted: 0,
            live_bytes: 0,
            log_bytes: 0,
        }
    }

    /// The newest revision; within a transaction that wrote, the one it makes.
    pub(super) fn revision(&self) -> i64 {
        self.revision + i64::from(!self.open.is_empty())
    }

    /// What is older than this revision is forgotten; 0 when nothing is.
    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Bytes of all present keys and values, overhead included.
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Bytes of the changes kept beside them.
    pub(super) fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// The key as it was at `revision`.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<Record<'_>> {
        let (key, versions) = self.keys.get_key_value(key)?;
        record(key, versions, revision)
    }

    /// All keys inside `span` as they were at `revision`, in order.
    pub(super) fn scan(&self, span: &Span, revision: i64) -> impl Iterator<Item = Record<'_>> {
        span.bounds()
            .into_iter()
            .flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
            .filter_map(move |(key, versions)| record(key, versions, revision))
    }

    /// What happened at a revision; none before compaction and in the future.
    pub(super) fn changes(&self, revision: i64) -> Option<&[Change]> {
        let oldest = self.revision - self.log.len() as i64 + 1;
        let index = usize::try_from(revision - oldest).ok()?;
        self.log.get(index).map(|logged| logged.changes.as_slice())
    }

    /// Writes the key and tells the lease it had hung on, 0 for none.
    pub(super) fn put(&mut self, key: &Arc<[u8]>, value: Arc<[u8]>, lease: i64) -> i64 {
        let modified = self.revision + 1;
        let before = self.at(key, modified).map(|record| record.live.clone());
        let (created, version, old_lease) = before
            .as_ref()
            .map_or((modified, 0, 0), |live| (live.created, live.version, live.lease));
        let live = Live { value, created, version: version + 1, lease };
        self.live_bytes -= before.map_or(0, |live| cost(key, Some(&live)));
        self.live_bytes += cost(key, Some(&live));
        self.change(key, Some(live));
        old_lease
    }

    /// Deletes the key, if present, and tells the lease it had hung on.
    pub(super) fn delete(&mut self, key: &Arc<[u8]>) -> Option<i64> {
        let live = self.at(key, self.revision + 1)?.live.clone();
        self.live_bytes -= cost(key, Some(&live));
        self.change(key, None);
        Some(live.lease)
    }

    /// Makes one revision of what happened since the last one, if anything did.
    pub(super) fn commit(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.open);
        let bytes = changes.iter().map(|c| cost(&c.key, c.version.live.as_ref())).sum();
        self.log_bytes += bytes;
        self.log.push_back(Logged { changes, bytes });
        self.revision += 1;
        while self.log.len() > KEPT_REVISIONS || self.log_bytes > KEPT_BYTES && self.log.len() > 1 {
            self.compact(self.revision - self.log.len() as i64 + 2);
        }
    }

    /// Forgets what is older than `revision`. Only keys that changed up to then
    /// can have something to forget, so only they are looked at.
    pub(super) fn compact(&mut self, revision: i64) {
        self.compacted = revision;
        while self.revision - self.log.len() as i64 + 1 < revision {
            let Some(logged) = self.log.pop_front() else { return };
            self.log_bytes -= logged.bytes;
            self.forget(&logged.changes, revision);
        }
        if let Some(first) = self.log.front_mut() {
            let changes = std::mem::take(&mut first.changes);
            self.forget(&changes, revision);
            if let Some(first) = self.log.front_mut() {
                first.changes = changes;
            }
        }
    }

    fn forget(&mut self, changes: &[Change], revision: i64) {
        for change in changes {
            let Some(versions) = self.keys.get_mut(&change.key) else { continue };
            let newer = versions.partition_point(|version| version.modified <= revision);
            // The newest of the old is what the key still was at `revision`;
            // a deletion is no different from there being nothing.
            let still = newer.checked_sub(1).is_some_and(|last| versions[last].live.is_some());
            versions.drain(..newer - usize::from(still));
            if versions.is_empty() {
                self.keys.remove(&change.key);
            }
        }
    }

    fn change(&mut self, key: &Arc<[u8]>, live: Option<Live>) {
        let version = Version { modified: self.revision + 1, live };
        self.keys.entry(key.clone()).or_default().push(version.clone());
        self.open.push(Change { key: key.clone(), version });
    }
}

impl Change {
    pub(crate) fn is_put(&self) -> bool {
        self.version.live.is_some()
    }

    /// Whether this made a key that was not there.
    pub(crate) fn is_creation(&self) -> bool {
        self.version.live.as_ref().is_some_and(|live| live.version == 1)
    }

    /// Its length in an event, with what is around it.
    pub(crate) fn length(&self) -> usize {
        self.key.len() + self.version.live.as_ref().map_or(0, |live| live.value.len()) + 64
    }

    /// The revision that it is part of.
    pub(crate) fn revision(&self) -> i64 {
        self.version.modified
    }

    /// As an event shows it: a deletion has its key and revision only.
    pub(crate) fn to_pb(&self) -> pb::PbKeyValue {
        let modified = self.version.modified;
        match &self.version.live {
            Some(live) => Record { key: &self.key, modified, live }.to_pb(),
            None => pb::PbKeyValue {
                key: self.key.to_vec(),
                mod_revision: modified,
                ..Default::default()
            },
        }
    }
}

impl Record<'_> {
    pub(super) fn value(&self) -> &[u8] {
        &self.live.value
    }

    pub(super) fn shared_value(&self) -> Arc<[u8]> {
        self.live.value.clone()
    }

    pub(super) fn created(&self) -> i64 {
        self.live.created
    }

    pub(super) fn version(&self) -> i64 {
        self.live.version
    }

    pub(super) fn lease(&self) -> i64 {
        self.live.lease
    }

    pub(super) fn to_pb(self) -> pb::PbKeyValue {
        pb::PbKeyValue { value: self.live.value.to_vec(), ..self.to_pb_without_value() }
    }

    pub(super) fn to_pb_without_value(self) -> pb::PbKeyValue {
        pb::PbKeyValue {
            key: self.key.to_vec(),
            create_revision: self.live.created,
            mod_revision: self.modified,
            version: self.live.version,
            value: Vec::new(),
            lease: self.live.lease,
        }
    }
}

fn record<'a>(key: &'a Arc<[u8]>, versions: &'a [Version], revision: i64) -> Option<Record<'a>> {
    let newer = versions.partition_point(|version| version.modified <= revision);
    let version = &versions[newer.checked_sub(1)?];
    Some(Record { key, modified: version.modified, live: version.live.as_ref()? })
}

fn cost(key: &[u8], live: Option<&Live>) -> usize {
    OVERHEAD + key.len() + live.map_or(0, |live| live.value.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compacted to now, it has one version of each present key and no word
        /// of others, however often it was compacted before; bytes add up.
        #[test]
        fn nothing_is_left_of_the_past(
            writes in prop::collection::vec((0..4u8, any::<bool>(), 0..6i64), 1..50),
        ) {
            let mut history = History::new();
            for (key, puts, back) in writes {
                let key: Arc<[u8]> = Arc::from([key].as_slice());
                if puts {
                    history.put(&key, Arc::from([0; 9].as_slice()), 0);
                } else {
                    history.delete(&key);
                }
                history.commit();
                if history.revision - back > history.compacted {
                    history.compact(history.revision - back);
                }
            }
            if history.revision > history.compacted {
                history.compact(history.revision);
            }
            let every_key = Span::new(&[0], &[0]);
            let present = history.scan(&every_key, history.revision).count();
            let versions: Vec<_> = history.keys.values().flatten().collect();
            prop_assert_eq!(versions.len(), present);
            prop_assert_eq!(history.live_bytes, present * (OVERHEAD + 1 + 9));
            prop_assert_eq!(history.log.len(), 1);
            prop_assert_eq!(history.log_bytes, history.log[0].bytes);
        }
    }
}
