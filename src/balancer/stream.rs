//! What a `BalanceLoad` stream makes of its client's reports, and which lists it sends.
//!
//! In: the client's messages, and a view. Out: lists, when they are new for the client.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use lookaside_http2::Pieces;
use prost::Message;
use tonic::Status;

use crate::catalog::Subscriber;
use crate::clock;
use crate::settings::WhenEmpty;
use crate::streams::body::{Conversation, certificate_refused};
use crate::streams::work_budget;
use crate::telemetry::Told;

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
    session: Session,
    client: ClientRow,
    shared: Arc<Shared>,
    listener: Subscriber,
    stream_view: StreamView,
    /// Whether the client may no longer ask for the name.
    denied: bool,
}

impl BalanceStream {
    pub(super) fn new(
        session: Session,
        client: ClientRow,
        shared: Arc<Shared>,
        stream_view: StreamView,
    ) -> Self {
        let listener = stream_view.listen();
        Self { session, client, shared, listener, stream_view, denied: false }
    }

    /// Takes the backends away from a client that may no longer ask for the name. The stream
    /// ends after this message; without it, the client would keep its list.
    #[inline(never)]
    fn poll_denied(&mut self, version: u64, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        self.denied = true;
        let directive = session::directive(None, WhenEmpty::Drop, self.client.kind());
        let Some(push) = self.session.next_push(directive, StreamRank::default()) else {
            // It has that message already.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        self.client.pushed(version, &push, None, None, clock::now());
        Poll::Ready(Some(push.message))
    }
}

impl Conversation for BalanceStream {
    /// Counts a report. An invalid message is counted and otherwise ignored.
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
            let sent = match push.told {
                Told::Fallback => &counters.fallbacks_sent,
                _ => &counters.lists_sent,
            };
            sent.increment();
            let of = session::service_and_revision(&known);
            self.client.pushed(version, &push, of, self.stream_view.subset(), clock::now());
            return Poll::Ready(Some(push.message));
        }
    }

    fn end(&mut self) -> Option<Status> {
        if self.client.is_refused() {
            return Some(certificate_refused());
        }
        let (name, client) = (|| self.stream_view.canonical(), self.client.identity());
        self.denied.then(|| self.shared.deny(&name(), client))
    }
}
