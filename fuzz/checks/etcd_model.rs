//! A naive etcd, as its documentation describes it: a copy of all keys at each revision.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::proto as pb;
use tokio::time::Instant;

/// All keys at one revision.
pub type Keys = BTreeMap<Vec<u8>, pb::PbKeyValue>;

/// The keys at each revision, and the leases.
pub struct Model {
    pub history: Vec<Keys>,
    pub compacted: i64,
    /// Each lease with its whole time and its end.
    pub leases: BTreeMap<i64, (i64, Instant)>,
}

/// The keys that one write makes.
struct Draft {
    keys: Keys,
    revision: i64,
    changed: bool,
}

/// A transaction with its branches chosen: all are chosen before the first write.
struct Plan<'a> {
    succeeded: bool,
    steps: Vec<(&'a pb::PbTxnOpRequest, Option<Plan<'a>>)>,
}

impl Model {
    pub fn new() -> Self {
        // A store begins at revision 1.
        Self { history: vec![Keys::new(); 2], compacted: 0, leases: BTreeMap::new() }
    }

    pub fn revision(&self) -> i64 {
        i64::try_from(self.history.len()).expect("few revisions") - 1
    }

    pub fn now(&self) -> &Keys {
        self.history.last().expect("there is a first revision")
    }

    pub fn at(&self, revision: i64) -> &Keys {
        &self.history[usize::try_from(revision).expect("no negative revision")]
    }

    /// Returns whether keys can be read at this revision; 0 is the newest.
    pub fn has(&self, revision: i64) -> bool {
        revision <= self.revision() && (revision <= 0 || revision >= self.compacted)
    }

    pub fn put(&mut self, request: &pb::PbPutRequest) -> pb::PbPutResponse {
        self.write(|draft| draft.put(request))
    }

    pub fn delete(&mut self, request: &pb::PbDeleteRequest) -> pb::PbDeleteResponse {
        self.write(|draft| draft.delete(request))
    }

    pub fn txn(&mut self, request: &pb::PbTxnRequest) -> pb::PbTxnResponse {
        let keys = self.now().clone();
        let plan = Plan::new(request, &keys);
        let history = self.history.clone();
        self.write(|draft| plan.run(draft, &history))
    }

    pub fn range(&self, request: &pb::PbRangeRequest) -> pb::PbRangeResponse {
        match request.revision {
            1.. => range(self.at(request.revision), request),
            _ => range(self.now(), request),
        }
    }

    pub fn end_lease(&mut self, id: i64) {
        self.leases.remove(&id);
        self.write(|draft| draft.remove(|kv| kv.lease == id));
    }

    /// Ends the leases whose time is over.
    pub fn expire(&mut self, now: Instant) {
        let over = |(id, &(_, end)): (&i64, &(i64, Instant))| (end <= now).then_some((end, *id));
        let mut over: Vec<_> = self.leases.iter().filter_map(over).collect();
        over.sort_unstable();
        over.into_iter().for_each(|(_, id)| self.end_lease(id));
    }

    pub fn hold(&mut self, id: i64, ttl: i64) {
        let time = Duration::from_secs(u64::try_from(ttl).expect("a granted time"));
        self.leases.insert(id, (ttl, Instant::now() + time));
    }

    /// Makes one revision if `change` changes a key.
    fn write<T>(&mut self, change: impl FnOnce(&mut Draft) -> T) -> T {
        let (keys, revision) = (self.now().clone(), self.revision() + 1);
        let mut draft = Draft { keys, revision, changed: false };
        let answer = change(&mut draft);
        if draft.changed {
            self.history.push(draft.keys);
        }
        answer
    }
}

impl Draft {
    fn put(&mut self, request: &pb::PbPutRequest) -> pb::PbPutResponse {
        let before = self.keys.get(&request.key).cloned();
        let old = before.clone().unwrap_or_default();
        let new = pb::PbKeyValue {
            key: request.key.clone(),
            create_revision: before.as_ref().map_or(self.revision, |old| old.create_revision),
            mod_revision: self.revision,
            version: old.version + 1,
            value: if request.ignore_value { old.value } else { request.value.clone() },
            lease: if request.ignore_lease { old.lease } else { request.lease },
        };
        self.keys.insert(request.key.clone(), new);
        self.changed = true;
        pb::PbPutResponse { header: None, prev_kv: before.filter(|_| request.prev_kv) }
    }

    fn delete(&mut self, request: &pb::PbDeleteRequest) -> pb::PbDeleteResponse {
        let gone = self.remove(|kv| is_in(&kv.key, &request.key, &request.range_end));
        let deleted = i64::try_from(gone.len()).expect("few keys");
        let prev_kvs = if request.prev_kv { gone } else { Vec::new() };
        pb::PbDeleteResponse { header: None, deleted, prev_kvs }
    }

    fn remove(&mut self, goes: impl Fn(&pb::PbKeyValue) -> bool) -> Vec<pb::PbKeyValue> {
        let gone: Vec<_> = self.keys.values().filter(|kv| goes(kv)).cloned().collect();
        self.keys.retain(|_, kv| !goes(kv));
        self.changed |= !gone.is_empty();
        gone
    }
}

