//! Reads every key of some ranges as they were at one revision.
//!
//! In: a client, ranges, and what to make of a key. Out: what was made of them,
//! the revision, and whose store it is.
//! Pages are pinned to the revision of the first answer, so that 100,000 keys
//! are one consistent whole; a page too big to be read is asked for in halves.
//! etcd looks for pages while those before them are made something of. Never
//! serves a member's own, possibly old, idea of the store, and believes no page
//! that cannot be of that reading: of another cluster, of an older or a later
//! state, with keys that do not rise, or without end.

use std::time::Duration;

use etcd_client::{Client, GetOptions, GetResponse, KvClient};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use super::connect::{CALL_TIMEOUT, MESSAGE_MAX, Trouble, bounded};
use super::prefixes::{Range, Stored};

/// A consistent reading.
#[derive(Debug)]
pub(super) struct Listing<T> {
    pub(super) revision: i64,
    /// Which etcd cluster it came from.
    pub(super) cluster: u64,
    pub(super) all: Vec<T>,
}

/// Keys per page. etcd 3.4 visits all remaining keys for each page to count
/// them, so small pages make a long list quadratic.
const PAGE: i64 = 5_000;
/// One page may be [`MESSAGE_MAX`] long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// So many keys of a range are read, and so many bytes of them: more than any
/// etcd holds by default (2 GiB), and an end where a broken one has none.
const KEYS_MAX: usize = 2_000_000;
const BYTES_MAX: usize = 2 << 30;
/// So many ranges are read at a time: while one's page is on its way, etcd has
/// another to look for.
const LANES: usize = 2;
/// So many keys are read before others get their turn.
const AT_ONCE: usize = 500;
/// What is expected of whatever makes something of a value.
const NO_PANIC: &str = "no value makes its reader panic";

pub(super) async fn list<T: Send + 'static>(
    client: &Client,
    ranges: &[Range],
    read: impl Fn(Stored<'_>) -> T + Clone + Send + Sync + 'static,
) -> Result<Listing<T>, Trouble> {
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE_MAX);
    // One key, present or not: the cheapest question that only a member with a
    // leader can answer, and one that whoever may read the prefix may ask.
    let key = ranges.first().map_or(vec![0], |range| range.start.clone());
    let first = bounded(CALL_TIMEOUT, kv.get(key, None)).await?;
    let header = first.header().ok_or_else(|| Trouble("an answer without a header".into()))?;
    let (revision, cluster) = (header.revision(), header.cluster_id());
    let pin = Pin { revision, cluster };
    let lane = |range: &Range| lane(kv.clone(), range.clone(), pin, read.clone());
    let lanes: Vec<_> = ranges.iter().map(lane).collect();
    let all: Vec<Vec<T>> = stream::iter(lanes).buffered(LANES).try_collect().await?;
    Ok(Listing { revision, cluster, all: all.into_iter().flatten().collect() })
}

/// What all pages of one reading have in common.
#[derive(Clone, Copy)]
struct Pin {
    revision: i64,
    cluster: u64,
}

/// All of a range.
async fn lane<T: Send + 'static>(
    mut kv: KvClient,
    range: Range,
    pin: Pin,
    read: impl Fn(Stored<'_>) -> T + Clone + Send + Sync + 'static,
) -> Result<Vec<T>, Trouble> {
    let mut all = Vec::new();
    let mut limit = PAGE;
    let mut from = range.start.clone();
    let mut reading = None;
    let (mut keys, mut bytes) = (0, 0);
    loop {
        let named = |trouble| {
            Trouble(format!("{}: {trouble}", String::from_utf8_lossy(&range.start).escape_debug()))
        };
        let got = get_page(&mut kv, from.clone(), &range, pin.revision, &mut limit).await;
        let page = got.map_err(named)?;
        check(&page, &from, &range, pin).map_err(named)?;
        keys += page.kvs().len();
        bytes += page.kvs().iter().map(|kv| kv.key().len() + kv.value().len()).sum::<usize>();
        if keys > KEYS_MAX || bytes > BYTES_MAX {
            return Err(named(Trouble(format!("over {KEYS_MAX} keys or {BYTES_MAX} bytes"))));
        }
        // The first key after the last one.
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

/// Whether a page can be a part of the reading.
fn check(page: &GetResponse, from: &[u8], range: &Range, pin: Pin) -> Result<(), Trouble> {
    let header = page.header().ok_or_else(|| Trouble("an answer without a header".into()))?;
    if header.cluster_id() != pin.cluster {
        return Err(Trouble("another etcd cluster answered within a reading".into()));
    }
    if header.revision() < pin.revision {
        let (now, pin) = (header.revision(), pin.revision);
        return Err(Trouble(format!(
            "etcd went back from revision {pin} to {now} while it was read"
        )));
    }
    if page.more() && page.kvs().is_empty() {
        return Err(Trouble("a page without keys, and more to come".into()));
    }
    let mut least = from;
    for (index, kv) in page.kvs().iter().enumerate() {
        let key = kv.key();
        if key < least || (index > 0 && key == least) {
            return Err(Trouble("keys do not rise".into()));
        }
        if !range.contains(key) {
            return Err(Trouble("a key that was not asked for".into()));
        }
        if kv.mod_revision() > pin.revision {
            return Err(Trouble(format!("a key of the future, of revision {}", kv.mod_revision())));
        }
        least = key;
    }
    Ok(())
}

/// What is made of a page's keys.
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

/// A page from that key on, of as many keys as are not too long together.
async fn get_page(
    kv: &mut KvClient,
    from: Vec<u8>,
    range: &Range,
    revision: i64,
    limit: &mut i64,
) -> Result<GetResponse, Trouble> {
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
                return Err(Trouble(format!("a single value is longer than {MESSAGE_MAX} bytes")));
            }
            None => *limit /= 2,
        }
    }
}

/// tonic's own refusal; etcd uses the same code for a compacted revision.
fn too_long(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.code() == tonic::Code::OutOfRange && status.message().contains("too large"))
}
