//! The one member: the store, and word of what changes in it.
//!
//! In: calls of the services. Out: the store for the length of one call, headers
//! with the server's identity, wake-ups for watchers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use etcd_client::proto as pb;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::REQUEST_MAX;
use super::data::Data;
use super::store::{Store, StoreError};
use crate::clock;

/// There was one election, and this member won it.
pub(super) const RAFT_TERM: u64 = 1;

/// What all services of one server share.
#[derive(Clone)]
pub(super) struct Node(Arc<Shared>);

struct Shared {
    data: Data,
    /// The newest revision.
    newest_tx: watch::Sender<i64>,
    /// When the next lease ends.
    deadline_tx: watch::Sender<Option<Instant>>,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Node {
    /// The server of that data from here on.
    pub(super) fn new(data: Data, address: SocketAddr, stop: CancellationToken) -> Self {
        data.resume();
        let (newest, deadline) = data.with(|store| (store.revision(), store.next_deadline()));
        let (newest_tx, deadline_tx) = (watch::Sender::new(newest), watch::Sender::new(deadline));
        Self(Arc::new(Shared { data, newest_tx, deadline_tx, address, stop }))
    }

    /// Lends the store as it is now: leases whose time is over have ended. What
    /// the call changed is known to watchers when it returns.
    ///
    /// # Panics
    /// When an earlier call did: the store may be half changed.
    pub(super) fn with<T>(&self, call: impl FnOnce(&mut Store, Instant) -> T) -> T {
        self.0.data.with(|store| {
            let now = clock::now();
            store.expire(now);
            let answer = call(store, now);
            replace(&self.0.newest_tx, store.revision());
            replace(&self.0.deadline_tx, store.next_deadline());
            answer
        })
    }

    /// Ends leases when their time is over, whether anybody calls or not.
    pub(super) async fn expire_leases(&self) {
        let mut deadline_rx = self.0.deadline_tx.subscribe();
        loop {
            let deadline = *deadline_rx.borrow_and_update();
            tokio::select! {
                _ = deadline_rx.changed() => {}
                () = until(deadline) => self.with(|_, _| ()),
            }
        }
    }

    /// Tells of every newer revision.
    pub(super) fn newest(&self) -> watch::Receiver<i64> {
        self.0.newest_tx.subscribe()
    }

    /// Resolves when the server is to stop.
    pub(super) async fn stopped(&self) -> Status {
        self.0.stop.cancelled().await;
        Status::unavailable("etcdserver: server stopped")
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(super) fn member_id(&self) -> u64 {
        self.0.data.member_id()
    }

    /// Completes a header that knows its revision.
    pub(super) fn sign(&self, header: &mut Option<pb::PbResponseHeader>) {
        let header = header.get_or_insert_default();
        header.cluster_id = self.0.data.cluster_id();
        header.member_id = self.0.data.member_id();
        header.raft_term = RAFT_TERM;
    }
}

/// Refuses what etcd would not take into its log.
pub(super) fn check_size(request: &impl prost::Message) -> Result<(), Status> {
    if request.encoded_len() > REQUEST_MAX {
        return Err(Status::invalid_argument("etcdserver: request is too large"));
    }
    Ok(())
}

impl From<StoreError> for Status {
    /// The codes are etcd's own (api/v3rpc/rpctypes/error.go).
    fn from(error: StoreError) -> Self {
        use StoreError as E;
        let code = match error {
            E::EmptyKey | E::KeyNotFound | E::ValueProvided | E::LeaseProvided => {
                Code::InvalidArgument
            }
            E::TooManyOps | E::DuplicateKey => Code::InvalidArgument,
            E::Compacted | E::FutureRevision | E::LeaseTtlTooLarge => Code::OutOfRange,
            E::NoSpace => Code::ResourceExhausted,
            E::LeaseNotFound => Code::NotFound,
            E::LeaseExists => Code::FailedPrecondition,
        };
        Self::new(code, error.to_string())
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|old| {
        let differs = *old != value;
        *old = value;
        differs
    });
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
