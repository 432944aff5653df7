//! The queue behind etcd's locks and elections: keys below a prefix, each with a lease. The
//! owner of the oldest key is first.
//!
//! In: a name, a lease, a value. Out: a place in the queue, and a future that resolves when
//! the place is first. A place that is given up while it waits removes its key.

use etcd_client::proto as pb;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status};

use super::node::Node;
use super::store::{Span, Store, StoreError};

/// The TTL of a lease for a client without one, in seconds, as in etcd's sessions.
const SESSION_TTL: i64 = 60;

/// A place in a queue. Dropping it gives it up, unless [`Place::keep`] was called.
pub(super) struct Place {
    node: Node,
    /// The prefix of all keys in the queue.
    prefix: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) lease: i64,
    /// The revision that created the key.
    pub(super) created: i64,
    /// The store's revision when the place was taken.
    pub(super) revision: i64,
    kept: bool,
    /// The reservation for a waiting call.
    _permit: OwnedSemaphorePermit,
}

/// Returns an error as etcd's lock library does. It is a client of etcd and drops the codes
/// of errors, so the code is always `UNKNOWN`.
pub(super) fn failed(error: impl std::fmt::Display) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

/// Returns the prefix of the queue with this name.
pub(super) fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// Returns the span of all keys below a prefix. The end `\0` means "all that follow", for a
/// prefix of 0xff bytes only.
pub(super) fn below(prefix: &[u8]) -> Span {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Span::new(prefix, &end);
        }
    }
    Span::new(prefix, &[0])
}

impl Node {
    /// Starts a session: renews its lease, as etcd does, or grants a new one for 0. Returns
    /// the lease's id.
    pub(super) fn session(&self, lease: i64) -> Result<i64, Status> {
        self.with(|store, now| {
            if lease == 0 {
                let request = pb::PbLeaseGrantRequest { id: 0, ttl: SESSION_TTL };
                return Ok(store.grant(&request, now).map_err(failed)?.id);
            }
            store.keep_alive(&pb::PbLeaseKeepAliveRequest { id: lease }, now);
            Ok(lease)
        })
    }

    /// Takes a place in the queue, or returns the place that this lease already has.
    pub(super) fn queue(&self, name: &[u8], lease: i64, value: Vec<u8>) -> Result<Place, Status> {
        // The bytes of the prefix, the key, and the key of the place before.
        let permit = self.wait_for(name.len() * 3 + value.len());
        let permit =
            permit.ok_or_else(|| Status::resource_exhausted("etcdserver: too many requests"))?;
        let lease = self.session(lease)?;
        let prefix = prefix(name);
        let sign = if lease < 0 { "-" } else { "" };
        let key = [&prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat();
        let taken = self.with(|store, _| match store.now(&key) {
            Some(mine) => {
                let revision = store.revision();
                if mine.value != value {
                    put(store, &key, value, lease)?;
                }
                Ok((mine.create_revision, revision))
            }
            None => {
                put(store, &key, value, lease)?;
                Ok::<_, StoreError>((store.revision(), store.revision()))
            }
        });
        let (created, revision) = taken.map_err(failed)?;
        let (node, kept) = (self.clone(), false);
        Ok(Place { node, prefix, key, lease, created, revision, kept, _permit: permit })
    }
}

impl Place {
    /// Waits until no older key is left in the queue.
    pub(super) async fn first(&self) -> Result<(), Status> {
        let span = below(&self.prefix);
        let mut newest_rx = self.node.newest();
        // For each change, only one of the older keys is checked, until it is deleted.
        let mut before: Option<(Vec<u8>, i64)> = None;
        loop {
            newest_rx.borrow_and_update();
            let waits = self.node.with(|store, _| {
                let there = before.take().filter(|(key, created)| {
                    store.now(key).is_some_and(|kv| kv.create_revision == *created)
                });
                before = there.or_else(|| store.last_created(&span, self.created - 1));
                before.is_some()
            });
            if !waits {
                return Ok(());
            }
            tokio::select! {
                changed = newest_rx.changed() => changed.map_err(|_| failed("server stopped"))?,
                stopped = self.node.stopped() => return Err(stopped),
            }
        }
    }

    /// Keeps the key when the place is dropped. From then on the lease holds it.
    pub(super) fn keep_key(mut self) -> Self {
        self.kept = true;
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.node.with(|store, _| {
            if store.now(&self.key).is_some_and(|kv| kv.create_revision == self.created) {
                let key = self.key.clone();
                let _ = store.delete(&pb::PbDeleteRequest { key, ..Default::default() });
            }
        });
    }
}

/// Writes a key under a lease.
pub(super) fn put(
    store: &mut Store,
    key: &[u8],
    value: Vec<u8>,
    lease: i64,
) -> Result<(), StoreError> {
    let key = key.to_vec();
    store.put(pb::PbPutRequest { key, value, lease, ..Default::default() }).map(drop)
}
