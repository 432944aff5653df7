//! An in-memory store with etcd's semantics: keys with revisions, transactions, leases.
//!
//! In: requests of etcd's v3 API, one at a time, and the time. Out: responses whose headers
//! have only the revision, or a [`StoreError`]. Pure: it never waits, and uses no clock or
//! randomness of its own. Its memory is bounded.

mod cost;
mod error;
mod history;
mod leases;
mod range;
mod span;
mod txn;
mod users;

use std::sync::Arc;
use std::time::Instant;

use etcd_client::proto as pb;

use history::History;
use leases::Leases;
use txn::Plan;

pub(super) use error::StoreError;
pub(super) use history::Change;
#[cfg(test)]
pub(super) use history::{KEPT_BYTES, KEPT_REVISIONS};
pub(super) use span::Span;
pub(super) use users::Users;

/// The bytes of current keys and values beyond which writes are refused. A hundred thousand
/// registrations of 1 KiB take 120 MiB; larger systems use a cluster.
pub(super) const QUOTA: usize = 256 * 1024 * 1024;

/// Keys, leases and users, with the recent history of keys.
#[derive(Clone)]
pub(super) struct Store {
    history: History,
    leases: Leases,
    users: Users,
}

impl Store {
    /// Returns an empty store at revision 1. The seed determines the lease ids that it chooses.
    pub(super) fn new(seed: u64) -> Self {
        Self { history: History::new(), leases: Leases::new(seed), users: Users::default() }
    }

    /// Returns the newest revision.
    pub(super) fn revision(&self) -> i64 {
        self.history.revision()
    }

    /// Returns the revision of the last compaction, the oldest that can be read; 0 for none.
    pub(super) fn compacted(&self) -> i64 {
        self.history.compacted()
    }

