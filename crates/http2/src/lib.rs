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
mod head;
mod hear;
pub mod hpack;
mod incoming;
mod leave;
mod meter;
mod outflow;
mod pieces;
mod protocol;
mod timer;
mod write;

pub use common::Common;
use common::Share;
use frame::{PREFACE, Reason};
pub use incoming::{Broken, Incoming};
pub use leave::Leave;
pub use meter::WithMeter;
use outflow::Outflow;
pub use pieces::Pieces;
use protocol::Protocol;
use timer::Second;
use write::Leftover;

/// The return type of a handler: a future response.
pub type ResponseFuture<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

/// The body of a response.
pub trait Outgoing: Unpin {
    /// Called when more of the request has arrived, or its end. A body that polls its
    /// request's [`Incoming`] itself has nothing to do here.
    fn hear(&mut self);

    /// Returns the next part, or `None` at the end. Without `room`, a part could not be
    /// written: a body that sends the newest value then returns `Pending`, and is asked
    /// again when there is room.
    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>>;

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
    /// bytes, in addition to the bytes that were read. A transport whose budget is used
    /// up returns `Pending` from its next read.
    fn charge(&mut self, cost: usize);
}

/// One connection: a future that ends when the connection does. Returns whether the peer
/// ever spoke HTTP/2.
pub struct Connection<S, H, B> {
    io: S,
    handler: H,
    leave: leave::Listener,
    share: Share,
    protocol: Protocol<Exchange<B>>,
    /// The part of the preface that has not arrived.
    preface: &'static [u8],
    /// Complete frames that wait for their turn, and one incomplete frame.
    rest: Vec<u8>,
    /// Whether `rest` has complete frames.
    more: bool,
    /// How many bytes of `protocol.out` are written.
    written: usize,
    /// A frame that is partly written.
    leftover: Option<Box<Leftover>>,
    /// Since when the operating system has not taken all data.
    blocked: Second,
    flushed: bool,
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    /// When the peer last sent something.
    heard: Second,
    /// When a PING was sent that has no answer yet.
    pinged: Second,
    /// Since when the connection has had no stream.
    alone: Second,
    /// Since when a frame or a header block has been incomplete.
    torn: Second,
    /// The budget of several streams; `None` until there were several.
    outflow: Option<Box<Outflow>>,
    /// Whether a stream was not asked because the budget was used up. `turn` is the first
    /// of those.
    starved: bool,
    turn: usize,
    /// The index of the stream whose DATA is written next.
    next: usize,
    /// Whether any stream has given a part.
    served: bool,
    /// Whether something has been read since the last [`Connection::look_after`].
    look: bool,
}

