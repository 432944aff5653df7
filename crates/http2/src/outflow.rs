//! How much of a connection goes to streams beyond its first.
//!
//! In: parts of bodies. Out: whether the next may be asked for. A client has
//! one stream for each target, and each of its channels a connection; a
//! connection with many streams for large lists is none. Nothing is lost: a
//! stream that waits is given the newest there is then.

use std::time::Duration;

use tokio::time::Instant;

use super::Connection;

/// What may be taken yet, in bytes; below zero, taken in advance.
#[derive(Debug)]
pub(super) struct Outflow {
    left: i64,
    filled: Instant,
}

/// A hundred lists of a hundred backends, each changing four times a second.
const BYTES_PER_SECOND: i64 = 2 * 1024 * 1024;
/// As long as the longest list.
const BURST: i64 = 4 * 1024 * 1024;
/// One waits no shorter: many waits of nothing would cost more than they give.
const WAIT_MIN: Duration = Duration::from_millis(10);

impl Outflow {
    fn new() -> Self {
        Self { left: BURST, filled: Instant::now() }
    }

    fn is_open(&mut self) -> bool {
        let now = Instant::now();
        let micros = i64::try_from(now.duration_since(self.filled).as_micros());
        let due = micros.unwrap_or(i64::MAX).saturating_mul(BYTES_PER_SECOND) / 1_000_000;
        if due > 0 {
            self.left = self.left.saturating_add(due).min(BURST);
            self.filled = now;
        }
        self.left > 0
    }

    /// When more may be taken.
    pub(super) fn next(&self) -> Instant {
        let missing = u64::try_from(1 - self.left).unwrap_or(0);
        let millis = missing * 1000 / BYTES_PER_SECOND.unsigned_abs() + 1;
        self.filled + Duration::from_millis(millis).max(WAIT_MIN)
    }
}

impl<S, H, B> Connection<S, H, B> {
    /// Whether that stream is all that a client has: then nothing is put off.
    /// One after the other is another matter, for the first list of each is
    /// sent whatever has changed.
    pub(super) fn is_only(&self, at: usize) -> bool {
        let streams = &self.protocol.streams;
        streams.len() == 1 && (streams[at].of.begun || !self.served)
    }

    /// Whether the stream at that place, of several, may be asked for more.
    pub(super) fn may_take(&mut self, at: usize) -> bool {
        let open = self.outflow.get_or_insert_with(|| Box::new(Outflow::new())).is_open();
        if !open && !std::mem::replace(&mut self.starved, true) {
            self.turn = at;
        }
        open
    }

    /// Notes that one of several streams has given so much.
    pub(super) fn take(&mut self, length: usize) {
        if let Some(outflow) = &mut self.outflow {
            outflow.left -= i64::try_from(length).unwrap_or(i64::MAX);
        }
    }
}