    /// Returns the bytes of keys, values and history, and those of current keys and values.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let live = self.history.live_bytes();
        (live + self.history.log_bytes(), live)
    }

    /// Returns the length of a key and its value at a revision in an event, with overhead, in
    /// bytes; 0 if the key did not exist.
    pub(super) fn length_at(&self, key: &[u8], revision: i64) -> usize {
        if range::check_revision(revision, &self.history).is_err() {
            return 0;
        }
        let record = self.history.at(key, revision);
        record.map_or(0, |record| record.key.len() + record.value().len() + 64)
    }

    /// Returns a checksum of all keys at a revision (0: the newest). It differs from etcd's,
    /// which depends on etcd's storage format.
    pub(super) fn hash(&self, revision: i64) -> Result<u32, StoreError> {
        range::check_revision(revision, &self.history)?;
        let at = if revision > 0 { revision } else { self.revision() };
        let mut hash = crc32fast::Hasher::new();
        for record in self.history.scan(&Span::new(&[0], &[0]), at) {
            hash.update(record.key);
            hash.update(record.value());
            hash.update(&record.modified.to_be_bytes());
        }
        Ok(hash.finalize())
    }

    /// Returns users and roles.
    pub(super) fn users(&mut self) -> &mut Users {
        &mut self.users
    }

    /// Returns the changes of a revision; `None` for a compacted or future revision.
    pub(super) fn changes(&self, revision: i64) -> Option<&[Change]> {
        self.history.changes(revision)
    }

    /// Returns a key at a revision; `None` if it did not exist or the revision is compacted.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<pb::PbKeyValue> {
        range::check_revision(revision, &self.history).ok()?;
        self.history.at(key, revision).map(history::Record::to_pb)
    }

    /// Returns a key at the newest revision.
    pub(super) fn now(&self, key: &[u8]) -> Option<pb::PbKeyValue> {
        self.history.at(key, self.revision()).map(history::Record::to_pb)
    }

    /// Returns the oldest key in a span.
    pub(super) fn first_created(&self, span: &Span) -> Option<pb::PbKeyValue> {
        let keys = self.history.scan(span, self.revision());
        keys.min_by_key(history::Record::created).map(history::Record::to_pb)
    }

    /// Returns the newest key in a span among those created at or before the revision `until`,
    /// with the revision that created it.
    pub(super) fn last_created(&self, span: &Span, until: i64) -> Option<(Vec<u8>, i64)> {
        let keys = self.history.scan(span, self.revision());
        let keys = keys.filter(|record| record.created() <= until);
        keys.max_by_key(history::Record::created)
            .map(|record| (record.key.to_vec(), record.created()))
    }

    /// Reads keys.
    pub(super) fn range(
        &self,
        request: &pb::PbRangeRequest,
    ) -> Result<pb::PbRangeResponse, StoreError> {
        range::check(request)?;
        range::range(request, &self.history)
    }

    /// Writes a key. This makes one revision.
    pub(super) fn put(&mut self, put: pb::PbPutRequest) -> Result<pb::PbPutResponse, StoreError> {
        check_put(&put)?;
        self.check_space()?;
        self.check_put_now(&put)?;
        let response = self.write(put);
        self.history.commit();
        response
    }

    /// Deletes keys. This makes one revision if any key exists.
    pub(super) fn delete(
        &mut self,
        request: &pb::PbDeleteRequest,
    ) -> Result<pb::PbDeleteResponse, StoreError> {
        check_delete(request)?;
        let response = self.erase(request);
        self.history.commit();
        Ok(response)
    }

    /// Runs a transaction. This makes one revision if it writes.
    pub(super) fn txn(
        &mut self,
        request: pb::PbTxnRequest,
    ) -> Result<pb::PbTxnResponse, StoreError> {
        txn::check(&request)?;
        if txn::may_write(&request) {
            self.check_space()?;
        }
        let plan = Plan::new(request, self);
        plan.check(self)?;
        let response = plan.run(self);
        self.history.commit();
        Ok(pb::PbTxnResponse { header: header(self.revision()), ..response? })
    }

    /// Removes the history before the request's revision.
    pub(super) fn compact(
        &mut self,
        request: &pb::PbCompactionRequest,
    ) -> Result<pb::PbCompactionResponse, StoreError> {
        if request.revision <= self.history.compacted() {
            return Err(StoreError::Compacted);
        }
        if request.revision > self.revision() {
            return Err(StoreError::FutureRevision);
        }
        self.history.compact(request.revision);
        Ok(pb::PbCompactionResponse { header: header(self.revision()) })
    }

    /// Grants a lease.
    pub(super) fn grant(
        &mut self,
        request: &pb::PbLeaseGrantRequest,
        now: Instant,
    ) -> Result<pb::PbLeaseGrantResponse, StoreError> {
        self.check_space()?;
        let (id, ttl) = self.leases.grant(request.id, request.ttl, now)?;
        let header = header(self.revision());
        Ok(pb::PbLeaseGrantResponse { header, id, ttl, error: String::new() })
    }

    /// Ends a lease and deletes its keys. This makes one revision if there are any.
    pub(super) fn revoke(
        &mut self,
        request: &pb::PbLeaseRevokeRequest,
    ) -> Result<pb::PbLeaseRevokeResponse, StoreError> {
        let keys = self.leases.remove(request.id).ok_or(StoreError::LeaseNotFound)?;
        for key in &keys {
            self.history.delete(key);
        }
        self.history.commit();
        Ok(pb::PbLeaseRevokeResponse { header: header(self.revision()) })
    }

    /// Renews a lease. The answer has a TTL of 0 if there is no such lease.
    pub(super) fn keep_alive(
        &mut self,
        request: &pb::PbLeaseKeepAliveRequest,
        now: Instant,
    ) -> pb::PbLeaseKeepAliveResponse {
        let ttl = self.leases.renew(request.id, now).unwrap_or(0);
        pb::PbLeaseKeepAliveResponse { header: header(self.revision()), id: request.id, ttl }
    }

    /// Renews every lease.
    pub(super) fn renew_all(&mut self, now: Instant) {
        let ids: Vec<_> = self.leases.ids().collect();
        for id in ids {
            self.leases.renew(id, now);
        }
    }

    /// Returns the state of a lease. The answer has a TTL of -1 if there is no such lease.
    pub(super) fn time_to_live(
        &self,
        request: &pb::PbLeaseTimeToLiveRequest,
        now: Instant,
    ) -> pb::PbLeaseTimeToLiveResponse {
        let header = header(self.revision());
        let id = request.id;
        let Some(lease) = self.leases.status(id, now) else {
            return pb::PbLeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() };
        };
        let keys = lease.keys.iter().filter(|_| request.keys).map(|key| key.to_vec()).collect();
        let (ttl, granted_ttl) = (lease.ttl, lease.granted);
        pb::PbLeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys }
    }

    /// Returns all leases.
    pub(super) fn leases(&self) -> pb::PbLeaseLeasesResponse {
        let leases = self.leases.ids().map(|id| pb::PbLeaseStatus { id }).collect();
        pb::PbLeaseLeasesResponse { header: header(self.revision()), leases }
    }

    /// Ends every lease whose time is over. This makes one revision for each that had keys.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(id) = self.leases.due(now) {
            let _ = self.revoke(&pb::PbLeaseRevokeRequest { id });
        }
    }

    /// Returns the time at which the next lease ends if none is renewed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.leases.next_deadline()
    }

    /// Returns the error of a put that depends on the store's content.
    fn check_put_now(&self, put: &pb::PbPutRequest) -> Result<(), StoreError> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.history.at(&put.key, self.revision()).is_none() {
            return Err(StoreError::KeyNotFound);
        }
        if put.lease != 0 && !self.leases.contains(put.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        Ok(())
    }

    fn check_space(&self) -> Result<(), StoreError> {
        if self.history.live_bytes() > QUOTA { Err(StoreError::NoSpace) } else { Ok(()) }
    }

    /// Runs a put that has been checked. The caller commits.
    fn write(&mut self, put: pb::PbPutRequest) -> Result<pb::PbPutResponse, StoreError> {
        let before = self.history.at(&put.key, self.revision());
        let prev_kv = before.filter(|_| put.prev_kv).map(history::Record::to_pb);
        let key = before.map_or_else(|| Arc::from(put.key), |before| before.key.clone());
        let (mut value, mut lease) = (None, put.lease);
        if put.ignore_value {
            value = Some(before.ok_or(StoreError::KeyNotFound)?.shared_value());
        }
        if put.ignore_lease {
            lease = before.ok_or(StoreError::KeyNotFound)?.lease();
        }
        let value = value.unwrap_or_else(|| Arc::from(put.value));
        let old_lease = self.history.put(&key, value, lease);
        if old_lease != lease {
            self.leases.detach(old_lease, &key);
        }
        self.leases.attach(lease, &key);
        Ok(pb::PbPutResponse { header: header(self.revision()), prev_kv })
    }

    /// Runs a deletion that has been checked. The caller commits.
    fn erase(&mut self, request: &pb::PbDeleteRequest) -> pb::PbDeleteResponse {
        let span = Span::new(&request.key, &request.range_end);
        let mut keys = Vec::new();
        let mut prev_kvs = Vec::new();
        for record in self.history.scan(&span, self.revision()) {
            keys.push(record.key.clone());
            if request.prev_kv {
                prev_kvs.push(record.to_pb());
            }
        }
        for key in &keys {
            if let Some(lease) = self.history.delete(key) {
                self.leases.detach(lease, key);
            }
        }
        let deleted = keys.len() as i64;
        pb::PbDeleteResponse { header: header(self.revision()), deleted, prev_kvs }
    }
}

fn check_put(put: &pb::PbPutRequest) -> Result<(), StoreError> {
    if put.key.is_empty() {
        Err(StoreError::EmptyKey)
    } else if put.ignore_value && !put.value.is_empty() {
        Err(StoreError::ValueProvided)
    } else if put.ignore_lease && put.lease != 0 {
        Err(StoreError::LeaseProvided)
    } else {
        Ok(())
    }
}

fn check_delete(delete: &pb::PbDeleteRequest) -> Result<(), StoreError> {
    if delete.key.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
}

/// Returns a header with the revision. The server adds its identity.
fn header(revision: i64) -> Option<pb::PbResponseHeader> {
    Some(pb::PbResponseHeader { revision, ..Default::default() })
}
