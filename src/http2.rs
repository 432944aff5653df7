//! HTTP/2 from the server's side, for many connections that say little.
//!
//! In: a connection's bytes, what answers requests. Out: the answers. One task
//! a connection, and no buffer that outlives what is in it: a list is written
//! from where it is shared, and only the part that the system did not take is
//! held. A response's body is asked for more only when more can be written, so
//! a peer that does not read costs what is on its way and nothing else.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

mod frame;
mod head;
pub(crate) mod hpack;
mod incoming;
mod leave;
mod pieces;
mod protocol;
mod write;

use frame::{FRAME_MAX, Head, PREFACE, Reason};
pub(crate) use incoming::Incoming;
pub(crate) use leave::Leave;
pub(crate) use pieces::Pieces;
use protocol::{Event, Protocol};
use write::Leftover;

/// A response that is being made.
pub(crate) type Answer<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

/// The body of a response.
pub(crate) trait Outgoing: Unpin {
    /// More of the request has come, or its end. What reads it anyway need not
    /// be told.
    fn hear(&mut self);

    /// The next part; `None` is the end. Without `room` nothing could be
    /// written, so that it is better not to decide yet what to say.
    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>>;

    /// Whether nothing will come.
    fn is_empty(&self) -> bool;
}

/// A part of a body.
pub(crate) enum Part {
    /// Bytes.
    Data(Pieces),
    /// Its end, and what is to be said of it.
    Trailers(HeaderMap),
    /// Its end before its time.
    Broken,
}

/// One connection: a future that ends with it, and says whether the peer has
/// spoken HTTP/2 at all.
pub(crate) struct Connection<S, H, B> {
    io: S,
    handler: H,
    leave: leave::Listener,
    protocol: Protocol<Exchange<B>>,
    /// What of the preface has not come.
    preface: &'static [u8],
    /// A frame that is not whole.
    rest: Vec<u8>,
    /// How much of `protocol.out` is written.
    written: usize,
    /// A frame that is written in part.
    leftover: Option<Box<Leftover>>,
    /// The system took less than there was.
    blocked: bool,
    flushed: bool,
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    /// Whence whole seconds are counted.
    origin: Instant,
    /// The second in which the peer was heard last.
    heard: u32,
    /// Asked for a sign of life, and has not given one.
    pinged: bool,
}

/// What a stream is to the driver.
struct Exchange<B> {
    requests: incoming::Sender,
    reply: Reply<B>,
    /// What of the body is not written.
    pending: Pieces,
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
/// A peer that is gone without a word is found out after both together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a connection is told to go, until it is closed: long enough for the
/// telling to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// So much is read at a time: a whole frame.
const READ: usize = Head::SIZE + FRAME_MAX;
/// A peer that lets so many answers wait is not listened to until it reads.
const OUT_MAX: usize = 16 * 1024;
/// So often one connection goes on before others get their turn.
const TURNS: usize = 16;

impl<S, H, B> Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> Answer<B> + Unpin,
    B: Outgoing,
{
    /// Serves what comes by `handler`, until the peer goes or `leave` is asked.
    /// Connections with the same `origin` look after their peers together.
    pub(crate) fn new(io: S, origin: Instant, leave: Arc<Leave>, handler: H) -> Self {
        Self {
            io,
            handler,
            leave: leave::Listener::new(leave),
            protocol: Protocol::new(),
            preface: PREFACE,
            rest: Vec::new(),
            written: 0,
            leftover: None,
            blocked: false,
            flushed: true,
            stage: Stage::Open,
            timer: Box::pin(sleep(SPEAK_WITHIN)),
            origin,
            heard: second(origin),
            pinged: false,
        }
    }

    /// Reads, answers and writes until nothing more can be done now.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        if self.stage == Stage::Open && self.leave.is_asked(cx) {
            self.protocol.go_away(Reason::NoError);
            self.stage = Stage::Leaving;
            self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
        }
        for _ in 0..TURNS {
            let Ok(heard) = self.poll_hear(cx) else { return Poll::Ready(Over) };
            let answered = self.poll_streams(cx);
            let Ok(told) = self.poll_tell(cx) else { return Poll::Ready(Over) };
            let done = match self.stage {
                Stage::Open => false,
                Stage::Leaving => self.protocol.streams.is_empty() && self.is_written(),
                Stage::Closing => self.is_written(),
            };
            if done {
                return Poll::Ready(Over);
            }
            if !(heard || answered || told) && ready!(self.poll_timer(cx)).is_err() {
                return Poll::Ready(Over);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads what there is; true when there was something.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        let waiting = self.protocol.out.len() - self.written;
        if self.stage == Stage::Closing || waiting >= OUT_MAX {
            return Ok(false);
        }
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(_) => return Err(Over),
        }
        (self.heard, self.pinged) = (second(self.origin), false);
        if let Err(reason) = self.take_in(buffer.filled(), cx) {
            if !self.preface.is_empty() {
                return Err(Over);
            }
            self.protocol.go_away(reason);
            self.protocol.streams.clear();
            self.stage = Stage::Closing;
            self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
        }
        Ok(true)
    }

