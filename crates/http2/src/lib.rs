//! Serves HTTP/2 connections.
//!
//! In: a connection's bytes, and a handler that answers requests. Out: the
//! answers. A [`Connection`] is one future, and keeps no buffer that outlives
//! what is in it: a body's part is written from where it is shared, and only what
//! the system did not take is kept. A body is asked for its next part only when
//! that can be written, so a peer that does not read costs what is on its way and
//! nothing else. The crate must never know what the bodies mean.
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

/// What a handler returns: a response that is being made.
pub type Answer<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

/// The body of a response.
pub trait Outgoing: Unpin {
    /// Called when more of the request has come, or its end. A body that polls
    /// its request's [`Incoming`] anyway has nothing to do here.
    fn hear(&mut self);

    /// Returns the next part, or `None` at the end. Without `room` a part could
    /// not be written: a body that sends the newest value returns `Pending` then,
    /// and is asked again when there is room.
    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>>;

    /// Whether the body has no part at all, so that the response ends with its
    /// head. Asked once, when the response is made.
    fn is_empty(&self) -> bool;
}

/// A part of a body.
pub enum Part {
    /// Bytes.
    Data(Pieces),
    /// The end of the body, with trailers.
    Trailers(HeaderMap),
    /// The body broke off: the stream is reset.
    Broken,
}

/// A transport with a budget for what its peer says. [`WithMeter`] makes one of
/// any transport.
pub trait Metered {
    /// Charges the peer for the work that what it said has caused: `cost` is
    /// counted in bytes, and comes on top of the bytes that were read. A transport
    /// whose budget is used up returns `Pending` from its next read.
    fn charge(&mut self, cost: usize);
}

/// One connection: a future that ends when the connection does. It returns
/// whether the peer has spoken HTTP/2 at all.
pub struct Connection<S, H, B> {
    io: S,
    handler: H,
    leave: leave::Listener,
    share: Share,
    protocol: Protocol<Exchange<B>>,
    /// What of the preface has not come.
    preface: &'static [u8],
    /// Frames that have not had their turn, and one that is not whole.
    rest: Vec<u8>,
    /// There are whole frames in it.
    more: bool,
    /// How much of `protocol.out` is written.
    written: usize,
    /// A frame that is written in part.
    leftover: Option<Box<Leftover>>,
    /// Since when the system has taken less than there is.
    blocked: Second,
    flushed: bool,
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    /// When the peer was heard last.
    heard: Second,
    /// When it was asked for a sign of life that it has not given.
    pinged: Second,
    /// Since when it has had no stream.
    alone: Second,
    /// Since when a frame or a header block has not been whole.
    torn: Second,
    /// What the streams beyond the first may take; none until there are any.
    outflow: Option<Box<Outflow>>,
    /// A stream was not asked because of that; the first that was not.
    starved: bool,
    turn: usize,
    /// The place of the stream whose DATA is written next.
    next: usize,
    /// A stream has been given a part.
    served: bool,
    /// Something was heard, and not looked after yet.
    look: bool,
}

/// What a stream is to the driver.
struct Exchange<B> {
    requests: incoming::Sender,
    reply: Reply<B>,
    /// What of the body is not written.
    pending: Pieces,
    /// A part of the body has been given.
    begun: bool,
    /// Since when a message has not been whole.
    torn: Second,
}

enum Reply<B> {
    Awaited(Answer<B>),
    Body(B),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Told to go; its streams go on until it does.
    Leaving,
    /// It broke the rules: it is told so, and that is all.
    Closing,
}

/// What came of asking a stream.
enum Turn {
    Nothing,
    Something,
    Finished,
    Broken,
}

/// That the connection is over.
struct Over;

/// A connection that has not spoken HTTP/2 after this long never will.
const SPEAK_WITHIN: Duration = Duration::from_secs(5);
/// After a connection is told to go, until it is closed: long enough for the
/// telling to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// So often one connection goes on before others get their turn: with what is
/// read and answered in one, well under a millisecond.
const TURNS: usize = 4;

impl<S, H, B> Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Metered + Unpin,
    H: Fn(Request<Incoming>) -> Answer<B> + Unpin,
    B: Outgoing,
{
    /// Serves requests by `handler` until the peer goes or `leave` asks it to.
    /// `common` is shared by all connections of a port.
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

    /// Tells the peer to go; its streams have a moment left.
    fn send_away(&mut self) {
        self.protocol.go_away(Reason::NoError);
        self.stage = Stage::Leaving;
        self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
    }

    /// Ends what the peer has broken, or has no right to.
    fn close(&mut self, reason: Reason) {
        self.protocol.go_away(reason);
        self.protocol.streams.clear();
        self.rest = Vec::new();
        self.more = false;
        self.stage = Stage::Closing;
        self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
    }

    /// Asks every stream for what it has to say, first the one whose turn it
    /// is; true when one had something.
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
                // Another takes its place.
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

    /// Whether the peer and the system take more of the stream at that place.
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
    H: Fn(Request<Incoming>) -> Answer<B> + Unpin,
    B: Outgoing,
{
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let this = self.get_mut();
        let Over = ready!(this.poll_turns(cx));
        // Best effort: what is not taken now is lost with the connection.
        let _ = Pin::new(&mut this.io).poll_shutdown(cx);
        Poll::Ready(this.preface.is_empty())
    }
}

#[cfg(test)]
mod tests;
