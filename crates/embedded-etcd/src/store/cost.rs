//! Computes an upper bound of an answer's length before the answer is made.
//!
//! In: a request and the store. Out: bytes that the answer does not exceed. It only reads,
//! and copies nothing. For a request that will be refused, the result has no meaning.

use etcd_client::proto as pb;
use pb::PbTxnOpRequest as Op;
use prost::Message;

use super::history::{History, Record};
use super::{Span, Store, range, txn};

/// The cost of a key in an answer beside its bytes, in bytes: numbers and tags.
const AROUND: usize = 64;

impl Store {
    /// Returns the most bytes of the answer to a Range.
    pub(crate) fn cost_of_range(request: &pb::PbRangeRequest, store: &Self) -> usize {
        of_range(request, &store.history)
    }

    /// Returns the most bytes of the answer to a Put.
    pub(crate) fn cost_of_put(request: &pb::PbPutRequest, store: &Self) -> usize {
        of_put(request, &store.history)
    }

    /// Returns the most bytes of the answer to a DeleteRange.
    pub(crate) fn cost_of_delete(request: &pb::PbDeleteRequest, store: &Self) -> usize {
        of_delete(request, &store.history)
    }

    /// Returns the most bytes of the answer to a Txn.
    pub(crate) fn cost_of_txn(request: &pb::PbTxnRequest, store: &Self) -> usize {
        of_txn(request, store)
    }

    /// Returns the most bytes of the keys in the answer to a LeaseTimeToLive.
    pub(crate) fn cost_of_lease(request: &pb::PbLeaseTimeToLiveRequest, store: &Self) -> usize {
        let keys = request.keys.then(|| store.leases.keys(request.id)).into_iter().flatten();
        keys.map(|key| key.len() + 8).sum()
    }

    /// Returns the most bytes of the answer to a LeaseLeases.
    pub(crate) fn cost_of_leases(_: &pb::PbLeaseLeasesRequest, store: &Self) -> usize {
        store.leases.ids().count() * 12
    }
}

fn of_range(request: &pb::PbRangeRequest, history: &History) -> usize {
    if request.count_only {
        return AROUND;
    }
    let revision = if request.revision > 0 { request.revision } else { history.revision() };
    let span = Span::new(&request.key, &request.range_end);
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
    let limit = limit.unwrap_or(usize::MAX);
    let sorted = range::order(request).is_some();
    let (mut sum, mut longest, mut count) = (0, 0, 0);
    for record in history.scan(&span, revision).filter(|record| range::passes(request, record)) {
        let bytes = of_key(&record, request.keys_only);
        sum += bytes;
        longest = longest.max(bytes);
        count += 1;
        if !sorted && count >= limit {
            break;
        }
    }
    AROUND + sum.min(longest.saturating_mul(limit))
}

fn of_put(request: &pb::PbPutRequest, history: &History) -> usize {
    let before = request.prev_kv.then(|| history.at(&request.key, history.revision())).flatten();
    AROUND + before.map_or(0, |record| of_key(&record, false))
}

fn of_delete(request: &pb::PbDeleteRequest, history: &History) -> usize {
    if !request.prev_kv {
        return AROUND;
    }
    let span = Span::new(&request.key, &request.range_end);
    let keys = history.scan(&span, history.revision());
    AROUND + keys.map(|record| of_key(&record, false)).sum::<usize>()
}

/// Returns the most bytes of the answer to a Txn. It may read keys that it has just written,
/// so each read counts the length of the request too.
fn of_txn(request: &pb::PbTxnRequest, store: &Store) -> usize {
    // A request with too many operations is refused, so its cost does not matter.
    if txn::check(request).is_err() {
        return 0;
    }
    let written = if txn::may_write(request) { request.encoded_len() } else { 0 };
    of_branch(request, store, written)
}

fn of_branch(request: &pb::PbTxnRequest, store: &Store, written: usize) -> usize {
    let ops = if txn::succeeds(request, store) { &request.success } else { &request.failure };
    let each = ops.iter().map(|op| match &op.request {
        Some(Op::RequestRange(range)) if range.count_only => AROUND,
        Some(Op::RequestRange(range)) => of_range(range, &store.history) + written,
        Some(Op::RequestPut(put)) => of_put(put, &store.history),
        Some(Op::RequestDeleteRange(delete)) => {
            of_delete(delete, &store.history) + if delete.prev_kv { written } else { 0 }
        }
        Some(Op::RequestTxn(nested)) => of_branch(nested, store, written),
        None => 0,
    });
    each.sum::<usize>() + AROUND
}

fn of_key(record: &Record<'_>, without_value: bool) -> usize {
    AROUND + record.key.len() + if without_value { 0 } else { record.value().len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, key: &str, length: usize) {
        let (key, value) = (key.as_bytes().to_vec(), vec![0; length]);
        store.put(pb::PbPutRequest { key, value, ..Default::default() }).expect("a put");
    }

    fn store() -> Store {
        let mut store = Store::new(1);
        for i in 0..20 {
            put(&mut store, &format!("k/{i:02}"), 1_000 * (i + 1));
        }
        store
    }

    fn range(limit: i64, sort_order: i32) -> pb::PbRangeRequest {
        let (key, range_end) = (b"k/".to_vec(), b"k0".to_vec());
        pb::PbRangeRequest {
            key,
            range_end,
            limit,
            sort_order,
            sort_target: 1.min(sort_order),
            ..Default::default()
        }
    }

    #[test]
    fn no_answer_is_longer_and_none_is_much_shorter() {
        let mut store = store();
        let check = |request: pb::PbRangeRequest, slack: f64| {
            let cost = of_range(&request, &store.history);
            let length = store.range(&request).expect("an answer").encoded_len();
            assert!(length <= cost, "{request:?}: {length} {cost}");
            assert!(cost as f64 <= length as f64 * slack + 4_000.0, "{request:?}: {length} {cost}");
        };
        check(range(0, 0), 1.1);
        check(range(3, 0), 1.1);
        // The three keys are not known before sorting, so the bound is less tight.
        check(range(3, 2), 1.5);
        check(pb::PbRangeRequest { keys_only: true, ..range(0, 0) }, 3.0);
        check(pb::PbRangeRequest { count_only: true, ..range(0, 0) }, 1.0);

        let op = |request| pb::PbTxnRequestOp { request: Some(request) };
        let written =
            pb::PbPutRequest { key: b"k/x".to_vec(), value: vec![0; 50_000], ..Default::default() };
        let delete =
            pb::PbDeleteRequest { key: b"k/".to_vec(), range_end: b"k1".to_vec(), prev_kv: true };
        for ops in [
            vec![op(Op::RequestRange(range(0, 0))); 128],
            vec![op(Op::RequestPut(written)), op(Op::RequestRange(range(0, 0)))],
            vec![op(Op::RequestDeleteRange(delete))],
        ] {
            let request = pb::PbTxnRequest { success: ops, ..Default::default() };
            let cost = of_txn(&request, &store);
            let length = store.txn(request).expect("an answer").encoded_len();
            assert!(length <= cost && cost < 2 * length, "{length} {cost}");
        }
    }
}
