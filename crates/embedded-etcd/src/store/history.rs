//! All keys at all revisions that are not compacted.
//!
//! In: puts and deletions; [`History::commit`] makes one revision of them. Out: keys at a
//! revision, and the changes of each revision for watchers. Its memory is bounded: it
//! compacts its oldest revisions by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use etcd_client::proto as pb;

use super::Span;

/// The most revisions in the history. So a client that reads pages at one revision, or a
/// watcher that was away, has 25 s at 2,000 changes per second.
pub(crate) const KEPT_REVISIONS: usize = 50_000;
/// The most bytes of changes in the history. Large values would otherwise make it gigabytes.
pub(crate) const KEPT_BYTES: usize = 64 * 1024 * 1024;
/// The cost of a change beside its key and value, in bytes: map and log entries.
const OVERHEAD: usize = 200;

/// The current keys and the recent history.
#[derive(Clone)]
pub(super) struct History {
    keys: BTreeMap<Arc<[u8]>, Vec<Version>>,
    /// The changes of consecutive revisions. The last entry is that of `revision`.
    log: VecDeque<Logged>,
    /// The changes since the last commit.
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

/// The state of a key from one revision on; deleted if `live` is `None`.
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

/// A key at some revision.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) key: &'a Arc<[u8]>,
    pub(super) modified: i64,
    live: &'a Live,
}

impl History {
    /// Returns an empty history at revision 1, like a new etcd.
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

    /// Returns the newest revision. Within a transaction that has written, this is the
    /// revision that it makes.
    pub(super) fn revision(&self) -> i64 {
        self.revision + i64::from(!self.open.is_empty())
    }

    /// Returns the revision of the last compaction, the oldest that can be read; 0 for none.
    pub(super) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Returns the bytes of all current keys and values, with overhead.
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Returns the bytes of the changes in the log, with overhead.
    pub(super) fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// Returns the key at `revision`.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<Record<'_>> {
        let (key, versions) = self.keys.get_key_value(key)?;
        record(key, versions, revision)
    }

    /// Returns all keys in `span` at `revision`, in order.
    pub(super) fn scan(&self, span: &Span, revision: i64) -> impl Iterator<Item = Record<'_>> {
        span.bounds()
            .into_iter()
            .flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
            .filter_map(move |(key, versions)| record(key, versions, revision))
    }

    /// Returns the changes of a revision; `None` for a compacted or future revision.
    pub(super) fn changes(&self, revision: i64) -> Option<&[Change]> {
        let oldest = self.revision - self.log.len() as i64 + 1;
        let index = usize::try_from(revision - oldest).ok()?;
        self.log.get(index).map(|logged| logged.changes.as_slice())
    }

    /// Writes the key. Returns the lease that it had before, 0 for none.
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

    /// Deletes the key. Returns the lease that it had, 0 for none; `None` if it did not exist.
    pub(super) fn delete(&mut self, key: &Arc<[u8]>) -> Option<i64> {
        let live = self.at(key, self.revision + 1)?.live.clone();
        self.live_bytes -= cost(key, Some(&live));
        self.change(key, None);
        Some(live.lease)
    }

    /// Makes one revision of the changes since the last commit, if there are any.
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

    /// Removes the history before `revision`. Only keys that changed up to then can have old
    /// versions, so only those keys are visited.
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
            // The newest of the old versions is the key's state at `revision` and stays,
            // unless it is a deletion.
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

    /// Returns whether this change created the key.
    pub(crate) fn is_creation(&self) -> bool {
        self.version.live.as_ref().is_some_and(|live| live.version == 1)
    }

    /// Returns the length of this change in an event, with overhead, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.key.len() + self.version.live.as_ref().map_or(0, |live| live.value.len()) + 64
    }

    /// Returns the revision of this change.
    pub(crate) fn revision(&self) -> i64 {
        self.version.modified
    }

    /// Returns the key as in an event: a deletion has only key and revision.
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
        /// Compacted to the newest revision, the history has one version of each current key
        /// and no other key, however often it was compacted before. The bytes add up.
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
