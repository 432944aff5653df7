//! etcd's Watch service.
//!
//! In: a client's requests, and notices of new revisions. Out: responses, each made only
//! once the client has room for it and the server for its bytes. A client that does not
//! read costs only the places of its watchers in the history.

use std::time::Duration;

use etcd_client::proto as pb;
use futures_util::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::time::Interval;
use tonic::{Code, Request, Response, Status, Streaming};

use super::message_budget::{ANSWER_MAX, Reservation, Share};
use super::node::{Node, share};
use super::outgoing::AnswerReservations;
use super::watchers::{NextStep, Watchers};

/// The time between two progress responses to a watcher that wants them, as in etcd.
const PROGRESS_EVERY: Duration = Duration::from_secs(600);

/// One stream of a client.
struct WatchStream {
    node: Node,
    watchers: Watchers,
    /// The client's requests; `None` once they have ended. Its watchers stay.
    inbound: Option<Streaming<pb::PbWatchRequest>>,
    newest_rx: watch::Receiver<i64>,
    progress: Interval,
    share: Share,
    /// The reservation for the next response.
    reservation: Option<Reservation>,
    /// The reservations of responses that the client has not read yet.
    reservations: AnswerReservations,
}

/// A client's request, or the end of its requests.
type ReceivedRequest = Option<Result<pb::PbWatchRequest, Status>>;

#[tonic::async_trait]
impl pb::PbWatchService for Node {
    type WatchStream = BoxStream<'static, Result<pb::PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (share, reservations) = (share(&request), AnswerReservations::default());
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        progress.reset();
        let stream = WatchStream {
            node: self.clone(),
            watchers: Watchers::default(),
            inbound: Some(request.into_inner()),
            newest_rx: self.newest(),
            progress,
            share,
            reservation: None,
            reservations: reservations.clone(),
        };
        let responses = stream::unfold(Some(stream), |going| async {
            let mut stream = going?;
            match stream.next().await {
                Ok(mut response) => {
                    stream.node.sign(&mut response.header);
                    Some((Ok(response), Some(stream)))
                }
                Err(status) => Some((Err(status), None)),
            }
        });
        let mut response = Response::new(responses.boxed());
        response.extensions_mut().insert(reservations);
        Ok(response)
    }
}

impl WatchStream {
    /// Waits for the next response. Requests come first, so that a client can always cancel,
    /// but they are read only while there is room for an answer.
    async fn next(&mut self) -> Result<pb::PbWatchResponse, Status> {
        loop {
            if let Some(received) = next_request(&mut self.inbound).now_or_never()
                && let Some(response) = self.handle(received)?
            {
                return Ok(response);
            }
            self.newest_rx.borrow_and_update();
            let room = self.reservation.as_ref().map_or(0, Reservation::bytes);
            match self.node.with(|store, _| self.watchers.next_response(store, room)) {
                NextStep::Send(response) => {
                    self.reservation
                        .take()
                        .into_iter()
                        .for_each(|reservation| self.reservations.add(reservation));
                    return Ok(response);
                }
                NextStep::Needs(bytes) => {
                    drop(self.reservation.take());
                    self.reservation = Some(self.reserve(bytes).await?);
                    continue;
                }
                NextStep::Behind => {
                    tokio::task::yield_now().await;
                    continue;
                }
                NextStep::Idle => {}
            }
            tokio::select! {
                biased;
                received = next_request(&mut self.inbound) => {
                    if let Some(response) = self.handle(received)? {
                        return Ok(response);
                    }
                }
                // Progress precedes new revisions, which may come without pause.
                _ = self.progress.tick(), if self.watchers.want_progress() => {
                    self.watchers.progress_is_due();
                }
                _ = self.newest_rx.changed() => {}
                stopped = self.node.stopped() => return Err(stopped),
            }
        }
    }

    /// Reserves bytes. Waits without limit, because a waiting stream needs only its place in
    /// the history. Fails only if `bytes` exceeds [`ANSWER_MAX`] or the server stops.
    async fn reserve(&self, bytes: usize) -> Result<Reservation, Status> {
        loop {
            match self.node.reserve(bytes, &self.share).await {
                Err(refused)
                    if refused.code() == Code::ResourceExhausted && bytes <= ANSWER_MAX => {}
                decided => return decided,
            }
        }
    }

    fn handle(&mut self, received: ReceivedRequest) -> Result<Option<pb::PbWatchResponse>, Status> {
        let Some(request) = received.transpose()? else {
            self.inbound = None;
            return Ok(None);
        };
        let permit = match &request.request_union {
            Some(pb::PbWatchRequestUnion::CreateRequest(create)) => {
                self.node.wait_for(create.key.len() + create.range_end.len())
            }
            _ => None,
        };
        Ok(self.node.with(|store, _| self.watchers.handle(request, permit, store)))
    }
}

async fn next_request(inbound: &mut Option<Streaming<pb::PbWatchRequest>>) -> ReceivedRequest {
    match inbound {
        Some(inbound) => inbound.next().await,
        None => std::future::pending().await,
    }
}
