//! Timeouts: PINGs, and the end of whatever would never end.
//!
//! In: since when a condition has held, in whole seconds. Out: PINGs, streams that are
//! reset, connections that are told to leave.
//! A connection has one timer, which is not set again when its time only gets later.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::frame::Reason;
use super::protocol::Stream;
use super::{
    Connection, ConnectionEnded, Exchange, Incoming, Metered, Outgoing, ResponseFuture, Stage,
};

/// A second since the origin, or [`Second::NEVER`]: the condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Second(pub(super) u32);

/// A peer that vanished is detected after both times together, in seconds.
const KEEPALIVE_INTERVAL: u32 = 30;
const KEEPALIVE_TIMEOUT: u32 = 10;
/// How many seconds a connection may have no stream. A client keeps its stream for as
/// long as it lives, and opens it at once.
const IDLE_MAX: u32 = 60;
/// How many seconds a frame or message may be incomplete. Each fits in one packet or a
/// few, so a slower one will never be complete.
const INCOMPLETE_MAX: u32 = 10;
/// How many bytes of a long message give a second more: half of what a connection may send.
const LONG_PER_SECOND: u32 = 8 * 1024;
/// How many seconds a peer may accept no data. After that its connection ends, whatever it
/// sends.
const BLOCKED_MAX: u32 = 60;

impl Second {
    pub(super) const NEVER: Self = Self(u32::MAX);

    /// Returns whether the condition has held for that many seconds.
    fn is_past(self, seconds: u32, now: Self) -> bool {
        self != Self::NEVER && now.0 >= self.0.saturating_add(seconds)
    }

    /// Records whether the condition holds, and since when.
    pub(super) fn note(&mut self, is_so: bool, now: impl FnOnce() -> Self) {
        match (is_so, *self) {
            (true, Self::NEVER) => *self = now(),
            (true, _) => {}
            (false, _) => *self = Self::NEVER,
        }
    }
}

/// Returns how many seconds a stream's message may be incomplete.
fn message_max<B>(stream: &Stream<Exchange<B>>) -> u32 {
    let most = if stream.state.is_blocked { BLOCKED_MAX } else { INCOMPLETE_MAX };
    most + stream.widened() / LONG_PER_SECOND
}

impl<S, H, B> Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Metered + Unpin,
    H: Fn(Request<Incoming>) -> ResponseFuture<B> + Unpin,
    B: Outgoing,
{
    /// Waits until a timeout is due, then acts on it.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnded>> {
        ready!(self.timer.as_mut().poll(cx));
        if self.stage != Stage::Open || self.awaits_preface() {
            return Poll::Ready(Err(ConnectionEnded));
        }
        let now = self.share.now();
        if self.ping_sent.is_past(KEEPALIVE_TIMEOUT, now)
            || self.blocked_since.is_past(BLOCKED_MAX, now)
        {
            return Poll::Ready(Err(ConnectionEnded));
        }
        if self.incomplete_since.is_past(INCOMPLETE_MAX, now) {
            self.close(Reason::EnhanceYourCalm);
            return Poll::Ready(Ok(()));
        }
        if self.idle_since.is_past(IDLE_MAX, now) {
            self.send_goaway();
            return Poll::Ready(Ok(()));
        }
        let mut at = 0;
        while let Some(stream) = self.protocol.streams.get(at) {
            if stream.state.incomplete_since.is_past(message_max(stream), now) {
                self.protocol.reset_stream(at, Reason::EnhanceYourCalm);
            } else {
                at += 1;
            }
        }
        if self.ping_sent == Second::NEVER && self.last_received.is_past(KEEPALIVE_INTERVAL, now) {
            self.protocol.ping();
            self.ping_sent = now;
        }
        let due = self.due();
        self.timer.as_mut().reset(due);
        Poll::Ready(Ok(()))
    }

    /// Returns when the next timeout is due: at a whole second, together with other
    /// connections. Otherwise ten thousand idle connections would wake the process
    /// hundreds of times a second.
    pub(super) fn due(&self) -> Instant {
        let life = match self.ping_sent {
            Second::NEVER => (self.last_received, KEEPALIVE_INTERVAL),
            ping_sent => (ping_sent, KEEPALIVE_TIMEOUT),
        };
        let streams = self.protocol.streams.iter();
        let streams = streams.map(|stream| (stream.state.incomplete_since, message_max(stream)));
        let next = [life, (self.idle_since, IDLE_MAX), (self.incomplete_since, INCOMPLETE_MAX)]
            .into_iter()
            .chain([(self.blocked_since, BLOCKED_MAX)])
            .chain(streams)
            .filter(|(since, _)| *since != Second::NEVER)
            .map(|(since, seconds)| since.0.saturating_add(seconds))
            .min();
        let due = self.share.at(Duration::from_secs(next.unwrap_or(self.last_received.0).into()));
        match &self.send_budget {
            Some(send_budget) if self.starved => due.min(send_budget.next()),
            _ => due,
        }
    }

    /// Records how many streams the connection has.
    pub(super) fn note_streams(&mut self) {
        let streams = u32::try_from(self.protocol.streams.len()).unwrap_or(u32::MAX);
        let idle = streams == 0;
        if idle != (self.idle_since != Second::NEVER) {
            let now = self.share.now();
            self.idle_since.note(idle, || now);
        }
        // Written only when it changes: the memory is shared, and a poll otherwise hardly
        // uses it.
        if streams != std::mem::replace(&mut self.streams_noted, streams) {
            self.close_listener.set_streams(streams);
        }
    }

    /// Records which frames and messages are incomplete, and how many bytes are held for
    /// them.
    pub(super) fn note_incomplete(&mut self) {
        if self.stage != Stage::Open || self.awaits_preface() {
            return;
        }
        let now = self.share.now();
        let block = self.protocol.block_len();
        self.incomplete_since.note(!self.rest.is_empty() && !self.more || block > 0, || now);
        let mut is_new = self.incomplete_since == now;
        let mut held = self.rest.capacity() + block;
        for at in 0..self.protocol.streams.len() {
            let room = self.has_room(at);
            let stream = &mut self.protocol.streams[at];
            held += stream.unread();
            if std::mem::replace(&mut stream.state.is_blocked, !room) && room {
                // A message that had to wait has its time from now on.
                stream.state.incomplete_since = Second::NEVER;
            }
            // While an answer is on its way to the peer, its next message may wait.
            let is_incomplete = stream.has_unread() && stream.state.pending.is_none();
            stream.state.incomplete_since.note(is_incomplete, || now);
            is_new |= stream.state.incomplete_since == now;
        }
        self.share.narrow(self.protocol.widened());
        if !self.share.hold(held) {
            return self.close(Reason::EnhanceYourCalm);
        }
        if is_new || self.starved {
            let due = self.due();
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
        }
    }
}
