//! Tests the store against a naive one that keeps a copy of all keys at every revision, and
//! tests its limits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::proto as pb;
use proptest::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::store::{KEPT_BYTES, KEPT_REVISIONS, QUOTA, Span, Store, StoreError};
use super::watchers::{NextStep, Watchers};

/// All keys at one revision.
type Keys = BTreeMap<Vec<u8>, pb::PbKeyValue>;

#[derive(Debug, Clone)]
enum Op {
    Put { key: &'static str, value: u8, lease: i64 },
    Delete { key: &'static str, end: &'static str },
    Txn(Vec<(&'static str, bool)>),
    Grant { id: i64, ttl: i64 },
    Revoke(i64),
    Wait(u64),
    Compact(i64),
}

const KEYS: [&str; 5] = ["a", "aa", "ab", "b", "c"];
const ENDS: [&str; 5] = ["", "\0", "ab", "b", "a"];

fn op() -> impl Strategy<Value = Op> {
    let key = prop::sample::select(&KEYS);
    prop_oneof![
        6 => (key.clone(), any::<u8>(), 0..4i64)
            .prop_map(|(key, value, lease)| Op::Put { key, value, lease }),
        2 => (key.clone(), prop::sample::select(&ENDS))
            .prop_map(|(key, end)| Op::Delete { key, end }),
        3 => prop::collection::vec((key, any::<bool>()), 0..4).prop_map(Op::Txn),
        2 => (1..4i64, 2..9i64).prop_map(|(id, ttl)| Op::Grant { id, ttl }),
        1 => (1..4i64).prop_map(Op::Revoke),
        2 => (1..5u64).prop_map(Op::Wait),
        1 => (1..40i64).prop_map(Op::Compact),
    ]
}

/// The naive store: keys by revision, and leases with their ends.
struct Model {
    history: Vec<Keys>,
    leases: BTreeMap<i64, Instant>,
    compacted: i64,
    now: Instant,
}

impl Model {
    fn new(now: Instant) -> Self {
        let history = vec![Keys::new(), Keys::new()];
        Self { history, leases: BTreeMap::new(), compacted: 0, now }
    }

    fn revision(&self) -> i64 {
        self.history.len() as i64 - 1
    }

    /// Makes one revision if `change` returns that it changed something.
    fn write(&mut self, change: impl FnOnce(&mut Keys, i64) -> bool) {
        let mut keys = self.history.last().cloned().unwrap_or_default();
        if change(&mut keys, self.revision() + 1) {
            self.history.push(keys);
        }
    }

    fn put(keys: &mut Keys, revision: i64, key: &str, value: u8, lease: i64) -> bool {
        let kv = keys.entry(key.into()).or_insert_with(|| pb::PbKeyValue {
            key: key.into(),
            create_revision: revision,
            ..Default::default()
        });
        kv.version += 1;
        (kv.mod_revision, kv.value, kv.lease) = (revision, vec![value], lease);
        true
    }

    fn delete(keys: &mut Keys, span: &Span) -> bool {
        let before = keys.len();
        keys.retain(|key, _| !span.contains(key));
        keys.len() < before
    }

    fn end_lease(&mut self, id: i64) {
        if self.leases.remove(&id).is_some() {
            self.write(|keys, _| {
                let before = keys.len();
                keys.retain(|_, kv| kv.lease != id);
                keys.len() < before
            });
        }
    }

    fn expire(&mut self) {
        while let Some((&id, _)) = self
            .leases
            .iter()
            .filter(|(_, end)| **end <= self.now)
            .min_by_key(|(id, end)| (**end, **id))
        {
            self.end_lease(id);
        }
    }
}

/// Applies an operation to both stores.
fn apply(op: Op, store: &mut Store, model: &mut Model) {
    match op {
        Op::Put { key, value, lease } => {
            let put = pb::PbPutRequest { lease, ..put(key, &[value]) };
            if lease == 0 || model.leases.contains_key(&lease) {
                store.put(put).expect("its lease lives");
                model.write(|keys, revision| Model::put(keys, revision, key, value, lease));
            } else {
                assert_eq!(store.put(put), Err(StoreError::LeaseNotFound));
            }
        }
        Op::Delete { key, end } => {
            let span = Span::new(key.as_bytes(), end.as_bytes());
            let delete =
                pb::PbDeleteRequest { key: key.into(), range_end: end.into(), prev_kv: true };
            store.delete(&delete).expect("it has a key");
            model.write(|keys, _| Model::delete(keys, &span));
        }
        Op::Txn(ops) => {
            let success = ops.iter().map(|(key, puts)| {
                let delete = pb::PbDeleteRequest { key: (*key).into(), ..Default::default() };
                let request = Some(match puts {
                    true => pb::PbTxnOpRequest::RequestPut(put(key, b"t")),
                    false => pb::PbTxnOpRequest::RequestDeleteRange(delete),
                });
                pb::PbTxnRequestOp { request }
            });
            let txn = pb::PbTxnRequest { success: success.collect(), ..Default::default() };
            let twice = ops.iter().enumerate().any(|(i, (key, puts))| {
                *puts && ops.iter().enumerate().any(|(j, (other, _))| i != j && key == other)
            });
            if twice {
                assert_eq!(store.txn(txn), Err(StoreError::DuplicateKey));
                return;
            }
            store.txn(txn).expect("no key twice");
            model.write(|keys, revision| {
                ops.iter().fold(false, |changed, (key, puts)| {
                    changed
                        | match puts {
                            true => Model::put(keys, revision, key, b't', 0),
                            false => Model::delete(keys, &Span::new(key.as_bytes(), b"")),
                        }
                })
            });
        }
        Op::Grant { id, ttl } => {
            let granted = store.grant(&pb::PbLeaseGrantRequest { id, ttl }, model.now);
            assert_eq!(granted.is_err(), model.leases.contains_key(&id));
            let end = model.now + Duration::from_secs(ttl.unsigned_abs());
            model.leases.entry(id).or_insert(end);
        }
        Op::Revoke(id) => {
            let revoked = store.revoke(&pb::PbLeaseRevokeRequest { id });
            assert_eq!(revoked.is_ok(), model.leases.contains_key(&id));
            model.end_lease(id);
        }
        Op::Wait(seconds) => {
            model.now += Duration::from_secs(seconds);
            store.expire(model.now);
            model.expire();
            assert_eq!(store.next_deadline(), model.leases.values().min().copied());
        }
        Op::Compact(revision) => {
            let compacted = store.compact(&pb::PbCompactionRequest { revision, physical: false });
            assert_eq!(
                compacted.is_ok(),
                revision > model.compacted && revision <= model.revision()
            );
            if compacted.is_ok() {
                model.compacted = revision;
            }
        }
    }
}

/// Returns the events that a watcher of all keys must get from a revision on.
fn expected_events(model: &Model, from: i64) -> Vec<(i64, String, bool)> {
    let mut expected_events = Vec::new();
    for revision in from..=model.revision() {
        let index = usize::try_from(revision).expect("from 1 on");
        let (before, after) = (&model.history[index - 1], &model.history[index]);
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        expected_events.extend(gone.map(|key| (revision, text(key), false)));
        let written = after.values().filter(|kv| kv.mod_revision == revision);
        expected_events.extend(written.map(|kv| (revision, text(&kv.key), true)));
    }
    expected_events.sort();
    expected_events
}

fn received_events(watchers: &mut Watchers, store: &Store) -> Vec<(i64, String, bool)> {
    let mut seen = Vec::new();
    loop {
        match watchers.next_response(store, usize::MAX) {
            NextStep::Send(response) => {
                assert!(!response.canceled, "{response:?}");
                for event in response.events {
                    let kv = event.kv.expect("every event has a key");
                    let key = String::from_utf8_lossy(&kv.key).into_owned();
                    seen.push((kv.mod_revision, key, event.r#type == 0));
                }
            }
            NextStep::Behind => {}
            NextStep::Needs(bytes) => panic!("{bytes} bytes are too many"),
            NextStep::Idle => break,
        }
    }
    seen.sort();
    seen
}

/// Returns a reservation for a watcher.
fn permit() -> Option<OwnedSemaphorePermit> {
    Arc::new(Semaphore::new(1)).try_acquire_owned().ok()
}

fn watch_all(from: i64, store: &Store) -> Watchers {
    let mut watchers = Watchers::default();
    watch(&mut watchers, 0, from, store);
    watchers
}

/// Adds a watcher of all keys. Returns its id.
fn watch(watchers: &mut Watchers, id: i64, from: i64, store: &Store) -> i64 {
    // Only the client's options can make a create request.
    let options = etcd_client::WatchOptions::new().with_all_keys();
    let options = options.with_watch_id(id).with_start_revision(from);
    let request = pb::PbWatchRequest::from(options);
    let response = watchers.handle(request, permit(), store).expect("an answer at once");
    assert!(response.created && !response.canceled);
    response.watch_id
}

proptest! {
    #[test]
    fn the_store_is_the_naive_store(ops in prop::collection::vec(op(), 1..60)) {
        let now = Instant::now();
        let (mut store, mut model) = (Store::new(1), Model::new(now));
        let mut live = watch_all(1, &store);
        let mut seen = Vec::new();
        for op in ops {
            apply(op, &mut store, &mut model);
            prop_assert_eq!(store.revision(), model.revision());
            seen.extend(received_events(&mut live, &store));
            for revision in 1..=model.revision() {
                let request = pb::PbRangeRequest {
                    key: vec![0], range_end: vec![0], revision, ..Default::default()
                };
                let answer = store.range(&request);
                if revision < model.compacted {
                    prop_assert_eq!(answer, Err(StoreError::Compacted));
                    continue;
                }
                let keys = &model.history[usize::try_from(revision)?];
                let expected: Vec<_> = keys.values().cloned().collect();
                prop_assert_eq!(answer.map(|answer| answer.kvs), Ok(expected));
            }
        }
        // The early watcher got each change exactly once. A late watcher gets the same events
        // of the revisions that are left.
        prop_assert_eq!(seen, expected_events(&model, 1));
        let from = model.compacted.max(1);
        let late = received_events(&mut watch_all(from, &store), &store);
        prop_assert_eq!(late, expected_events(&model, from));
    }
}

#[test]
fn the_past_is_bounded_in_revisions() {
    let mut store = Store::new(1);
    let writes = KEPT_REVISIONS + 1_000;
    for i in 0..writes {
        store.put(put(&format!("{}", i % 7), b"value")).expect("there is room");
    }
    let newest = store.revision();
    assert_eq!(newest, writes as i64 + 1);
    assert_eq!(newest - store.compacted() + 1, KEPT_REVISIONS as i64);
    assert!(store.changes(store.compacted() - 1).is_none());
    assert!(store.changes(store.compacted()).is_some());
    let (all, live) = store.bytes();
    assert!(live < 7 * 1_000 && all < KEPT_REVISIONS * 1_000, "{all} {live}");
}

#[test]
fn the_past_and_the_present_are_bounded_in_bytes() {
    let mut store = Store::new(1);
    let value = vec![b'x'; 1 << 20];
    for _ in 0..200 {
        store.put(put("same", &value)).expect("there is room");
        assert!(store.bytes().0 <= KEPT_BYTES + 2 * value.len());
    }
    let mut stored = 0;
    let refused = loop {
        match store.put(put(&format!("{stored}"), &value)) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored <= 2 * QUOTA / value.len(), "nothing is ever refused");
    };
    assert_eq!(refused, StoreError::NoSpace);
    assert!(store.bytes().1 <= QUOTA + 2 * value.len());
    let delete =
        pb::PbDeleteRequest { key: b"0".to_vec(), range_end: b"a".to_vec(), prev_kv: false };
    assert_eq!(store.delete(&delete).map(|answer| answer.deleted), Ok(stored as i64));
    store.put(put("again", b"1")).expect("there is room again");
}

#[test]
fn a_seed_decides_the_ids_of_leases() {
    let now = Instant::now();
    let ids = |seed| {
        let mut store = Store::new(seed);
        let request = pb::PbLeaseGrantRequest { id: 0, ttl: 60 };
        let mut ids = (0..100).map(|_| store.grant(&request, now).expect("room").id);
        let ids: std::collections::BTreeSet<_> = ids.by_ref().collect();
        assert!(ids.len() == 100 && ids.iter().all(|id| *id > 0));
        ids
    };
    assert_eq!(ids(1), ids(1));
    assert!(ids(1).is_disjoint(&ids(1_000_000)));
}

#[test]
fn a_busy_watcher_lets_the_others_have_their_turn_whatever_its_number() {
    let (mut store, mut watchers) = (Store::new(1), Watchers::default());
    // 0 requests the next free id from 0 on, whatever ids clients have chosen.
    let asked = [i64::MAX, 0, i64::MIN, 1, 0];
    let numbers = asked.map(|id| watch(&mut watchers, id, 2, &store));
    assert_eq!(numbers, [i64::MAX, 0, i64::MIN, 1, 2]);
    for _ in 0..3 {
        store.put(put("a", b"1")).expect("there is room");
    }
    let turns = std::iter::from_fn(|| match watchers.next_response(&store, usize::MAX) {
        NextStep::Send(response) => Some(response.watch_id),
        _ => None,
    });
    let round = [0, 1, 2, i64::MAX, i64::MIN];
    assert_eq!(turns.collect::<Vec<_>>(), [round; 3].concat());
}

fn put(key: &str, value: &[u8]) -> pb::PbPutRequest {
    pb::PbPutRequest { key: key.into(), value: value.to_vec(), ..Default::default() }
}
