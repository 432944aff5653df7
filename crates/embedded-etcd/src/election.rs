//! etcd's Election service.
//!
//! In: names, leases and the values of candidates. Out: the leader, and each change of it.
//! A candidate that disconnects while it waits leaves the queue.

use etcd_client::proto as pb;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::message_budget::Share;
use super::node::{Node, check_size, share};
use super::outgoing::AnswerReservations;
use super::queue::{below, failed, prefix, put};
use super::store::{Span, Store};

/// The generated messages of this service. The other services use etcd-client's.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
mod proto {
    tonic::include_proto!("v3electionpb");
}

pub(super) use proto::election_server::ElectionServer;

/// The most revisions that an observer reads in one call, so that other callers do not wait
/// for the store.
const REVISIONS_PER_CALL: usize = 1_000;

#[tonic::async_trait]
impl proto::election_server::Election for Node {
    type ObserveStream = BoxStream<'static, Result<proto::LeaderResponse, Status>>;

    async fn campaign(
        &self,
        request: Request<proto::CampaignRequest>,
    ) -> Result<Response<proto::CampaignResponse>, Status> {
        check_size(request.get_ref())?;
        let proto::CampaignRequest { name, lease, value } = request.into_inner();
        let place = self.queue(&name, lease, value)?;
        place.first().await?;
        let place = place.keep_key();
        let (key, rev, lease) = (place.key.clone(), place.created, place.lease);
        let leader = Some(proto::LeaderKey { name, key, rev, lease });
        let header = self.header(place.revision);
        Ok(Response::new(proto::CampaignResponse { header, leader }))
    }

    async fn proclaim(
        &self,
        request: Request<proto::ProclaimRequest>,
    ) -> Result<Response<proto::ProclaimResponse>, Status> {
        check_size(request.get_ref())?;
        let proto::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.ok_or_else(no_leader_key)?;
        let lease = self.session(leader.lease)?;
        let revision = self.with(|store, _| {
            if !leads(store, &leader) {
                return Err(failed("election: not leader"));
            }
            put(store, &leader.key, value, lease).map_err(failed)?;
            Ok(store.revision())
        })?;
        Ok(Response::new(proto::ProclaimResponse { header: self.header(revision) }))
    }

    async fn leader(
        &self,
        request: Request<proto::LeaderRequest>,
    ) -> Result<Response<proto::LeaderResponse>, Status> {
        let span = below(&prefix(&request.get_ref().name));
        let (revision, kv) = self.with(|store, _| (store.revision(), store.first_created(&span)));
        let kv = Some(kv.ok_or_else(|| failed("election: no leader"))?);
        Ok(Response::new(proto::LeaderResponse { header: self.header(revision), kv }))
    }

    async fn observe(
        &self,
        request: Request<proto::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let span = below(&prefix(&request.get_ref().name));
        let (share, reservations) = (share(&request), AnswerReservations::default());
        let (node, newest_rx) = (self.clone(), self.newest());
        let answer_reservations = reservations.clone();
        let observer =
            Observer { node, span, newest_rx, leader: LeaderState::Unknown, share, reservations };
        let leaders = stream::unfold(Some(observer), |going| async {
            let mut observer = going?;
            match observer.next().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(status) => Some((Err(status), None)),
            }
        });
        let mut response = Response::new(leaders.boxed());
        response.extensions_mut().insert(answer_reservations);
        Ok(response)
    }

    async fn resign(
        &self,
        request: Request<proto::ResignRequest>,
    ) -> Result<Response<proto::ResignResponse>, Status> {
        check_size(request.get_ref())?;
        let leader = request.into_inner().leader.ok_or_else(no_leader_key)?;
        let revision = self.with(|store, _| {
            // A candidate that does not lead any more has nothing to resign.
            if leads(store, &leader) {
                let key = leader.key;
                store.delete(&pb::PbDeleteRequest { key, ..Default::default() }).map_err(failed)?;
            }
            Ok::<_, Status>(store.revision())
        })?;
        Ok(Response::new(proto::ResignResponse { header: self.header(revision) }))
    }
}

/// Follows one election for a client.
struct Observer {
    node: Node,
    span: Span,
    newest_rx: watch::Receiver<i64>,
    leader: LeaderState,
    share: Share,
    reservations: AnswerReservations,
}

/// An observer's place in the history.
enum LeaderState {
    /// The leader is unknown.
    Unknown,
    /// There is no leader. The first key that is put at or after this revision leads.
    Vacant(i64),
    /// This key leads. Its changes at or after this revision are reported.
    Led(Vec<u8>, i64),
}

impl Observer {
    async fn next(&mut self) -> Result<proto::LeaderResponse, Status> {
        loop {
            self.newest_rx.borrow_and_update();
            let node = self.node.clone();
            let (found, behind) = node.with(|store, _| {
                let found = self.next_change(store);
                (found, self.from() <= store.revision())
            });
            if let Some((revision, kv)) = found {
                let length = kv.key.len() + kv.value.len();
                self.reservations.add(self.node.reserve(length, &self.share).await?);
                let header = self.node.header(revision);
                return Ok(proto::LeaderResponse { header, kv: Some(kv) });
            }
            if behind {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                changed = self.newest_rx.changed() => changed.map_err(|_| failed("server stopped"))?,
                stopped = self.node.stopped() => return Err(stopped),
            }
        }
    }

    /// Returns the next revision to read.
    fn from(&self) -> i64 {
        match self.leader {
            LeaderState::Unknown => 0,
            LeaderState::Vacant(from) | LeaderState::Led(_, from) => from,
        }
    }

    /// Reads on in the history. Returns the next leader or its new value, with the revision;
    /// or `None` if there is nothing to report yet.
    fn next_change(&mut self, store: &Store) -> Option<(i64, pb::PbKeyValue)> {
        for _ in 0..REVISIONS_PER_CALL {
            // Compacted changes cannot be reported, so start with the current leader.
            if matches!(self.leader, LeaderState::Unknown) || self.from() < store.compacted() {
                let newest = store.revision();
                let Some(kv) = store.first_created(&self.span) else {
                    self.leader = LeaderState::Vacant(newest + 1);
                    return None;
                };
                self.leader = LeaderState::Led(kv.key.clone(), newest + 1);
                return Some((newest, kv));
            }
            let revision = self.from();
            let changes = store.changes(revision)?;
            match &mut self.leader {
                LeaderState::Unknown => {}
                LeaderState::Vacant(from) => {
                    *from += 1;
                    let put = changes.iter().find(|c| c.is_put() && self.span.contains(&c.key));
                    if let Some(put) = put {
                        self.leader = LeaderState::Led(put.key.to_vec(), revision + 1);
                        return Some((revision, put.to_pb()));
                    }
                }
                LeaderState::Led(key, from) => {
                    *from += 1;
                    match changes.iter().find(|change| *change.key == **key) {
                        Some(change) if change.is_put() => {
                            return Some((revision, change.to_pb()));
                        }
                        Some(_) => self.leader = LeaderState::Unknown,
                        None => {}
                    }
                }
            }
        }
        None
    }
}

fn leads(store: &Store, leader: &proto::LeaderKey) -> bool {
    store.now(&leader.key).map_or(0, |kv| kv.create_revision) == leader.rev
}

fn no_leader_key() -> Status {
    failed("\"leader\" field must be provided")
}
