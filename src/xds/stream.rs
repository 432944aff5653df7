//! What an xDS stream makes of its client's requests, and which responses it sends.
//!
//! In: the client's requests, and the catalog. Out: responses, when they are new for the
//! client. Only a client for which changes of weights are delayed has a timer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lookaside_http2::Pieces;
use prost::Message;
use tokio::time::Sleep;

use crate::clock;
use crate::model::ClientKind;
use crate::streams::body::Conversation;
use crate::streams::work_budget;

use super::Shared;
use super::clients::ClientRow;
use super::pb::envoy::service::discovery::v3::DiscoveryRequest;
use super::resources::Kind;
use super::session::{Request, Session, Step, Taken, Verdict};
use super::watches::{News, StreamWatch};

/// A stream whose client has sent its first request. Dropping it cleans everything up.
pub(crate) struct XdsStream {
    session: Session<StreamWatch>,
    client: ClientRow,
    shared: Arc<Shared>,
    /// When a delayed change of weights is sent.
    delay: Option<Pin<Box<Sleep>>>,
}

/// How long a change of weights waits for Node. Node connects to every backend anew with
/// every change, and keeps the old connections for up to ten seconds.
const NODE_DAMPING: Duration = Duration::from_secs(10);

impl XdsStream {
    pub(super) fn new(client: ClientRow, shared: Arc<Shared>) -> Self {
        let damping = match client.peer().kind {
            ClientKind::Node => NODE_DAMPING,
            _ => Duration::ZERO,
        };
        Self { session: Session::new(damping), client, shared, delay: None }
    }

    /// Takes what is new of every name, unless a response is unanswered. Ready when the
    /// catalog has closed.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let client = self.client.peer();
        let mut settled = Vec::new();
        for name in self.session.open_names() {
            // Until it is pending: only then is this stream woken for the next change, also
            // if there is nothing to send now.
            while let Poll::Ready(news) = name.watch.poll_news(client, cx) {
                let Some(News { assignment, version, settings, service, work }) = news else {
                    return Poll::Ready(());
                };
                work_budget::spend(cx, work);
                name.offer(assignment);
                settled.extend(settings.map(|settings| (name.name.clone(), settings)));
                self.client.seen(&name.name, &name.watch, version, service);
            }
        }
        for (name, settings) in settled {
            self.session.settle(&name, &settings);
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
}

impl Conversation for XdsStream {
    /// Takes one request. An invalid message is counted and otherwise ignored.
    fn take_message(&mut self, message: Bytes) {
        let counters = &self.shared.counters;
        let Some(request) = DiscoveryRequest::decode(message).ok().and_then(request) else {
            return counters.xds_requests_rejected.increment();
        };
        let (kind, texts) = (request.kind, &self.shared.clients.texts);
        let client = self.client.peer();
        let peer = client.identity.addr;
        let watch = |name: &Arc<str>| self.shared.watches.watch(name, client);
        let left_out = self.session.left_out();
        let Taken { verdict, has_new_names } =
            self.session.take(request, |name| texts.share(name), watch);
        let left_out = self.session.left_out().saturating_sub(left_out);
        self.shared.watches.refuse(left_out, peer);
        if has_new_names {
            self.client.want(&self.session.names(), clock::now());
        }
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

    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        // Work for this connection's other streams counts too.
        ready!(work_budget::poll_left(cx));
        if self.poll_news(cx).is_ready() {
            return Poll::Ready(None);
        }
        let now = clock::now();
        let watches = &self.shared.watches;
        let kind = self.client.peer().kind;
        match self.session.step(now, |name| watches.settings(name, kind)) {
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
