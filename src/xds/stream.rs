//! An xDS stream as a response body.
//!
//! In: the request's body, and the catalog. Out: responses, then a status. Each poll reads
//! what the client sent, then returns what is new for it. It has no task and no queue: a
//! client that does not read is not polled, and the newest value waits for it in the
//! catalog, shared. Only a client for which changes of weights are delayed has a timer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use lookaside_http2::{Incoming, Outgoing, Part, Pieces};
use prost::Message;
use tokio::time::Sleep;
use tonic::Status;

use crate::clock;
use crate::model::ClientKind;
use crate::streams::messages::Messages;
use crate::streams::work_budget;

use super::Shared;
use super::clients::ClientRow;
use super::pb::envoy::service::discovery::v3::DiscoveryRequest;
use super::resources::Kind;
use super::session::{Request, Session, Step, Verdict};
use super::watches::{News, StreamWatch};

/// A stream whose client has sent its first request. Dropping it cleans everything up.
pub(crate) struct XdsStream {
    requests: Incoming,
    /// Whether there may be data to read.
    unread: bool,
    messages: Messages,
    session: Session<StreamWatch>,
    client: ClientRow,
    shared: Arc<Shared>,
    /// When a delayed change of weights is sent.
    delay: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// How many messages are read before other tasks run.
const MESSAGES_AT_ONCE: usize = 32;
/// How long a change of weights waits for Node. Node connects to every backend anew with
/// every change, and keeps the old connections for up to ten seconds.
const NODE_DAMPING: Duration = Duration::from_secs(10);

impl XdsStream {
    pub(super) fn new(
        requests: Incoming,
        messages: Messages,
        client: ClientRow,
        shared: Arc<Shared>,
    ) -> Self {
        let damping = match client.peer().kind {
            ClientKind::Node => NODE_DAMPING,
            _ => Duration::ZERO,
        };
        let session = Session::new(damping);
        Self {
            requests,
            unread: true,
            messages,
            session,
            client,
            shared,
            delay: None,
            ended: false,
        }
    }

    /// Reads what the client sent. Ready with the final status when no more will come.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.messages.next() {
                Ok(Some(message)) => {
                    self.take_message(message);
                    continue;
                }
                Ok(None) => {}
                Err(status) => return Poll::Ready(status),
            }
            // A message that is not complete yet counts against the windows.
            self.requests.hold(self.messages.len(), cx);
            let Poll::Ready(frame) = Pin::new(&mut self.requests).poll_frame(cx) else {
                self.unread = false;
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.messages.push(&data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Status::cancelled("the client is gone")),
                // The client has closed its side: it wants no more.
                None => return Poll::Ready(Status::ok("")),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Handles one message. An invalid message is counted and otherwise ignored: if its
    /// stream ended, the client would come back at once.
    pub(super) fn take_message(&mut self, message: Bytes) {
        let counters = &self.shared.counters;
        let Some(request) = DiscoveryRequest::decode(message).ok().and_then(request) else {
            return counters.xds_requests_rejected.increment();
        };
        let (kind, texts) = (request.kind, &self.shared.clients.texts);
        let client = self.client.peer();
        let peer = client.identity.addr;
        let watch = |name: &Arc<str>| self.shared.watches.watch(name, client);
        let verdict = self.session.take(request, |name| texts.share(name), watch);
        self.client.want(&self.session.names(), clock::now());
        self.client.answered(kind, &verdict);
        match &verdict {
            Verdict::None => {}
            Verdict::Accepted => self.shared.counters(kind).accepted.increment(),
            Verdict::Refused(words) => {
                self.shared.counters(kind).refused.increment();
                self.shared.log_refusal(peer, kind, words);
            }
        }
    }

    /// Returns the next response. Ready with `None` when the catalog has closed.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        // Work for this connection's other streams counts too.
        ready!(work_budget::poll_left(cx));
        if self.poll_news(cx).is_ready() {
            return Poll::Ready(None);
        }
        let now = clock::now();
        let watches = &self.shared.watches;
        match self.session.step(now, |name| watches.problem(name)) {
            Step::Send(push) => {
                self.delay = None;
                self.shared.counters(push.kind).sent.increment();
                self.client.pushed(&push, now);
                Poll::Ready(Some(push.message))
            }
            Step::WaitUntil(at) => self.poll_delay(at, now, cx),
            Step::Nothing => Poll::Pending,
        }
    }

    /// Takes what is new of every name, unless a response is unanswered. Ready when the
    /// catalog has closed.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let client = self.client.peer();
        for name in self.session.open_names() {
            // Until it is pending: only then is this stream woken for the next change, also
            // if there is nothing to send now.
            while let Poll::Ready(news) = name.watch.poll_news(client, cx) {
                let Some(News { assignment, version, service, work }) = news else {
                    return Poll::Ready(());
                };
                work_budget::spend(cx, work);
                name.offer(assignment);
                self.client.seen(&name.name, name.watch.shared(), version, service);
            }
        }
        Poll::Pending
    }

    fn poll_delay(
        &mut self,
        at: Instant,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Pieces>> {
        let wait = || Box::pin(tokio::time::sleep(at.saturating_duration_since(now)));
        if self.delay.get_or_insert_with(wait).as_mut().poll(cx).is_ready() {
            self.delay = None;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Part>> {
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        // Only a message that is no header value fails, and these messages are.
        let _ = status.add_header(&mut trailers);
        Poll::Ready(Some(Part::Trailers(trailers)))
    }
}

impl Outgoing for XdsStream {
    fn request_arrived(&mut self) {
        self.unread = true;
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.unread
            && let Poll::Ready(status) = self.poll_requests(cx)
        {
            return self.end(&status);
        }
        if !room {
            // When there is room, the newest value is sent.
            return Poll::Pending;
        }
        match ready!(self.poll_push(cx)) {
            Some(push) => Poll::Ready(Some(Part::Data(push))),
            None => self.end(&Status::unavailable("the balancer is shutting down")),
        }
    }

    fn is_empty(&self) -> bool {
        self.ended
    }
}

/// Returns a request; `None` if it is of a type that this server does not have.
fn request(request: DiscoveryRequest) -> Option<Request> {
    Some(Request {
        kind: Kind::from_url(&request.type_url)?,
        names: request.resource_names,
        nonce: request.response_nonce,
        error: request.error_detail.map(|error| error.message),
    })
}
