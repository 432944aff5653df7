//! Checks and runs transactions.
//!
//! In: a Txn request. Out: its response, and one revision for all its writes. Every possible
//! error occurs before the first write.

use std::collections::{BTreeMap, HashSet};

use etcd_client::proto as pb;
use pb::PbTxnOpRequest as Op;

use super::history::Record;
use super::range;
use super::{Span, Store, StoreError, check_delete, check_put, header};

/// etcd's default limit of operations (`--max-txn-ops`).
const OPS_MAX: usize = 128;

// `Compare.CompareResult` in etcd's rpc.proto.
const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

/// A transaction with its branches chosen, including those of nested transactions. As in
/// etcd, all branches are chosen before the first write.
pub(super) struct Plan {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    Range(pb::PbRangeRequest),
    Put(pb::PbPutRequest),
    Delete(pb::PbDeleteRequest),
    Nested(Plan),
}

/// Returns the error of a request that does not depend on the store's content.
pub(super) fn check(request: &pb::PbTxnRequest) -> Result<(), StoreError> {
    check_ops(request, OPS_MAX)?;
    Written::by(&request.success)?;
    Written::by(&request.failure)?;
    Ok(())
}

/// Returns whether any branch of the transaction writes.
pub(super) fn may_write(request: &pb::PbTxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Op::RequestTxn(nested)) => may_write(nested),
        Some(Op::RequestRange(_)) | None => false,
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => true,
    })
}

/// Returns whether all comparisons hold.
pub(super) fn succeeds(request: &pb::PbTxnRequest, store: &Store) -> bool {
    request.compare.iter().all(|compare| holds(compare, store))
}

impl Plan {
    /// Evaluates the comparisons and chooses the branches.
    pub(super) fn new(request: pb::PbTxnRequest, store: &Store) -> Self {
        let succeeded = succeeds(&request, store);
        let ops = if succeeded { request.success } else { request.failure };
        let steps = ops.into_iter().filter_map(|op| op.request);
        let steps = steps.map(|op| match op {
            Op::RequestRange(range) => Step::Range(range),
            Op::RequestPut(put) => Step::Put(put),
            Op::RequestDeleteRange(delete) => Step::Delete(delete),
            Op::RequestTxn(nested) => Step::Nested(Self::new(nested, store)),
        });
        Self { succeeded, steps: steps.collect() }
    }

    /// Returns the error of the chosen branches that depends on the store's content.
    pub(super) fn check(&self, store: &Store) -> Result<(), StoreError> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Range(range) => range::check_revision(range.revision, &store.history),
            Step::Put(put) => store.check_put_now(put),
            Step::Delete(_) => Ok(()),
            Step::Nested(plan) => plan.check(store),
        })
    }

    /// Runs the chosen branches. The caller commits.
    pub(super) fn run(self, store: &mut Store) -> Result<pb::PbTxnResponse, StoreError> {
        let mut responses = Vec::with_capacity(self.steps.len());
        for step in self.steps {
            let response = match step {
                Step::Range(request) => {
                    pb::PbTxnOpResponse::ResponseRange(range::range(&request, &store.history)?)
                }
                Step::Put(request) => pb::PbTxnOpResponse::ResponsePut(store.write(request)?),
                Step::Delete(request) => {
                    pb::PbTxnOpResponse::ResponseDeleteRange(store.erase(&request))
                }
                Step::Nested(plan) => pb::PbTxnOpResponse::ResponseTxn(plan.run(store)?),
            };
            responses.push(pb::PbResponseOp { response: Some(response) });
        }
        // As in etcd, only the outermost header has a revision.
        Ok(pb::PbTxnResponse { header: header(0), succeeded: self.succeeded, responses })
    }
}

fn check_ops(request: &pb::PbTxnRequest, most: usize) -> Result<(), StoreError> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > most {
        return Err(StoreError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(StoreError::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Op::RequestRange(range)) => range::check(range),
        Some(Op::RequestPut(put)) => check_put(put),
        Some(Op::RequestDeleteRange(delete)) => check_delete(delete),
        Some(Op::RequestTxn(nested)) => check_ops(nested, most - ops),
        None => Err(StoreError::KeyNotFound),
    })
}

fn holds(compare: &pb::PbCompare, store: &Store) -> bool {
    let span = Span::new(&compare.key, &compare.range_end);
    let mut records = store.history.scan(&span, store.history.revision()).peekable();
    if records.peek().is_none() {
        return holds_for(compare, None);
    }
    records.all(|record| holds_for(compare, Some(record)))
}

