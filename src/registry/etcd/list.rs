//! Lists every key of some ranges at one revision.
//!
//! In: a client, ranges, and a function that decodes a key. Out: the decoded keys, the
//! revision, and the cluster's id. All pages are read at the revision of the first
//! answer, so 100,000 keys are one consistent listing. A page that is too big is asked
//! for again in halves. One page is decoded while etcd prepares the next.
//!
//! It never returns a member's own, possibly old, view of the store. It rejects a page
//! of another cluster or of an older or later state, with keys that do not rise, or
//! without end.

use std::time::Duration;

use etcd_client::{Client, GetOptions, GetResponse, KvClient};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use super::connect::{CALL_TIMEOUT, EtcdError, MESSAGE_MAX, bounded};
use super::prefixes::{Range, Stored};

/// A complete listing of some ranges.
#[derive(Debug)]
pub(super) struct Listing<T> {
    pub(super) revision: i64,
    /// The id of the etcd cluster.
    pub(super) cluster: u64,
    pub(super) all: Vec<T>,
}

/// Keys per page. etcd 3.4 visits all remaining keys for each page to count them, so
/// with small pages a long listing takes quadratic time.
const PAGE: i64 = 5_000;
/// How long a page may take. It may be [`MESSAGE_MAX`] bytes long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// The most keys and bytes that are read of one range: more than any etcd holds by
/// default (2 GiB). They end the listing of a broken etcd that never ends it.
const KEYS_MAX: usize = 2_000_000;
const BYTES_MAX: usize = 2 << 30;
/// How many ranges are read at a time: while a page of one is on its way, etcd can
/// prepare a page of the other.
const RANGES_AT_ONCE: usize = 2;
/// How many keys are decoded before other tasks get their turn.
const AT_ONCE: usize = 500;
/// Panic message for a decoder that panics, which none may do.
const NO_PANIC: &str = "no value makes its decoder panic";

pub(super) async fn list<T: Send + 'static>(
    client: &Client,
    ranges: &[Range],
    read: impl Fn(Stored<'_>) -> T + Clone + Send + Sync + 'static,
) -> Result<Listing<T>, EtcdError> {
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE_MAX);
    // A read of one key, whether it exists or not. It is the cheapest request that only a
    // member with a leader can answer. A user with read permission for the prefix may make it.
    let key = ranges.first().map_or(vec![0], |range| range.start.clone());
    let first = bounded(CALL_TIMEOUT, kv.get(key, None)).await?;
    let header = first.header().ok_or_else(|| EtcdError("an answer without a header".into()))?;
    let (revision, cluster) = (header.revision(), header.cluster_id());
    let version = StoreVersion { revision, cluster };
    let list_one = |range: &Range| list_range(kv.clone(), range.clone(), version, read.clone());
    let listings: Vec<_> = ranges.iter().map(list_one).collect();
    let all: Vec<Vec<T>> = stream::iter(listings).buffered(RANGES_AT_ONCE).try_collect().await?;
    Ok(Listing { revision, cluster, all: all.into_iter().flatten().collect() })
}

/// The revision and cluster that all pages of one listing share.
#[derive(Clone, Copy)]
struct StoreVersion {
    revision: i64,
    cluster: u64,
}

