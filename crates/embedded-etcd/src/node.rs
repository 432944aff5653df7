//! The state that all services of a server share.
//!
//! In: calls of the services. Out: access to the store for one call at a time, answers
//! within the limit of bytes in flight, headers with the server's identity, and wake-ups
//! for watchers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use etcd_client::proto as pb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::REQUEST_MAX;
use super::connection::Peer;
use super::data::Data;
use super::message_budget::{MessageBudget, Reservation, Share};
use super::outgoing::AnswerReservations;
use super::store::{Store, StoreError};

/// The Raft term in all headers. As with a new cluster, there was one election.
pub(super) const RAFT_TERM: u64 = 1;
/// The most bytes of watchers and waiting calls, over all connections: a hundred thousand
/// watchers with keys of usual length.
const WAITING_MAX: usize = 32 * 1024 * 1024;
/// The cost of a watcher or a waiting call beside its keys, in bytes.
const WAITING: usize = 256;
/// An answer of up to this many bytes needs no reservation: its overhead costs more.
const FREE: usize = 1024;

/// A handle to the shared state. Clones share it.
#[derive(Clone)]
pub(super) struct Node(Arc<Shared>);

struct Shared {
    data: Data,
    /// The newest revision.
    newest_tx: watch::Sender<i64>,
    /// The time at which the next lease ends.
    deadline_tx: watch::Sender<Option<Instant>>,
    address: SocketAddr,
    stop: CancellationToken,
    /// The answers in flight.
    answers: MessageBudget,
    /// The bytes left for watchers and waiting calls.
    waiting: Arc<Semaphore>,
}

impl Node {
    /// Returns the state of a new server of `data`. All leases start with their full time.
    pub(super) fn new(data: Data, address: SocketAddr, stop: CancellationToken) -> Self {
        data.resume(now());
        let (newest, deadline) = data.with(|store| (store.revision(), store.next_deadline()));
        let (newest_tx, deadline_tx) = (watch::Sender::new(newest), watch::Sender::new(deadline));
        let (answers, waiting) = (MessageBudget::default(), Arc::new(Semaphore::new(WAITING_MAX)));
        let shared = Shared { data, newest_tx, deadline_tx, address, stop, answers, waiting };
        Self(Arc::new(shared))
    }

    /// Calls `call` with the store, after ending the leases whose time is over. Notifies
    /// watchers of the changes before it returns.
    ///
    /// # Panics
    /// Panics if an earlier call panicked, because the store may be half changed.
    pub(super) fn with<T>(&self, call: impl FnOnce(&mut Store, Instant) -> T) -> T {
        self.0.data.with(|store| {
            let now = now();
            store.expire(now);
            let answer = call(store, now);
            replace(&self.0.newest_tx, store.revision());
            replace(&self.0.deadline_tx, store.next_deadline());
            answer
        })
    }

    /// Answers a request once there is room for the longest possible answer. `cost` returns
    /// that length in bytes.
    pub(super) async fn answer<R, T>(
        &self,
        request: Request<R>,
        cost: impl Fn(&R, &Store) -> usize,
        run: impl FnOnce(R, &mut Store, Instant) -> Result<T, StoreError>,
    ) -> Result<Response<T>, Status> {
        let share = share(&request);
        let mut asked = Some((request.into_inner(), run));
        let mut reservation: Option<Reservation> = None;
        loop {
            let room = reservation.as_ref().map_or(FREE, Reservation::bytes);
            // The store may have grown during the wait, so the cost is computed again.
            let outcome = self.with(|store, now| {
                let (request, run) = asked.take()?;
                let needed = cost(&request, store);
                if needed <= room {
                    return Some(Ok(run(request, store, now)));
                }
                asked = Some((request, run));
                Some(Err(needed))
            });
            match outcome {
                Some(Ok(answer)) => {
                    let reservations = AnswerReservations::default();
                    reservation.into_iter().for_each(|reservation| reservations.add(reservation));
                    let mut response = Response::new(answer?);
                    response.extensions_mut().insert(reservations);
                    return Ok(response);
                }
                Some(Err(needed)) => {
                    drop(reservation.take());
                    reservation = Some(self.reserve(needed, &share).await?);
                }
                None => return Err(Status::internal("answered twice")),
            }
        }
    }

    /// Reserves an answer's bytes. Waits for room; fails if there is none in time or if the
    /// server stops.
    pub(super) async fn reserve(&self, bytes: usize, share: &Share) -> Result<Reservation, Status> {
        tokio::select! {
            reservation = self.0.answers.reserve(bytes, share) => reservation,
            stopped = self.stopped() => Err(stopped),
        }
    }

    /// Reserves `bytes` for a watcher or a waiting call. Returns `None` if there is no room.
    pub(super) fn wait_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes + WAITING).ok()?;
        self.0.waiting.clone().try_acquire_many_owned(bytes).ok()
    }

    /// Ends leases when their time is over, also while no request comes. Never returns.
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

    /// Returns a receiver of the newest revision.
    pub(super) fn newest(&self) -> watch::Receiver<i64> {
        self.0.newest_tx.subscribe()
    }

    /// Resolves when the server must stop. Returns the status for open streams.
    pub(super) async fn stopped(&self) -> Status {
        self.0.stop.cancelled().await;
        Status::unavailable("etcdserver: server stopped")
    }

    /// Returns the address of the server.
    pub(super) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(super) fn member_id(&self) -> u64 {
        self.0.data.member_id()
    }

    /// Returns the header of a response at a revision.
    pub(super) fn header(&self, revision: i64) -> Option<pb::PbResponseHeader> {
        let mut header = Some(pb::PbResponseHeader { revision, ..Default::default() });
        self.sign(&mut header);
        header
    }

    /// Adds the server's identity to a header that has its revision.
    pub(super) fn sign(&self, header: &mut Option<pb::PbResponseHeader>) {
        let header = header.get_or_insert_default();
        header.cluster_id = self.0.data.cluster_id();
        header.member_id = self.0.data.member_id();
        header.raft_term = RAFT_TERM;
    }
}

/// Returns the share of the connection that a request came on.
pub(super) fn share<R>(request: &Request<R>) -> Share {
    request.extensions().get::<Peer>().map(|peer| peer.share.answers.clone()).unwrap_or_default()
}

/// Refuses a request that is too large for etcd's log.
pub(super) fn check_size(request: &impl prost::Message) -> Result<(), Status> {
    if request.encoded_len() > REQUEST_MAX {
        return Err(Status::invalid_argument("etcdserver: request is too large"));
    }
    Ok(())
}

impl From<StoreError> for Status {
    /// Returns etcd's own codes (api/v3rpc/rpctypes/error.go).
    fn from(error: StoreError) -> Self {
        use StoreError as E;
        let code = match error {
            E::EmptyKey | E::KeyNotFound | E::ValueProvided | E::LeaseProvided => {
                Code::InvalidArgument
            }
            E::TooManyOps | E::DuplicateKey => Code::InvalidArgument,
            E::UserEmpty | E::RoleEmpty | E::PermissionNotGiven => Code::InvalidArgument,
            E::Compacted | E::FutureRevision | E::LeaseTtlTooLarge => Code::OutOfRange,
            E::NoSpace => Code::ResourceExhausted,
            E::LeaseNotFound => Code::NotFound,
            // The lease exists already, and all errors about users and roles.
            _ => Code::FailedPrecondition,
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

/// Returns the time of tokio's clock, which tests and simulations can control.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