impl<'a> Plan<'a> {
    fn new(request: &'a pb::PbTxnRequest, keys: &Keys) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(compare, keys));
        let ops = if succeeded { &request.success } else { &request.failure };
        let step = |op: &'a pb::PbTxnOpRequest| match op {
            pb::PbTxnOpRequest::RequestTxn(nested) => (op, Some(Plan::new(nested, keys))),
            _ => (op, None),
        };
        let steps = ops.iter().filter_map(|op| op.request.as_ref()).map(step).collect();
        Self { succeeded, steps }
    }

    fn run(self, draft: &mut Draft, history: &[Keys]) -> pb::PbTxnResponse {
        use pb::{PbTxnOpRequest as Asked, PbTxnOpResponse as Answer};
        let answer = |(asked, nested): (&Asked, Option<Plan<'_>>)| match (asked, nested) {
            (Asked::RequestPut(put), _) => Answer::ResponsePut(draft.put(put)),
            (Asked::RequestDeleteRange(delete), _) => {
                Answer::ResponseDeleteRange(draft.delete(delete))
            }
            (Asked::RequestRange(asked), _) => {
                let past = usize::try_from(asked.revision).ok().filter(|at| *at > 0);
                let keys = past.map_or(&draft.keys, |at| &history[at]);
                Answer::ResponseRange(range(keys, asked))
            }
            (Asked::RequestTxn(_), nested) => {
                Answer::ResponseTxn(nested.expect("it is planned").run(draft, history))
            }
        };
        let all = self.steps.into_iter().map(answer);
        let responses = all.map(|one| pb::PbResponseOp { response: Some(one) }).collect();
        pb::PbTxnResponse { header: None, succeeded: self.succeeded, responses }
    }
}

/// Returns whether a key is in a range: no end means one key, and the end `\0` all that follow.
fn is_in(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

fn range(keys: &Keys, request: &pb::PbRangeRequest) -> pb::PbRangeResponse {
    let all = keys.values().filter(|kv| is_in(&kv.key, &request.key, &request.range_end));
    let all: Vec<_> = all.cloned().collect();
    let count = i64::try_from(all.len()).expect("few keys");
    let within =
        |is: i64, least: i64, most: i64| (least == 0 || is >= least) && (most == 0 || is <= most);
    let mut kvs: Vec<_> = all
        .into_iter()
        .filter(|kv| within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision))
        .filter(|kv| {
            within(kv.create_revision, request.min_create_revision, request.max_create_revision)
        })
        .filter(|_| !request.count_only)
        .collect();
    kvs.sort_by_key(|kv| rank(request.sort_target, kv));
    if request.sort_order == 2 {
        kvs.reverse();
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let more = limit.is_some_and(|limit| limit < kvs.len());
    kvs.truncate(limit.unwrap_or(usize::MAX));
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    pb::PbRangeResponse { header: None, kvs, more, count }
}

/// Returns what keys are sorted by.
fn rank(target: i32, kv: &pb::PbKeyValue) -> (i64, Vec<u8>) {
    match target {
        0 => (0, kv.key.clone()),
        1 => (kv.version, Vec::new()),
        2 => (kv.create_revision, Vec::new()),
        3 => (kv.mod_revision, Vec::new()),
        _ => (0, kv.value.clone()),
    }
}

/// Returns whether a comparison holds for all keys of its range. A missing key has zero
/// numbers, and its value equals nothing.
fn holds(compare: &pb::PbCompare, keys: &Keys) -> bool {
    use pb::{PbCompareTarget as Target, PbTargetUnion as Union};
    let missing = [pb::PbKeyValue::default()];
    let found = keys.values().filter(|kv| is_in(&kv.key, &compare.key, &compare.range_end));
    let found: Vec<_> = found.collect();
    if found.is_empty() && compare.target() == Target::Value {
        return false;
    }
    let all = if found.is_empty() { missing.iter().collect() } else { found };
    all.into_iter().all(|kv| {
        let ordering = match (compare.target(), &compare.target_union) {
            (Target::Version, Some(Union::Version(wanted))) => kv.version.cmp(wanted),
            (Target::Create, Some(Union::CreateRevision(wanted))) => kv.create_revision.cmp(wanted),
            (Target::Mod, Some(Union::ModRevision(wanted))) => kv.mod_revision.cmp(wanted),
            (Target::Lease, Some(Union::Lease(wanted))) => kv.lease.cmp(wanted),
            (Target::Value, Some(Union::Value(wanted))) => kv.value.cmp(wanted),
            // A value of another kind counts as none.
            (Target::Version, _) => kv.version.cmp(&0),
            (Target::Create, _) => kv.create_revision.cmp(&0),
            (Target::Mod, _) => kv.mod_revision.cmp(&0),
            (Target::Lease, _) => kv.lease.cmp(&0),
            (Target::Value, _) => kv.value.cmp(&Vec::new()),
        };
        match compare.result {
            0 => ordering.is_eq(),
            1 => ordering.is_gt(),
            2 => ordering.is_lt(),
            _ => ordering.is_ne(),
        }
    })
}
