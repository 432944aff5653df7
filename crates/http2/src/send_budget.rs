//! Limits how much a connection with several streams is sent.
//!
//! In: parts of bodies. Out: whether the next part may be asked for.
//! A gRPC client has one stream for each target, and each of its channels has a
//! connection. So a connection with many streams for large lists belongs to no usual
//! client. No data is lost: a stream that waits gets the newest value later.

use std::time::Duration;

use tokio::time::Instant;

use super::Connection;

/// How many bytes may still be sent. Below zero: bytes that were sent in advance.
#[derive(Debug)]
pub(super) struct SendBudget {
    left: i64,
    filled: Instant,
}

/// The budget per second, in bytes: a hundred lists of a hundred backends, each changing
/// four times a second.
const BYTES_PER_SECOND: i64 = 2 * 1024 * 1024;
/// The most that the budget can hold, in bytes: as long as the longest list.
const BURST: i64 = 4 * 1024 * 1024;
/// The shortest wait. Many waits for little budget would cost more than they give.
const WAIT_MIN: Duration = Duration::from_millis(10);

impl SendBudget {
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

    /// Returns when the budget allows more.
    pub(super) fn next(&self) -> Instant {
        let missing = u64::try_from(1 - self.left).unwrap_or(0);
        let millis = missing * 1000 / BYTES_PER_SECOND.unsigned_abs() + 1;
        self.filled + Duration::from_millis(millis).max(WAIT_MIN)
    }
}

impl<S, H, B> Connection<S, H, B> {
    /// Returns whether the stream at `at` is not limited: it is the only open one, and either
    /// has begun or is the first that is served. Streams that are opened one after the other
    /// are limited, because the first list of each is sent even if nothing has changed.
    pub(super) fn is_only(&self, at: usize) -> bool {
        let streams = &self.protocol.streams;
        streams.len() == 1 && (streams[at].state.begun || !self.served)
    }

    /// Returns whether the stream at `at`, one of several, may be asked for more.
    pub(super) fn may_take(&mut self, at: usize) -> bool {
        let open = self.send_budget.get_or_insert_with(|| Box::new(SendBudget::new())).is_open();
        if !open && !std::mem::replace(&mut self.starved, true) {
            self.first_polled = u16::try_from(at).unwrap_or(0);
        }
        open
    }

    /// Charges `length` bytes that one of several streams sends.
    pub(super) fn take(&mut self, length: usize) {
        if let Some(send_budget) = &mut self.send_budget {
            send_budget.left -= i64::try_from(length).unwrap_or(i64::MAX);
        }
    }
}
