//! Serves HTTP/2 connections.
//!
//! In: the bytes of a connection, and a handler that answers requests. Out: the answers.
//! A [`Connection`] is one future, and keeps no empty buffer: a part of a body is written
//! from shared memory, and only the bytes that the operating system did not take are
//! kept. A body is asked for its next part only when that part can be written, so a peer
//! that does not read costs no more than the data on its way. The crate does not know the
//! meaning of bodies.
#![doc = include_str!("../README.md")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

mod common;
mod frame;
mod graceful_close;
mod head;
pub mod hpack;
mod incoming;
mod meter;
mod pieces;
mod protocol;
mod read;
mod send_budget;
mod timer;
mod write;

pub use common::Common;
use common::Share;
use frame::{PREFACE, Reason};
pub use graceful_close::GracefulClose;
pub use incoming::{Broken, Incoming};
pub use meter::WithMeter;
pub use pieces::Pieces;
use protocol::Protocol;
use send_budget::SendBudget;
use timer::Second;
use write::Leftover;

/// The return type of a handler: a future response.
pub type ResponseFuture<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

/// The body of a response.
pub trait Outgoing: Unpin {
    /// Called when more of the request has arrived, or its end. A body that polls its
    /// request's [`Incoming`] itself has nothing to do here.
    fn request_arrived(&mut self);

    /// Returns the next part, or `None` at the end. Without `room`, a part could not be
    /// written: a body that sends the newest value then returns `Pending`, and is asked
    /// again when there is room.
    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>>;

    /// Returns what handling the request has cost beyond its bytes since the last call, in
    /// bytes: the peer is charged for it.
    fn cost(&mut self) -> usize {
        0
    }

    /// Returns whether the body has no part at all, so that the response ends with its
    /// head. Called once, when the response is made.
    fn is_empty(&self) -> bool;
}

/// A part of a body.
pub enum Part {
    /// Bytes.
    Data(Pieces),
    /// The end of the body, with trailers.
    Trailers(HeaderMap),
    /// The body failed; the stream is reset.
    Broken,
}

/// A transport with a budget for its peer. [`WithMeter`] makes one from any transport.
pub trait Metered {
    /// Charges the peer for the work that its data has caused. `cost` is counted in
    /// bytes, in addition to the bytes that were read; below zero, so much is given back,
    /// because most bytes of a long message cause little work. A transport whose budget is
    /// used up returns `Pending` from its next read.
    fn charge(&mut self, cost: isize);
}

/// One connection: a future that ends when the connection does. Returns whether the peer
/// ever spoke HTTP/2.
pub struct Connection<S, H, B> {
    io: S,
    handler: H,
    close_listener: graceful_close::Listener,
    share: Share,
    protocol: Protocol<Exchange<B>>,
    /// How many bytes of the preface have arrived.
    preface: u8,
    /// Complete frames that wait to be handled, and one incomplete frame.
    rest: Vec<u8>,
    /// Whether `rest` has complete frames.
    more: bool,
    /// How many bytes of `protocol.out` are written.
    written: usize,
    /// A frame that is partly written.
    leftover: Option<Box<Leftover>>,
    /// Since when the operating system has not taken all data.
    blocked_since: Second,
    flushed: bool,
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    /// When the peer last sent something.
    last_received: Second,
    /// When a PING was sent that has no answer yet.
    ping_sent: Second,
    /// Since when the connection has had no stream.
    idle_since: Second,
    /// How many streams were last recorded for others to see.
    streams_noted: u32,
    /// Since when a frame or a header block has been incomplete.
    incomplete_since: Second,
    /// The budget of several streams; `None` until there were several.
    send_budget: Option<Box<SendBudget>>,
    /// Whether a stream was not asked because the budget was used up. `first_polled` is the
    /// first of those.
    starved: bool,
    first_polled: u16,
    /// The index of the stream whose DATA is written next.
    next: u16,
    /// Whether any stream's body has returned a part.
    served: bool,
    /// Whether something has been read since the last [`Connection::note_incomplete`].
    read_since_check: bool,
}

