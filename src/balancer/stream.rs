//! A `BalanceLoad` stream as a response body.
//!
//! In: the request's body, and a view. Out: messages, then a status. Each poll reads what
//! the client sent, then returns what is new for it. It has no task, no queue and no
//! timer: a client that does not read is not polled, and the newest snapshot waits for it
//! in the catalog, shared.

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
use crate::settings::WhenEmpty;
use crate::streams::messages::Messages;
use crate::streams::work_budget;

use super::clients::ClientRow;
use super::cycle::StreamRank;
use super::lists::ListToSend;
use super::message;
use super::session::{self, Session};
use super::views::StreamView;
use super::{Shared, pb};

use pb::load_balance_request::LoadBalanceRequestType as Kind;

/// A stream whose client has sent its name. Dropping it cleans everything up.
pub(crate) struct BalanceStream {
    requests: Incoming,
    /// Whether there may be data to read. It saves a push from looking into the request's
    /// body, which lies elsewhere in memory.
    unread: bool,
    messages: Messages,
    session: Session,
    client: ClientRow,
    shared: Arc<Shared>,
    listener: Subscriber,
    stream_view: StreamView,
    /// The status to end with, because the client may no longer ask for the name.
    denied: bool,
    ended: bool,
}

/// How many messages are read before other tasks run.
const MESSAGES_AT_ONCE: usize = 32;

impl BalanceStream {
    pub(super) fn new(
        requests: Incoming,
        messages: Messages,
        session: Session,
        client: ClientRow,
        shared: Arc<Shared>,
        stream_view: StreamView,
    ) -> Self {
        let listener = stream_view.listen();
        Self {
            requests,
            unread: true,
            messages,
            session,
            client,
            shared,
            listener,
            stream_view,
            denied: false,
            ended: false,
        }
    }

    /// Reads what the client sent. Ready with the final status when no more will come.
    /// Unread data counts against the connection: HTTP/2 would end it in time ("too many
    /// data frames").
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
    fn take_message(&mut self, message: Bytes) {
        let counters = &self.shared.counters;
        let request = pb::LoadBalanceRequest::decode(message).unwrap_or_default();
        let calls = match request.load_balance_request_type {
            Some(Kind::ClientStats(stats)) => message::calls(&stats),
            Some(Kind::InitialRequest(_)) | None => None,
        };
        let Some(calls) = calls else { return counters.reports_rejected.increment() };
        counters.reports.increment();
        if let Some(service) = self.client.add_report(calls) {
            self.shared.ledger.add(&service, calls);
        }
        self.stream_view.report(calls);
    }

    /// Returns what is new for the client. Ready with `None` when the catalog has closed.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        let counters = &self.shared.counters;
        loop {
            // Work for this connection's other streams counts too.
            ready!(work_budget::poll_left(cx));
            let Some((version, known)) = ready!(self.listener.poll_known(cx)) else {
                return Poll::Ready(None);
            };
            // While syncing, the client keeps its list: an unread registry must not take
            // it away.
            let Some(settings) = known.settings() else {
                self.client.note_seen(version, self.stream_view.subset());
                continue;
            };
            if !settings.clients.may_ask(self.client.identity()) {
                return self.poll_denied(version, cx);
            }
            let ListToSend { list, instead, rank, work } =
                self.stream_view.list(&known, self.client.ip());
            work_budget::spend(cx, work);
            let when_empty = instead.unwrap_or(settings.when_empty);
            let directive = session::directive(list, when_empty, self.client.kind());
            let Some(push) = self.session.next_push(directive, rank) else {
                self.client.note_seen(version, self.stream_view.subset());
                counters.lists_suppressed.increment();
                continue;
            };
            let sent = match push.kind {
                "fallback" => &counters.fallbacks_sent,
                _ => &counters.lists_sent,
            };
            sent.increment();
            let of = session::service_and_revision(&known);
            self.client.pushed(version, &push, of, self.stream_view.subset(), clock::now());
            return Poll::Ready(Some(push.message));
        }
    }

    /// Takes the backends away from a client that may no longer ask for the name. The stream
    /// ends after this message; without it, the client would keep its list.
    #[inline(never)]
    fn poll_denied(&mut self, version: u64, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        self.denied = true;
        let directive = session::directive(None, WhenEmpty::Drop, self.client.kind());
        let Some(push) = self.session.next_push(directive, StreamRank::default()) else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        self.client.pushed(version, &push, None, None, clock::now());
        Poll::Ready(Some(push.message))
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Part>> {
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        // Only a message that is no header value fails, and these messages are.
        let _ = status.add_header(&mut trailers);
        Poll::Ready(Some(Part::Trailers(trailers)))
    }
}

impl Outgoing for BalanceStream {
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
        if self.denied {
            let status = self.shared.deny(&self.stream_view.canonical(), self.client.identity());
            return self.end(&status);
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
