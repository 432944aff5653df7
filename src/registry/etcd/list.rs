//! Reads every key of some ranges as they were at one revision.
//!
//! In: a client and ranges. Out: the entries, the revision, and whose store it
//! is. Pages are pinned to the revision of the first answer, so that 100,000
//! keys are one consistent whole; a page too big to be read is asked for in
//! halves. Never serves a member's own, possibly old, idea of the store.

use std::time::Duration;

use etcd_client::{Client, GetOptions, KvClient};

use super::batch::Leases;
use super::connect::{CALL_TIMEOUT, MESSAGE_MAX, Trouble, bounded};
use super::prefixes::{Prefixes, Range};
use crate::registry::Entry;

/// A consistent reading.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) revision: i64,
    /// Which etcd cluster it came from.
    pub(super) cluster: u64,
    pub(super) all: Vec<Entry>,
    pub(super) leases: Leases,
}

/// Keys per page. etcd 3.4 visits all remaining keys for each page to count
/// them, so small pages make a long list quadratic.
const PAGE: i64 = 5_000;
/// One page may be [`MESSAGE_MAX`] long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn list(
    client: &Client,
    ranges: &[Range],
    prefixes: &Prefixes,
) -> Result<Listing, Trouble> {
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE_MAX);
    // One key, present or not: the cheapest question that only a member with a
    // leader can answer, and one that whoever may read the prefix may ask.
    let key = ranges.first().map_or(vec![0], |range| range.start.clone());
    let first = bounded(CALL_TIMEOUT, kv.get(key, None)).await?;
    let header = first.header().ok_or_else(|| Trouble("an answer without a header".into()))?;
    let (revision, cluster) = (header.revision(), header.cluster_id());
    let mut content = (Vec::new(), Leases::new());
    for range in ranges {
        list_range(&mut kv, range, revision, prefixes, &mut content).await.map_err(|trouble| {
            Trouble(format!("{}: {trouble}", String::from_utf8_lossy(&range.start)))
        })?;
    }
    let (all, leases) = content;
    Ok(Listing { revision, cluster, all, leases })
}

async fn list_range(
    kv: &mut KvClient,
    range: &Range,
    revision: i64,
    prefixes: &Prefixes,
    (all, leases): &mut (Vec<Entry>, Leases),
) -> Result<(), Trouble> {
    let mut from = range.start.clone();
    let mut limit = PAGE;
    loop {
        let options = GetOptions::new()
            .with_range(range.end.clone())
            .with_limit(limit)
            .with_revision(revision);
        let call = async {
            match kv.get(from.clone(), Some(options)).await {
                Err(error) if too_long(&error) => Ok(None),
                answer => answer.map(Some),
            }
        };
        let Some(page) = bounded(PAGE_TIMEOUT, call).await? else {
            if limit == 1 {
                return Err(Trouble(format!("a single value is longer than {MESSAGE_MAX} bytes")));
            }
            limit /= 2;
            continue;
        };
        for kv in page.kvs() {
            let entry = prefixes.entry(kv.key(), kv.value(), kv.lease());
            if entry.leased {
                leases.insert(entry.key.clone(), kv.lease());
            }
            all.push(entry);
        }
        let Some(last) = page.kvs().last().filter(|_| page.more()) else { return Ok(()) };
        from = last.key().to_vec();
        // The first key after the last one.
        from.push(0);
    }
}

/// tonic's own refusal; etcd uses the same code for a compacted revision.
fn too_long(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.code() == tonic::Code::OutOfRange && status.message().contains("too large"))
}