/// The connection's state of a stream.
struct Exchange<B> {
    requests: incoming::Sender,
    reply: Reply<B>,
    /// The data of the body that is not written; boxed, because there is mostly none.
    pending: Option<Box<Pieces>>,
    /// Whether the body has returned a part.
    begun: bool,
    /// Whether the peer accepts no data, so that its next message may have to wait.
    is_blocked: bool,
    /// Since when a message has been incomplete.
    incomplete_since: Second,
}

enum Reply<B> {
    Awaited(ResponseFuture<B>),
    Body(B),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The peer was told to leave; its streams may continue until it does.
    Leaving,
    /// The peer broke the rules: it gets a GOAWAY, and nothing else.
    Closing,
}

/// The result of polling a stream.
enum StreamPoll {
    Nothing,
    Something,
    Finished,
    Broken,
}

/// The connection has ended.
struct ConnectionEnded;

/// How long a peer may take to send the preface. A slower one will never send it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection stays open after a GOAWAY: long enough for it to arrive.
const GOAWAY_LINGER: Duration = Duration::from_millis(200);
/// How many turns a connection takes before other tasks run. What it reads and answers in
/// them takes well under a millisecond.
const TURNS_PER_POLL: usize = 4;

impl<S, H, B> Connection<S, H, B> {
    /// Returns whether a part of the preface has not arrived.
    fn awaits_preface(&self) -> bool {
        usize::from(self.preface) < PREFACE.len()
    }
}

