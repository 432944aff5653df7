//! Answers a Range request from the history.
//!
//! In: the request and the history. Out: the response or an error. It only reads.

use std::cmp::Ordering;

use etcd_client::proto as pb;

use super::history::{History, Record};
use super::{Span, StoreError, header};

// The enums of `RangeRequest` in etcd's rpc.proto.
const DESCEND: i32 = 2;
const BY_KEY: i32 = 0;
const BY_VERSION: i32 = 1;
const BY_CREATE: i32 = 2;
const BY_MOD: i32 = 3;

/// Returns the error of a request that does not depend on the store's content.
pub(super) fn check(request: &pb::PbRangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
}

/// Returns an error if the history does not have a revision; 0 or less means the newest.
pub(super) fn check_revision(revision: i64, history: &History) -> Result<(), StoreError> {
    if revision > history.revision() {
        Err(StoreError::FutureRevision)
    } else if revision > 0 && revision < history.compacted() {
        Err(StoreError::Compacted)
    } else {
        Ok(())
    }
}

/// Returns the answer. `count` counts all keys in the span, also those that are filtered out
/// or beyond the limit.
pub(super) fn range(
    request: &pb::PbRangeRequest,
    history: &History,
) -> Result<pb::PbRangeResponse, StoreError> {
    check_revision(request.revision, history)?;
    let newest = history.revision();
    let revision = if request.revision > 0 { request.revision } else { newest };
    let span = Span::new(&request.key, &request.range_end);
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
    let sorted = order(request).is_some();

    let mut count = 0;
    let mut more = false;
    let mut records: Vec<Record<'_>> = Vec::new();
    for record in history.scan(&span, revision) {
        count += 1;
        if request.count_only || !passes(request, &record) {
            continue;
        }
        if !sorted && limit.is_some_and(|limit| records.len() >= limit) {
            more = true;
        } else {
            records.push(record);
        }
    }
    if let Some(descending) = order(request) {
        records.sort_by(|a, b| compare(request.sort_target, a, b));
        if descending {
            records.reverse();
        }
        if let Some(limit) = limit.filter(|&limit| limit < records.len()) {
            records.truncate(limit);
            more = true;
        }
    }
    let kv = if request.keys_only { Record::to_pb_without_value } else { Record::to_pb };
    let kvs = records.into_iter().map(kv).collect();
    Ok(pb::PbRangeResponse { header: header(newest), kvs, more, count })
}

/// Returns `None` if no sorting is needed, else whether the order is descending. Keys are
/// already in ascending order; another target without an order means ascending.
pub(super) fn order(request: &pb::PbRangeRequest) -> Option<bool> {
    match (request.sort_order, request.sort_target) {
        (DESCEND, _) => Some(true),
        (_, BY_KEY) => None,
        _ => Some(false),
    }
}

pub(super) fn passes(request: &pb::PbRangeRequest, record: &Record<'_>) -> bool {
    let within =
        |least: i64, most: i64, is: i64| (least == 0 || is >= least) && (most == 0 || is <= most);
    within(request.min_mod_revision, request.max_mod_revision, record.modified)
        && within(request.min_create_revision, request.max_create_revision, record.created())
}

fn compare(target: i32, a: &Record<'_>, b: &Record<'_>) -> Ordering {
    match target {
        BY_KEY => a.key.cmp(b.key),
        BY_VERSION => a.version().cmp(&b.version()),
        BY_CREATE => a.created().cmp(&b.created()),
        BY_MOD => a.modified.cmp(&b.modified),
        _ => a.value().cmp(b.value()),
    }
}