/// The connection's state of a stream.
struct Exchange<B> {
    requests: incoming::Sender,
    reply: Reply<B>,
    /// The data of the body that is not written.
    pending: Pieces,
    /// Whether the body has given a part.
    begun: bool,
    /// Since when a message has been incomplete.
    torn: Second,
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

/// The result of asking a stream.
enum Turn {
    Nothing,
    Something,
    Finished,
    Broken,
}

/// The connection has ended.
struct Over;

/// How long a peer may take to send the preface. A slower one will never send it.
const SPEAK_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection stays open after a GOAWAY: long enough for it to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How many turns a connection takes before others get theirs. With what is read and
/// answered in each, that is well under a millisecond.
const TURNS: usize = 4;

impl<S, H, B> Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Metered + Unpin,
    H: Fn(Request<Incoming>) -> ResponseFuture<B> + Unpin,
    B: Outgoing,
{
    /// Serves requests with `handler` until the peer goes or `leave` asks it to. All
    /// connections of a port share `common`.
    ///
    /// It must be called and polled within a tokio runtime that has a timer.
    pub fn new(io: S, common: Arc<Common>, leave: Arc<Leave>, handler: H) -> Self {
        let now = common.now();
        Self {
            io,
            handler,
            leave: leave::Listener::new(leave),
            share: Share::new(common),
            protocol: Protocol::new(),
            preface: PREFACE,
            rest: Vec::new(),
            more: false,
            written: 0,
            leftover: None,
            blocked: Second::NEVER,
            flushed: true,
            stage: Stage::Open,
            timer: Box::pin(sleep(SPEAK_WITHIN)),
            heard: now,
            pinged: Second::NEVER,
            alone: now,
            torn: Second::NEVER,
            outflow: None,
            starved: false,
            turn: 0,
            next: 0,
            served: false,
            look: false,
        }
    }

    /// Reads, answers and writes until nothing more can be done now.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        if self.stage == Stage::Open && self.leave.is_asked(cx) {
            if !self.preface.is_empty() {
                return Poll::Ready(Over);
            }
            self.send_away();
        }
        for _ in 0..TURNS {
            let Ok(heard) = self.poll_hear(cx) else { return Poll::Ready(Over) };
            self.look |= heard;
            self.note_streams();
            let answered = self.poll_streams(cx);
            let Ok(told) = self.poll_tell(cx) else { return Poll::Ready(Over) };
            self.note_streams();
            let done = match self.stage {
                Stage::Open => false,
                Stage::Leaving => self.protocol.streams.is_empty() && self.is_written(),
                Stage::Closing => self.is_written(),
            };
            if done {
                return Poll::Ready(Over);
            }
            if heard || answered || told {
                continue;
            }
            if std::mem::take(&mut self.look) || self.share.is_any() || self.starved {
                self.look_after();
            }
            if ready!(self.poll_timer(cx)).is_err() {
                return Poll::Ready(Over);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the peer to leave. Its streams have [`LAST_WORDS`] to end.
    fn send_away(&mut self) {
        self.protocol.go_away(Reason::NoError);
        self.stage = Stage::Leaving;
        self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
    }

    /// Ends a connection whose peer broke the rules or used more than its share.
    fn close(&mut self, reason: Reason) {
        self.protocol.go_away(reason);
        self.protocol.streams.clear();
        self.rest = Vec::new();
        self.more = false;
        self.stage = Stage::Closing;
        self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
    }

    /// Asks every stream for its next part, beginning with the one whose turn it is.
    /// Returns true if one had something.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let first = if self.turn < self.protocol.streams.len() { self.turn } else { 0 };
        self.starved = false;
        let after = self.poll_range(first, usize::MAX, cx);
        let before = self.poll_range(0, first, cx);
        after || before
    }

    fn poll_range(&mut self, mut at: usize, end: usize, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while at < self.protocol.streams.len().min(end) {
            match self.poll_stream(at, cx) {
                Turn::Nothing => {}
                Turn::Something => any = true,
                // Another stream takes its index.
                Turn::Finished => {
                    self.protocol.finish(at);
                    any = true;
                    continue;
                }
                Turn::Broken => {
                    self.protocol.cut(at, Reason::Internal);
                    any = true;
                    continue;
                }
            }
            if self.protocol.streams[at].has_unread() {
                let released = self.exchange(at).requests.released();
                self.protocol.release(at, released);
            }
            at += 1;
        }
        any
    }

    fn poll_stream(&mut self, at: usize, cx: &mut Context<'_>) -> Turn {
        let mut turn = Turn::Nothing;
        if let Reply::Awaited(answer) = &mut self.exchange(at).reply {
            let Poll::Ready(response) = answer.as_mut().poll(cx) else { return turn };
            let (head, body) = response.into_parts();
            let end = body.is_empty();
            self.protocol.respond(at, head.status.as_u16(), &head.headers, end);
            self.exchange(at).reply = Reply::Body(body);
            if end {
                return Turn::Finished;
            }
            turn = Turn::Something;
        }
        let only = self.is_only(at);
        let room = self.has_room(at) && (only || self.may_take(at));
        let Exchange { reply: Reply::Body(body), pending, begun, .. } = self.exchange(at) else {
            return turn;
        };
        if !pending.is_empty() {
            return turn;
        }
        let trailers = match body.poll_part(cx, room) {
            Poll::Pending => return turn,
            Poll::Ready(Some(Part::Data(data))) => {
                let length = data.len();
                (*pending, *begun) = (data, true);
                self.served = true;
                if !only {
                    self.take(length);
                }
                return Turn::Something;
            }
            Poll::Ready(Some(Part::Trailers(trailers))) => Some(trailers),
            Poll::Ready(None) => None,
            Poll::Ready(Some(Part::Broken)) => return Turn::Broken,
        };
        self.protocol.trail(at, trailers.as_ref());
        Turn::Finished
    }

    /// Returns whether the peer and the operating system take more data of the stream at
    /// `at`.
    fn has_room(&self, at: usize) -> bool {
        self.blocked == Second::NEVER
            && self.protocol.send_window > 0
            && self.protocol.streams[at].send_window > 0
    }

    fn exchange(&mut self, at: usize) -> &mut Exchange<B> {
        &mut self.protocol.streams[at].of
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
        let Over = ready!(this.poll_turns(cx));
        // Best effort: data that is not taken now is lost with the connection.
        let _ = Pin::new(&mut this.io).poll_shutdown(cx);
        Poll::Ready(this.preface.is_empty())
    }
}

#[cfg(test)]
mod tests;
