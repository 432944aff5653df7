//! Reads what the peer sends, a little at a time.
//!
//! In: the bytes of a connection. Out: requests for the handler, DATA for its reader, and
//! the cost of each.
//! It handles so little in one turn that no other connection has to wait for it.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{FRAME_MAX, Head, PREFACE, Reason, kind};
use super::protocol::{Event, STREAMS_STEP};
use super::timer::Second;
use super::{
    Connection, ConnectionEnded, Exchange, Incoming, Metered, Outgoing, Reply, ResponseFuture,
};
use super::{Stage, incoming};

/// How many bytes are read at a time. Clients send far less.
const READ: usize = 4 * 1024;
/// How many requests are begun at a time. Each costs as much as a hundred other frames.
const REQUESTS: usize = 8;
/// How many bytes of answers may wait before nothing more is read from the peer.
const OUT_MAX: usize = 16 * 1024;
/// The cost of a frame beyond its bytes, to handle and answer it, in bytes.
const FRAME_COST: usize = 32;
/// The additional cost of a request, in bytes.
const REQUEST_COST: usize = 256;

impl<S, H, B> Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Metered + Unpin,
    H: Fn(Request<Incoming>) -> ResponseFuture<B> + Unpin,
    B: Outgoing,
{
    /// Reads what has arrived. Returns true if there was something.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionEnded> {
        let waiting = self.protocol.out.len() - self.written;
        if self.stage == Stage::Closing || waiting >= OUT_MAX {
            return Ok(false);
        }
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        if !self.more {
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Err(ConnectionEnded),
            }
            (self.last_received, self.ping_sent) = (self.share.now(), Second::NEVER);
        }
        if let Err(reason) = self.take_in(buffer.filled(), cx) {
            if self.awaits_preface() {
                return Err(ConnectionEnded);
            }
            self.close(reason);
        }
        Ok(true)
    }

    fn take_in(&mut self, mut bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Reason> {
        if self.awaits_preface() {
            let missing = &PREFACE[self.preface.into()..];
            let (said, rest) = bytes.split_at(bytes.len().min(missing.len()));
            if !missing.starts_with(said) {
                return Err(Reason::Protocol);
            }
            self.preface += u8::try_from(said.len()).unwrap_or(u8::MAX);
            bytes = rest;
            if !self.awaits_preface() && self.stage == Stage::Open {
                let due = self.due();
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
        // An empty buffer is not kept, so an idle connection holds no memory.
        if !rest.is_empty() {
            self.rest = rest;
        }
        Ok(())
    }

    /// Handles the complete frames at the beginning, until other connections must run.
    /// Returns how many bytes it handled.
    fn frames(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Reason> {
        let (mut used, mut requests, mut cost, mut back) = (0, 0, 0, 0);
        self.more = false;
        while let Some(head) = Head::read(&bytes[used..]) {
            if head.length > FRAME_MAX {
                return Err(Reason::FrameSize);
            }
            let start = used + Head::SIZE;
            let Some(payload) = bytes.get(start..start + head.length) else { break };
            if requests == REQUESTS {
                self.more = true;
                break;
            }
            used = start + head.length;
            // After a frame, all streams are asked for more.
            cost += FRAME_COST * (1 + self.protocol.streams.len() / STREAMS_STEP as usize);
            // Only HEADERS open a stream.
            let opens = head.kind == kind::HEADERS && self.protocol.is_full();
            if opens && self.share.take_streams() {
                self.protocol.allow_streams();
            }
            self.incomplete_since = Second::NEVER;
            match self.protocol.receive(head, payload)? {
                Event::Nothing | Event::Pong => {}
                Event::Request(request, opening) => {
                    let (sender, incoming) = incoming::channel();
                    if opening.end {
                        sender.push(&[], true, cx);
                    }
                    let reply = Reply::Awaited((self.handler)(request.map(|()| incoming)));
                    self.protocol.open(opening, Exchange::new(sender, reply));
                    (requests, cost) = (requests + 1, cost + REQUEST_COST);
                }
                Event::Data(at, data) => {
                    let part = self.long_part(at, data.len());
                    let exchange = self.exchange(at);
                    exchange.requests.give_back(part as u32);
                    exchange.receive(data, false, cx);
                    back += part;
                }
                Event::End(at, data) => self.exchange(at).receive(data, true, cx),
            }
        }
        self.io.charge(cost as isize - back as isize);
        Ok(used)
    }

    /// Lets the peer send as much more as the reader of the stream at `at` is done with, and
    /// as its message needs. The bytes of a long message cost no more than the reads and frames
    /// that bring them: those that came before its reader knew the length are given back now.
    pub(super) fn take_back(&mut self, at: usize) {
        let Exchange { requests, reply, incomplete_since, .. } = self.exchange(at);
        let (released, expected) = (requests.released(), requests.expected());
        let rest = requests.finished();
        let cost = match reply {
            Reply::Body(body) => body.cost(),
            Reply::Awaited(_) => 0,
        };
        if released > 0 {
            // What is incomplete now is another message.
            *incomplete_since = Second::NEVER;
            self.protocol.release(at, released);
        }
        if cost > 0 || rest > 0 {
            self.io.charge(cost as isize - rest as isize);
        }
        let missing = self.protocol.missing(at, expected);
        if missing > 0 && self.share.widen(self.protocol.widened() + missing) {
            self.protocol.widen(at, missing);
        }
    }

    /// Returns how many of the `length` bytes that have just arrived on the stream at `at` are
    /// of a long message whose reader knows its length.
    fn long_part(&self, at: usize, length: usize) -> usize {
        let stream = &self.protocol.streams[at];
        let expected = stream.state.requests.expected() as usize;
        let before = stream.arrived().saturating_sub(length);
        length.min(expected.saturating_sub(before))
    }
}

impl<B: Outgoing> Exchange<B> {
    fn new(requests: incoming::Sender, reply: Reply<B>) -> Self {
        let incomplete_since = Second::NEVER;
        Self { requests, reply, pending: None, begun: false, is_blocked: false, incomplete_since }
    }

    fn receive(&mut self, data: &[u8], end: bool, cx: &mut Context<'_>) {
        self.requests.push(data, end, cx);
        if let Reply::Body(body) = &mut self.reply {
            body.request_arrived();
        }
    }
}
