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
use super::{Connection, Incoming, Metered, Outgoing, Over, ResponseFuture, Stage};

/// A second since the origin, or [`Second::NEVER`]: the condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Second(pub(super) u32);

/// A peer that vanished is detected after both times together, in seconds.
const KEEPALIVE_INTERVAL: u32 = 30;
const KEEPALIVE_TIMEOUT: u32 = 10;
/// How many seconds a connection may have no stream. A client keeps its stream for as
/// long as it lives, and opens it at once.
const ALONE_MAX: u32 = 60;
/// How many seconds a frame or message may be incomplete. Each fits in one packet or a
/// few, so a slower one will never be complete.
const TORN_MAX: u32 = 10;
/// How many seconds a peer may take no data. Such a peer is gone, whatever it sends.
const BLOCKED_MAX: u32 = 60;

impl Second {
    pub(super) const NEVER: Self = Self(u32::MAX);

    /// Returns whether the condition has held for that many seconds.
    fn is_past(self, seconds: u32, now: Self) -> bool {
        self != Self::NEVER && now.0 >= self.0.saturating_add(seconds)
    }

    /// Notes whether the condition holds, and since when.
    pub(super) fn note(&mut self, is_so: bool, now: impl FnOnce() -> Self) {
        match (is_so, *self) {
            (true, Self::NEVER) => *self = now(),
            (true, _) => {}
            (false, _) => *self = Self::NEVER,
        }
    }
}

impl<S, H, B> Connection<S, H, B>
where
    S: AsyncRead + AsyncWrite + Metered + Unpin,
    H: Fn(Request<Incoming>) -> ResponseFuture<B> + Unpin,
    B: Outgoing,
{
    /// Waits until a timeout is due, then acts on it.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        ready!(self.timer.as_mut().poll(cx));
        if self.stage != Stage::Open || !self.preface.is_empty() {
            return Poll::Ready(Err(Over));
        }
        let now = self.share.now();
        if self.pinged.is_past(KEEPALIVE_TIMEOUT, now) || self.blocked.is_past(BLOCKED_MAX, now) {
            return Poll::Ready(Err(Over));
        }
        if self.torn.is_past(TORN_MAX, now) {
            self.close(Reason::EnhanceYourCalm);
            return Poll::Ready(Ok(()));
        }
        if self.alone.is_past(ALONE_MAX, now) {
            self.send_away();
            return Poll::Ready(Ok(()));
        }
        let mut at = 0;
        while let Some(stream) = self.protocol.streams.get(at) {
            if stream.of.torn.is_past(TORN_MAX, now) {
                self.protocol.cut(at, Reason::EnhanceYourCalm);
            } else {
                at += 1;
            }
        }
        if self.pinged == Second::NEVER && self.heard.is_past(KEEPALIVE_INTERVAL, now) {
            self.protocol.ping();
            self.pinged = now;
        }
        let due = self.due();
        self.timer.as_mut().reset(due);
        Poll::Ready(Ok(()))
    }

    /// Returns when the next timeout is due: at a whole second, together with other
    /// connections. Otherwise ten thousand idle connections would wake the process
    /// hundreds of times a second.
    pub(super) fn due(&self) -> Instant {
        let life = match self.pinged {
            Second::NEVER => (self.heard, KEEPALIVE_INTERVAL),
            pinged => (pinged, KEEPALIVE_TIMEOUT),
        };
        let streams = self.protocol.streams.iter().map(|stream| (stream.of.torn, TORN_MAX));
        let next = [life, (self.alone, ALONE_MAX), (self.torn, TORN_MAX)]
            .into_iter()
            .chain([(self.blocked, BLOCKED_MAX)])
            .chain(streams)
            .filter(|(since, _)| *since != Second::NEVER)
            .map(|(since, seconds)| since.0.saturating_add(seconds))
            .min();
        let due = self.share.at(Duration::from_secs(next.unwrap_or(self.heard.0).into()));
        match &self.outflow {
            Some(outflow) if self.starved => due.min(outflow.next()),
            _ => due,
        }
    }

    /// Notes whether the connection has a stream.
    pub(super) fn note_streams(&mut self) {
        let alone = self.protocol.streams.is_empty();
        if alone != (self.alone != Second::NEVER) {
            let now = self.share.now();
            self.alone.note(alone, || now);
            self.leave.set_alone(alone);
        }
    }

    /// Notes which frames and messages are incomplete, and how many bytes are held for
    /// them.
    pub(super) fn look_after(&mut self) {
        if self.stage != Stage::Open || !self.preface.is_empty() {
            return;
        }
        let now = self.share.now();
        let block = self.protocol.block_len();
        self.torn.note(!self.rest.is_empty() && !self.more || block > 0, || now);
        let mut torn = self.torn == now;
        let mut held = self.rest.capacity() + block;
        for at in 0..self.protocol.streams.len() {
            let room = self.has_room(at);
            let stream = &mut self.protocol.streams[at];
            held += stream.unread();
            // While an answer waits for the peer, its next message may wait too.
            let is_torn = stream.has_unread() && room && stream.of.pending.is_empty();
            stream.of.torn.note(is_torn, || now);
            torn |= stream.of.torn == now;
        }
        if !self.share.hold(held) {
            return self.close(Reason::EnhanceYourCalm);
        }
        if torn || self.starved {
            let due = self.due();
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
        }
    }
}
