//! What an xDS stream makes of its client's requests, and which responses it sends.
//!
//! In: the client's requests, and the catalog. Out: responses, when they are new for the
//! client. Only a client for which changes of weights are delayed has a timer.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lookaside_http2::Pieces;
use tokio::time::Sleep;
use tonic::Status;

use crate::clock;
use crate::model::ClientKind;
use crate::streams::body::{Conversation, certificate_refused};
use crate::streams::messages::SHORT_MAX;
use crate::streams::work_budget;

use super::Shared;
use super::changes::Changes;
use super::clients::ClientRow;
use super::name_room::NameRoom;
use super::request::ReadRequest;
use super::resources::Kind;
use super::session::{Compared, Request, Session, Step, Taken, Verdict};
use super::watches::{News, StreamWatch};

/// A stream whose client has sent its first request. Dropping it cleans everything up.
pub(crate) struct XdsStream {
    session: Session<NameWatch>,
    /// The names of endpoints with news.
    changes: Changes,
    room: NameRoom,
    /// What the client's names have cost since that was last charged.
    cost: usize,
    /// How many names there was no room for, when that was last counted.
    left_out: usize,
    client: ClientRow,
    shared: Arc<Shared>,
    /// When a delayed change of weights is sent.
    delay: Option<Pin<Box<Sleep>>>,
}

/// What a stream keeps for a name of endpoints, from when it first looks at it.
type NameWatch = Option<(StreamWatch, Waker)>;

/// What a client is charged for a new name, in bytes, beside the name. A name that it repeats
/// costs hardly anything.
const NEW_NAME_COST: usize = 16;
/// How many bytes of a request cost as much as one byte of other messages, if all of its names
/// must be compared with the former ones.
const COMPARED_PER_BYTE: usize = 16;
/// The same, if names are only added at the end. These cost beside.
const ADDED_PER_BYTE: usize = 64;

#[cfg(test)]
thread_local! {
    /// How often a stream of this thread has looked at a name.
    static VISITS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How long a change of weights waits for Node. Node connects to every backend anew with
/// every change, and keeps the old connections for up to ten seconds.
const NODE_DAMPING: Duration = Duration::from_secs(10);

impl XdsStream {
    pub(super) fn new(client: ClientRow, shared: Arc<Shared>) -> Self {
        Self {
            session: Session::new(),
            changes: Changes::default(),
            room: NameRoom::default(),
            cost: 0,
            left_out: 0,
            client,
            shared,
            delay: None,
        }
    }

    /// Takes what is new of each name that has news, unless a response is unanswered. Returns
    /// `None` if the catalog has closed. Pending if others must have their turn before the
    /// rest is taken.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        if !self.session.is_open() {
            return Poll::Ready(Some(()));
        }
        self.changes.follow(cx.waker());
        loop {
            ready!(work_budget::poll_left(cx));
            let Some(name) = self.changes.take() else { return Poll::Ready(Some(())) };
            if self.take_news(&name, cx).is_none() {
                return Poll::Ready(None);
            }
        }
    }

    /// Takes what is new of a name. Returns `None` if the catalog has closed.
    fn take_news(&mut self, name: &Arc<str>, cx: &mut Context<'_>) -> Option<()> {
        let peer = self.client.peer();
        let names = self.session.names_of_endpoints();
        // Until it is pending: only then is this stream woken for the next change, also if
        // there is nothing to send now.
        loop {
            let Some(watch) = self.session.watch(name) else { return Some(()) };
            let (watch, waker) = watch.get_or_insert_with(|| {
                (self.shared.watches.watch(name, peer, names), self.changes.waker(name))
            });
            #[cfg(test)]
            VISITS.set(VISITS.get() + 1);
            let news = watch.poll_news(peer, &mut Context::from_waker(waker));
            let Poll::Ready(news) = news else { return Some(()) };
            let News { assignment, version, settled, service, work } = news?;
            work_budget::spend(cx, work);
            self.client.seen(name, watch, version, service);
            self.session.offer(name, assignment);
            if settled {
                let watches = &self.shared.watches;
                let resource = |kind, name: &str| watches.resource(kind, name, peer.kind);
                self.session.settle(name, resource);
            }
        }
    }

    /// Counts the names for which there was no room, once each.
    fn count_left_out(&mut self) {
        let left_out = self.session.left_out();
        let before = std::mem::replace(&mut self.left_out, left_out);
        let more = left_out.saturating_sub(before);
        self.shared.watches.refuse(more, self.client.peer().identity.addr);
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
        let Some(read) = ReadRequest::read(message) else {
            return counters.xds_requests_rejected.increment();
        };
        let bytes = read.names.bytes();
        let is_long = bytes > SHORT_MAX;
        self.cost += if is_long { read.rest_bytes } else { 0 };
        let Some(request) = request(read) else {
            return counters.xds_requests_rejected.increment();
        };
        let (kind, texts) = (request.kind, &self.shared.clients.texts);
        let peer = self.client.peer().identity.addr;
        let (changes, room) = (&self.changes, self.shared.names.most(peer, &self.room));
        let added = |name: &Arc<str>| changes.add(name);
        let cost = Cell::new(0);
        let share = |name: &str| {
            cost.set(cost.get() + NEW_NAME_COST + name.len());
            texts.share(name)
        };
        let Taken { verdict, compared, changed } = self.session.take(request, room, share, added);
        let compared = match compared {
            Compared::All => bytes / COMPARED_PER_BYTE,
            Compared::Ends => bytes / ADDED_PER_BYTE,
            Compared::Nothing => 0,
        };
        self.cost += cost.get() + if is_long { compared } else { 0 };
        if changed {
            self.changes.retain(|name| self.session.wants(name));
            self.shared.names.set(peer, &mut self.room, self.session.cost());
            self.count_left_out();
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

    fn cost(&mut self) -> usize {
        std::mem::take(&mut self.cost)
    }

    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        // Work for this connection's other streams counts too.
        if ready!(self.poll_news(cx)).is_none() {
            return Poll::Ready(None);
        }
        let now = clock::now();
        let watches = &self.shared.watches;
        let client = self.client.peer().kind;
        let damping = match client {
            ClientKind::Node => NODE_DAMPING,
            _ => Duration::ZERO,
        };
        let resource = |kind, name: &str| watches.resource(kind, name, client);
        let step = self.session.step(now, damping, resource);
        self.count_left_out();
        match step {
            Step::Send(push) => {
                self.delay = None;
                self.shared.counters(push.kind).sent.increment();
                Poll::Ready(Some(self.client.pushed(push, &self.shared.counters, now)))
            }
            Step::Again => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::WaitUntil(at) => self.poll_delay(at, now, cx),
            Step::Nothing => Poll::Pending,
        }
    }

    fn end(&mut self) -> Option<Status> {
        self.client.is_refused().then(certificate_refused)
    }
}

/// Returns a request; `None` if it is of a type that this server does not have.
fn request(read: ReadRequest) -> Option<Request> {
    let ReadRequest { names, rest, .. } = read;
    Some(Request {
        kind: Kind::from_url(&rest.type_url)?,
        names,
        nonce: rest.response_nonce,
        error: rest.error_detail.map(|error| error.message),
    })
}

#[cfg(test)]
mod tests;