impl<S, H, B> Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Metered + Unpin,
    H: Fn(Request<Incoming>) -> ResponseFuture<B> + Unpin,
    B: Outgoing,
{
    /// Serves requests with `handler` until the peer disconnects or `close` asks it to leave.
    /// All connections of a port share `common`.
    ///
    /// It must be called and polled within a tokio runtime that has a timer.
    pub fn new(io: S, common: Arc<Common>, close: Arc<GracefulClose>, handler: H) -> Self {
        let now = common.now();
        Self {
            io,
            handler,
            close_listener: graceful_close::Listener::new(close),
            share: Share::new(common),
            protocol: Protocol::new(),
            preface: 0,
            rest: Vec::new(),
            more: false,
            written: 0,
            leftover: None,
            blocked_since: Second::NEVER,
            flushed: true,
            stage: Stage::Open,
            timer: Box::pin(sleep(PREFACE_TIMEOUT)),
            last_received: now,
            ping_sent: Second::NEVER,
            idle_since: now,
            streams_noted: 0,
            incomplete_since: Second::NEVER,
            send_budget: None,
            starved: false,
            first_polled: 0,
            next: 0,
            served: false,
            read_since_check: false,
        }
    }

    /// Reads, answers and writes until nothing more can be done now.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnded> {
        if self.stage == Stage::Open && self.close_listener.is_requested(cx) {
            if self.awaits_preface() {
                return Poll::Ready(ConnectionEnded);
            }
            self.send_goaway();
        }
        for _ in 0..TURNS_PER_POLL {
            let Ok(received) = self.poll_receive(cx) else { return Poll::Ready(ConnectionEnded) };
            self.read_since_check |= received;
            self.note_streams();
            let answered = self.poll_streams(cx);
            let Ok(sent) = self.poll_send(cx) else { return Poll::Ready(ConnectionEnded) };
            self.note_streams();
            let done = match self.stage {
                Stage::Open => false,
                Stage::Leaving => self.protocol.streams.is_empty() && self.is_written(),
                Stage::Closing => self.is_written(),
            };
            if done {
                return Poll::Ready(ConnectionEnded);
            }
            if received || answered || sent {
                continue;
            }
            if std::mem::take(&mut self.read_since_check) || self.share.is_any() || self.starved {
                self.note_incomplete();
            }
            if ready!(self.poll_timer(cx)).is_err() {
                return Poll::Ready(ConnectionEnded);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the peer to leave. Its streams have [`GOAWAY_LINGER`] to end.
    fn send_goaway(&mut self) {
        self.protocol.go_away(Reason::NoError);
        self.stage = Stage::Leaving;
        self.timer.as_mut().reset(Instant::now() + GOAWAY_LINGER);
    }

    /// Ends a connection whose peer broke the rules or used more than its share.
    fn close(&mut self, reason: Reason) {
        self.protocol.go_away(reason);
        self.protocol.streams.clear();
        self.rest = Vec::new();
        self.more = false;
        self.stage = Stage::Closing;
        self.timer.as_mut().reset(Instant::now() + GOAWAY_LINGER);
    }

    /// Asks every stream for its next part, beginning with the one whose turn it is. Returns
    /// true if any stream returned a part.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let first = usize::from(self.first_polled);
        let first = if first < self.protocol.streams.len() { first } else { 0 };
        self.starved = false;
        let after = self.poll_range(first, usize::MAX, cx);
        let before = self.poll_range(0, first, cx);
        after || before
    }

    fn poll_range(&mut self, mut at: usize, end: usize, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while at < self.protocol.streams.len().min(end) {
            match self.poll_stream(at, cx) {
                StreamPoll::Nothing => {}
                StreamPoll::Something => any = true,
                // Another stream takes its index.
                StreamPoll::Finished => {
                    self.protocol.finish(at);
                    any = true;
                    continue;
                }
                StreamPoll::Broken => {
                    self.protocol.reset_stream(at, Reason::Internal);
                    any = true;
                    continue;
                }
            }
            if self.protocol.streams[at].has_unread() {
                self.take_back(at);
            }
            at += 1;
        }
        any
    }

    fn poll_stream(&mut self, at: usize, cx: &mut Context<'_>) -> StreamPoll {
        let mut result = StreamPoll::Nothing;
        if let Reply::Awaited(answer) = &mut self.exchange(at).reply {
            let Poll::Ready(response) = answer.as_mut().poll(cx) else { return result };
            let (head, body) = response.into_parts();
            let end = body.is_empty();
            self.protocol.respond(at, head.status.as_u16(), &head.headers, end);
            self.exchange(at).reply = Reply::Body(body);
            if end {
                return StreamPoll::Finished;
            }
            result = StreamPoll::Something;
        }
        let only = self.is_only(at);
        let room = self.has_room(at) && (only || self.may_take(at));
        let Exchange { reply: Reply::Body(body), pending, begun, .. } = self.exchange(at) else {
            return result;
        };
        if pending.is_some() {
            return result;
        }
        let trailers = match body.poll_part(cx, room) {
            Poll::Pending => return result,
            Poll::Ready(Some(Part::Data(data))) => {
                let length = data.len();
                (*pending, *begun) = ((length > 0).then(|| Box::new(data)), true);
                self.served = true;
                if !only {
                    self.take(length);
                }
                return StreamPoll::Something;
            }
            Poll::Ready(Some(Part::Trailers(trailers))) => Some(trailers),
            Poll::Ready(None) => None,
            Poll::Ready(Some(Part::Broken)) => return StreamPoll::Broken,
        };
        self.protocol.end_body(at, trailers.as_ref());
        StreamPoll::Finished
    }

    /// Returns whether the peer and the operating system take more data of the stream at
    /// `at`.
    fn has_room(&self, at: usize) -> bool {
        self.blocked_since == Second::NEVER
            && self.protocol.send_window > 0
            && self.protocol.streams[at].send_window > 0
    }

    fn exchange(&mut self, at: usize) -> &mut Exchange<B> {
        &mut self.protocol.streams[at].state
    }
}

impl<S, H, B> Future for Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Metered + Unpin,
    H: Fn(Request<Incoming>) -> ResponseFuture<B> + Unpin,
    B: Outgoing,
{
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let this = self.get_mut();
        let ConnectionEnded = ready!(this.poll_turns(cx));
        // Best effort: data that is not taken now is lost with the connection.
        let _ = Pin::new(&mut this.io).poll_shutdown(cx);
        Poll::Ready(!this.awaits_preface())
    }
}

#[cfg(test)]
mod tests;
