//! Reads and writes single keys in etcd.
//!
//! In: a key, a value, and for `swap` the revision at which the key was read. Out:
//! etcd's answer, or the error of the last endpoint.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};

use super::connect::{CALL_TIMEOUT, Connect, EtcdError, bounded};

/// etcd's error for a user without the right.
const DENIED: &str = "permission denied";

/// A key's value, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub revision: i64,
}

/// Reads the key; `None` if it does not exist. Each endpoint is tried once.
///
/// # Errors
/// If no endpoint answers: the error of the last one.
pub async fn get(connect: &Connect, key: &str) -> Result<Option<Found>, EtcdError> {
    let read = |mut client: Client| async move {
        let options = GetOptions::new().with_limit(1);
        let found = bounded(CALL_TIMEOUT, client.get(key, Some(options))).await?;
        let found = found.kvs().first();
        Ok(found.map(|kv| Found { value: kv.value().to_vec(), revision: kv.mod_revision() }))
    };
    connect.first_answer(read).await
}

/// Writes the key if its revision is still `revision` (0: if it does not exist).
/// Returns the revision of the write, or `None` if another process wrote the key first.
/// Writes at one endpoint only: after a failed call it is unknown whether the write
/// happened.
///
/// # Errors
/// If the endpoint does not answer.
pub async fn swap(
    connect: &Connect,
    key: &str,
    value: &str,
    revision: i64,
) -> Result<Option<i64>, EtcdError> {
    let mut attempt = 0;
    let mut client = loop {
        match connect.client(attempt).await {
            Err(_) if attempt + 1 < connect.endpoints() => attempt += 1,
            client => break client?,
        }
    };
    let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
    let write = Txn::new().when([unchanged]).and_then([TxnOp::put(key, value, None)]);
    let answer = bounded(CALL_TIMEOUT, client.txn(write)).await?;
    let written = answer.header().map_or(0, |header| header.revision());
    Ok(answer.succeeded().then_some(written))
}

/// Writes the key, whoever wrote it before. With a `ttl`, etcd deletes it after that
/// time. Writing twice does no harm, so each endpoint is tried in turn.
///
/// # Errors
/// If no endpoint writes it: the error of the last one.
pub async fn put(
    connect: &Connect,
    key: &str,
    value: &str,
    ttl: Option<Duration>,
) -> Result<(), EtcdError> {
    let write = |mut client: Client| async move {
        let mut options = PutOptions::new();
        let mut lease = None;
        if let Some(ttl) = ttl {
            let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            let granted = bounded(CALL_TIMEOUT, client.lease_grant(seconds, None)).await?;
            lease = Some(granted.id());
            options = options.with_lease(granted.id());
        }
        let put = bounded(CALL_TIMEOUT, client.put(key, value, Some(options))).await;
        if let (Err(EtcdError(reason)), Some(lease)) = (&put, lease)
            && is_denial(reason)
        {
            // No key uses this lease. After any other failure one may.
            let _ = bounded(CALL_TIMEOUT, client.lease_revoke(lease)).await;
        }
        put.map(drop)
    };
    connect.first_answer(write).await
}

/// Returns whether etcd refused because the user lacks the right: a retry does not
/// help.
#[must_use]
pub fn is_denial(reason: &str) -> bool {
    reason.contains(DENIED)
}
