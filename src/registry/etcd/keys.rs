//! Reads and writes single keys in etcd.
//!
//! In: a key, a value, and where it matters the revision at which the key was read. Out:
//! what etcd says. Tries each endpoint once.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};

use super::connect::{CALL_TIMEOUT, Connect, Trouble, bounded};

/// What etcd says to a user who may not do something.
const DENIED: &str = "permission denied";

/// A key as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that wrote it.
    pub revision: i64,
}

/// The key, if there is one.
///
/// # Errors
/// When no endpoint answers: what the last one said.
pub async fn get(connect: &Connect, key: &str) -> Result<Option<Found>, Trouble> {
    let read = |mut client: Client| async move {
        let options = GetOptions::new().with_limit(1);
        let found = bounded(CALL_TIMEOUT, client.get(key, Some(options))).await?;
        let found = found.kvs().first();
        Ok(found.map(|kv| Found { value: kv.value().to_vec(), revision: kv.mod_revision() }))
    };
    connect.first_answer(read).await
}

/// Writes the key if it is still of that revision (0: if there is none). Returns the
/// revision that wrote it; `None` if somebody else was first. Asks one endpoint only:
/// after a call that failed nobody knows whether it was done.
///
/// # Errors
/// When the endpoint does not answer.
pub async fn swap(
    connect: &Connect,
    key: &str,
    value: &str,
    revision: i64,
) -> Result<Option<i64>, Trouble> {
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

/// Writes the key, whoever wrote it before. With a time to live etcd deletes it when that
/// is over. To do it twice does no harm, so each endpoint is asked in turn.
///
/// # Errors
/// When no endpoint does it: what the last one said.
pub async fn put(
    connect: &Connect,
    key: &str,
    value: &str,
    ttl: Option<Duration>,
) -> Result<(), Trouble> {
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
        if let (Err(Trouble(reason)), Some(lease)) = (&put, lease)
            && is_denial(reason)
        {
            // Nothing hangs on it. After any other failure something may.
            let _ = bounded(CALL_TIMEOUT, client.lease_revoke(lease)).await;
        }
        put.map(drop)
    };
    connect.first_answer(write).await
}

/// Whether etcd refuses because the user may not do it: asking again does not help.
#[must_use]
pub fn is_denial(reason: &str) -> bool {
    reason.contains(DENIED)
}
