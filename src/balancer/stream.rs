//! A BalanceLoad stream as a response body: polled, it reads what the client
//! sent and yields what is new for it.
//!
//! In: the request's body, a view. Out: messages, then at the end a status. No
//! task, no queue, no timer: a client that does not read is not polled, and
//! the newest snapshot waits for it in the catalog, shared.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use lookaside_http2::{Incoming, Outgoing, Part, Pieces};
use prost::Message;
use tonic::Status;

use crate::catalog::Subscriber;
use crate::clock;

use super::clients::Registered;
use super::lists::Made;
use super::message::{self, Messages};
use super::session::{self, Session};
use super::views::Holding;
use super::{Shared, pb, turn};

use pb::load_balance_request::LoadBalanceRequestType as Kind;

/// A stream whose client has said its name. Dropping it is all the cleaning up
/// there is.
pub(crate) struct BalanceStream {
    requests: Incoming,
    /// There may be something to read. A push must not look: what is read lies
    /// elsewhere in memory.
    unread: bool,
    messages: Messages,
    session: Session,
    client: Registered,
    shared: Arc<Shared>,
    listener: Subscriber,
    holding: Holding,
    ended: bool,
}

/// So many messages are read before others get their turn.
const MESSAGES_AT_ONCE: usize = 32;

impl BalanceStream {
    pub(super) fn new(
        requests: Incoming,
        messages: Messages,
        session: Session,
        client: Registered,
        shared: Arc<Shared>,
        holding: Holding,
    ) -> Self {
        let listener = holding.listen();
        Self {
            requests,
            unread: true,
            messages,
            session,
            client,
            shared,
            listener,
            holding,
            ended: false,
        }
    }

    /// Reads what the client sent. Ready when there will be no more, with the
    /// status to end with. What is not read counts against the connection:
    /// HTTP/2 would end it in time ("too many data frames").
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.messages.next() {
                Ok(Some(message)) => {
                    self.read(message);
                    continue;
                }
                Ok(None) => {}
                Err(status) => return Poll::Ready(status),
            }
            // What waits for its rest counts against the windows.
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

    /// A message that makes no sense is counted and otherwise ignored: ending
    /// a stream that has its list makes the client come back at once.
    fn read(&self, message: Bytes) {
        let counters = &self.shared.counters;
        let request = pb::LoadBalanceRequest::decode(message).unwrap_or_default();
        let calls = match request.load_balance_request_type {
            Some(Kind::ClientStats(stats)) => message::calls(&stats),
            Some(Kind::InitialRequest(_)) | None => None,
        };
        let Some(calls) = calls else { return counters.reports_rejected.increment() };
        counters.reports.increment();
        if let Some(service) = self.client.reported(calls) {
            self.shared.ledger.add(&service, calls);
        }
    }

    /// What is new for the client. Ready with nothing when the catalog closed.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        let counters = &self.shared.counters;
        loop {
            // What was made for this connection's other streams counts.
            ready!(turn::poll_room(cx));
            let Some((version, known)) = ready!(self.listener.poll_known(cx)) else {
                return Poll::Ready(None);
            };
            // A name whose service was there and is not: never to be taken
            // from a registry that has not been read.
            let Some(settings) = known.settings() else {
                self.client.saw(version);
                continue;
            };
            let Made { list, place, work } = self.holding.list(&known);
            turn::spend(cx, work);
            let directive = session::directive(list, settings.when_empty, self.client.kind());
            let Some(told) = self.session.tell(directive, place) else {
                self.client.saw(version);
                counters.lists_suppressed.increment();
                continue;
            };
            let sent = match told.what {
                "fallback" => &counters.fallbacks_sent,
                _ => &counters.lists_sent,
            };
            sent.increment();
            self.client.told(version, &told, session::meaning(&known), clock::now());
            return Poll::Ready(Some(told.frame));
        }
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Part>> {
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        // Only a message that is no header value can fail, and ours are.
        let _ = status.add_header(&mut trailers);
        Poll::Ready(Some(Part::Trailers(trailers)))
    }
}

impl Outgoing for BalanceStream {
    fn hear(&mut self) {
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
            // The newest there is then will be said.
            return Poll::Pending;
        }
        match ready!(self.poll_news(cx)) {
            Some(news) => Poll::Ready(Some(Part::Data(news))),
            None => self.end(&Status::unavailable("the balancer is shutting down")),
        }
    }

    fn is_empty(&self) -> bool {
        self.ended
    }
}
