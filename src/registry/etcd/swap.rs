//! Reads one key, and writes it only if nobody else has meanwhile.
//!
//! In: a key, a value, and the revision at which the key was read. Out: whether it was
//! written. Tries each endpoint once.

use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp};

use super::connect::{CALL_TIMEOUT, Connect, Trouble, bounded};

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
    let read = async |mut client: Client| {
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