    fn take_in(&mut self, mut bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Reason> {
        if !self.preface.is_empty() {
            let (said, rest) = bytes.split_at(bytes.len().min(self.preface.len()));
            self.preface = self.preface.strip_prefix(said).ok_or(Reason::Protocol)?;
            bytes = rest;
            if self.preface.is_empty() && self.stage == Stage::Open {
                let due = self.silent_at();
                self.timer.as_mut().reset(due);
            }
        }
        let mut rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            let used = self.frames(bytes, cx)?;
            rest.extend_from_slice(&bytes[used..]);
        } else {
            rest.extend_from_slice(bytes);
            let used = self.frames(&rest, cx)?;
            rest.drain(..used);
        }
        // No memory is held while there is nothing, as in an idle connection.
        if !rest.is_empty() {
            self.rest = rest;
        }
        Ok(())
    }

    /// Takes in the whole frames at the beginning, and says how long they are.
    fn frames(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Reason> {
        let mut used = 0;
        while let Some(head) = Head::read(&bytes[used..]) {
            if head.length > FRAME_MAX {
                return Err(Reason::FrameSize);
            }
            let start = used + Head::SIZE;
            let Some(payload) = bytes.get(start..start + head.length) else { break };
            used = start + head.length;
            match self.protocol.receive(head, payload)? {
                Event::Nothing | Event::Pong => {}
                Event::Request(request, opening) => {
                    let (requests, incoming) = incoming::channel();
                    if opening.end {
                        requests.push(&[], true, cx);
                    }
                    let reply = Reply::Awaited((self.handler)(request.map(|()| incoming)));
                    let pending = Pieces::default();
                    self.protocol.open(opening, Exchange { requests, reply, pending });
                }
                Event::Data(at, data) => self.exchange(at).hear(data, false, cx),
                Event::End(at, data) => self.exchange(at).hear(data, true, cx),
            }
        }
        Ok(used)
    }

    /// Asks every stream for what it has to say; true when one had something.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut at, mut any) = (0, false);
        while at < self.protocol.streams.len() {
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
        let room = !self.blocked
            && self.protocol.send_window > 0
            && self.protocol.streams[at].send_window > 0;
        let Exchange { reply: Reply::Body(body), pending, .. } = self.exchange(at) else {
            return turn;
        };
        if !pending.is_empty() {
            return turn;
        }
        let trailers = match body.poll_part(cx, room) {
            Poll::Pending => return turn,
            Poll::Ready(Some(Part::Data(data))) => {
                *pending = data;
                return Turn::Something;
            }
            Poll::Ready(Some(Part::Trailers(trailers))) => Some(trailers),
            Poll::Ready(None) => None,
            Poll::Ready(Some(Part::Broken)) => return Turn::Broken,
        };
        self.protocol.trail(at, trailers.as_ref());
        Turn::Finished
    }

    /// Waits until something must be done for the time that has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        ready!(self.timer.as_mut().poll(cx));
        if self.stage != Stage::Open || !self.preface.is_empty() || self.pinged {
            return Poll::Ready(Err(Over));
        }
        let (now, mut due) = (Instant::now(), self.silent_at());
        if due <= now {
            self.protocol.ping();
            self.pinged = true;
            due = now + KEEPALIVE_TIMEOUT;
        }
        self.timer.as_mut().reset(due);
        Poll::Ready(Ok(()))
    }

    /// When a peer that says nothing more is to be asked for a sign of life: at
    /// a whole second before its time is over, together with others. One by one,
    /// ten thousand idle connections would wake the process hundreds of times a
    /// second.
    fn silent_at(&self) -> Instant {
        self.origin + Duration::from_secs(self.heard.into()) + KEEPALIVE_INTERVAL
    }

    fn exchange(&mut self, at: usize) -> &mut Exchange<B> {
        &mut self.protocol.streams[at].of
    }
}

impl<B: Outgoing> Exchange<B> {
    fn hear(&mut self, data: &[u8], end: bool, cx: &mut Context<'_>) {
        self.requests.push(data, end, cx);
        if let Reply::Body(body) = &mut self.reply {
            body.hear();
        }
    }
}

/// How many whole seconds have passed.
fn second(origin: Instant) -> u32 {
    u32::try_from(origin.elapsed().as_secs()).unwrap_or(u32::MAX)
}

impl<S, H, B> Future for Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
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