/// Lists and decodes all keys of one range.
async fn list_range<T: Send + 'static>(
    mut kv: KvClient,
    range: Range,
    version: StoreVersion,
    read: impl Fn(Stored<'_>) -> T + Clone + Send + Sync + 'static,
) -> Result<Vec<T>, EtcdError> {
    let mut all = Vec::new();
    let mut limit = PAGE;
    let mut from = range.start.clone();
    let mut reading = None;
    let (mut keys, mut bytes) = (0, 0);
    loop {
        let named = |trouble| {
            EtcdError(format!(
                "{}: {trouble}",
                String::from_utf8_lossy(&range.start).escape_debug()
            ))
        };
        let got = get_page(&mut kv, from.clone(), &range, version.revision, &mut limit).await;
        let page = got.map_err(named)?;
        check(&page, &from, &range, version).map_err(named)?;
        keys += page.kvs().len();
        bytes += page.kvs().iter().map(|kv| kv.key().len() + kv.value().len()).sum::<usize>();
        if keys > KEYS_MAX || bytes > BYTES_MAX {
            return Err(named(EtcdError(format!("over {KEYS_MAX} keys or {BYTES_MAX} bytes"))));
        }
        // The first possible key after the last one.
        let last = page.kvs().last().filter(|_| page.more());
        let next = last.map(|last| [last.key(), &[0]].concat());
        let page = AbortOnDropHandle::new(tokio::spawn(read_page(page, read.clone())));
        if let Some(before) = reading.replace(page) {
            all.extend(before.await.expect(NO_PANIC));
        }
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    if let Some(last) = reading {
        all.extend(last.await.expect(NO_PANIC));
    }
    Ok(all)
}

/// Checks that a page can belong to this listing.
fn check(
    page: &GetResponse,
    from: &[u8],
    range: &Range,
    version: StoreVersion,
) -> Result<(), EtcdError> {
    let header = page.header().ok_or_else(|| EtcdError("an answer without a header".into()))?;
    if header.cluster_id() != version.cluster {
        return Err(EtcdError("another etcd cluster answered within a reading".into()));
    }
    if header.revision() < version.revision {
        let (now, version) = (header.revision(), version.revision);
        return Err(EtcdError(format!(
            "etcd went back from revision {version} to {now} while it was read"
        )));
    }
    if page.more() && page.kvs().is_empty() {
        return Err(EtcdError("a page without keys, and more to come".into()));
    }
    let mut least = from;
    for (index, kv) in page.kvs().iter().enumerate() {
        let key = kv.key();
        if key < least || (index > 0 && key == least) {
            return Err(EtcdError("keys do not rise".into()));
        }
        if !range.contains(key) {
            return Err(EtcdError("a key that was not asked for".into()));
        }
        if kv.mod_revision() > version.revision {
            return Err(EtcdError(format!(
                "a key of the future, of revision {}",
                kv.mod_revision()
            )));
        }
        least = key;
    }
    Ok(())
}

/// Decodes the keys of a page.
async fn read_page<T>(page: GetResponse, read: impl Fn(Stored<'_>) -> T) -> Vec<T> {
    let mut all = Vec::with_capacity(page.kvs().len());
    for some in page.kvs().chunks(AT_ONCE) {
        all.extend(some.iter().map(|kv| {
            let (lease, revision) = (kv.lease(), kv.mod_revision());
            read(Stored { key: kv.key(), value: kv.value(), lease, revision })
        }));
        tokio::task::yield_now().await;
    }
    all
}

/// Reads the page that begins at the key `from`. Halves `limit` while the page is too
/// long.
async fn get_page(
    kv: &mut KvClient,
    from: Vec<u8>,
    range: &Range,
    revision: i64,
    limit: &mut i64,
) -> Result<GetResponse, EtcdError> {
    loop {
        let options = GetOptions::new()
            .with_range(range.end.clone())
            .with_limit(*limit)
            .with_revision(revision);
        let call = async {
            match kv.get(from.clone(), Some(options)).await {
                Err(error) if too_long(&error) => Ok(None),
                answer => answer.map(Some),
            }
        };
        match bounded(PAGE_TIMEOUT, call).await? {
            Some(page) => return Ok(page),
            None if *limit == 1 => {
                return Err(EtcdError(format!(
                    "a single value is longer than {MESSAGE_MAX} bytes"
                )));
            }
            None => *limit /= 2,
        }
    }
}

/// This is tonic's own error; etcd uses the same code for a compacted revision.
fn too_long(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.code() == tonic::Code::OutOfRange && status.message().contains("too large"))
}