/// Returns whether a comparison holds for a key. A missing key has zero numbers and no value,
/// so a comparison of values fails.
fn holds_for(compare: &pb::PbCompare, record: Option<Record<'_>>) -> bool {
    use pb::{PbCompareTarget as Target, PbTargetUnion as Union};
    let target = compare.target();
    let wanted = match (target, compare.target_union.as_ref()) {
        (Target::Version, Some(Union::Version(wanted)))
        | (Target::Create, Some(Union::CreateRevision(wanted)))
        | (Target::Mod, Some(Union::ModRevision(wanted)))
        | (Target::Lease, Some(Union::Lease(wanted))) => *wanted,
        _ => 0,
    };
    let ordering = match (target, record) {
        (Target::Value, None) => return false,
        (Target::Value, Some(record)) => match &compare.target_union {
            Some(Union::Value(wanted)) => record.value().cmp(wanted),
            _ => record.value().cmp(&[]),
        },
        (_, None) => 0.cmp(&wanted),
        (Target::Version, Some(record)) => record.version().cmp(&wanted),
        (Target::Create, Some(record)) => record.created().cmp(&wanted),
        (Target::Mod, Some(record)) => record.modified.cmp(&wanted),
        (Target::Lease, Some(record)) => record.lease().cmp(&wanted),
    };
    match compare.result {
        EQUAL => ordering.is_eq(),
        NOT_EQUAL => ordering.is_ne(),
        GREATER => ordering.is_gt(),
        LESS => ordering.is_lt(),
        _ => true,
    }
}

/// The keys that operations write, to refuse a key that is written twice. The two branches
/// of a nested transaction exclude each other, so both may write the same key.
#[derive(Default)]
struct Written<'a> {
    puts: HashSet<&'a [u8]>,
    deletions: Deletions,
}

impl<'a> Written<'a> {
    fn by(ops: &'a [pb::PbTxnRequestOp]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for op in ops {
            if let Some(Op::RequestDeleteRange(delete)) = &op.request {
                all.deletions.add(&delete.key, &delete.range_end);
            }
        }
        for op in ops {
            let Some(Op::RequestTxn(nested)) = &op.request else { continue };
            let success = Self::by(&nested.success)?;
            let failure = Self::by(&nested.failure)?;
            for &key in success.puts.union(&failure.puts) {
                all.put(key)?;
            }
            all.deletions.join(success.deletions);
            all.deletions.join(failure.deletions);
        }
        for op in ops {
            if let Some(Op::RequestPut(put)) = &op.request {
                all.put(&put.key)?;
            }
        }
        Ok(all)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), StoreError> {
        if self.deletions.contain(key) || !self.puts.insert(key) {
            return Err(StoreError::DuplicateKey);
        }
        Ok(())
    }
}

/// Deleted ranges that do not overlap, by start, with their exclusive end (`None`: all that
/// follow). Overlapping ranges are joined, so that thousands of them in a hostile
/// transaction are still searched quickly.
#[derive(Default)]
struct Deletions(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Deletions {
    fn add(&mut self, key: &[u8], range_end: &[u8]) {
        let end = match range_end {
            [] => Some([key, &[0]].concat()),
            [0] => None,
            end => Some(end.to_vec()),
        };
        if end.as_deref().is_none_or(|end| key < end) {
            self.insert(key.to_vec(), end);
        }
    }

    fn join(&mut self, others: Self) {
        others.0.into_iter().for_each(|(start, end)| self.insert(start, end));
    }

    fn insert(&mut self, mut start: Vec<u8>, mut end: Option<Vec<u8>>) {
        let reach = |end: &Option<Vec<u8>>, at: &[u8]| end.as_deref().is_none_or(|end| at <= end);
        while let Some((before, until)) = match &end {
            Some(end) => self.0.range(..=end.clone()).next_back(),
            None => self.0.last_key_value(),
        } && reach(until, &start)
        {
            let before = before.clone();
            let until = self.0.remove(&before).flatten();
            start = start.min(before);
            end = end.zip(until).map(|(a, b)| a.max(b));
        }
        self.0.insert(start, end);
    }

    fn contain(&self, key: &[u8]) -> bool {
        let before =
            self.0.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)));
        before.last().is_some_and(|(_, end)| end.as_deref().is_none_or(|end| key < end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Joined ranges contain exactly the keys of the single ranges.
        #[test]
        fn joining_keeps_what_is_deleted(
            ranges in prop::collection::vec(("[a-d]{1,2}", "[a-d]{0,2}|\0"), 0..8),
            keys in prop::collection::vec("[a-e]{1,3}", 8),
        ) {
            let mut deletions = Deletions::default();
            for (key, end) in &ranges {
                deletions.add(key.as_bytes(), end.as_bytes());
            }
            for key in &keys {
                let inside = ranges
                    .iter()
                    .any(|(k, end)| Span::new(k.as_bytes(), end.as_bytes()).contains(key.as_bytes()));
                prop_assert_eq!(deletions.contain(key.as_bytes()), inside, "{} in {:?}", key, &ranges);
            }
        }
    }
}
