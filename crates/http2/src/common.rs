//! State that all connections of a port share.
//!
//! In: how many unfinished bytes each connection holds. Out: whether it may hold them,
//! and the time, in whole seconds since one origin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::protocol::STREAMS_STEP;
use super::timer::Second;

/// State that all connections of a port share: a limit on the memory that they hold
/// together, and the origin of their time.
#[derive(Debug)]
pub struct Common {
    /// The time from which whole seconds are counted.
    origin: Instant,
    /// Bytes of unfinished frames and messages, and of data that no reader has taken.
    held: AtomicUsize,
    /// Bytes by which windows are wider than usual, for long messages.
    widened: AtomicU32,
    /// Streams that connections may have beyond the first [`STREAMS_STEP`] of each.
    streams: AtomicU32,
}

/// The part of one connection in [`Common`].
#[derive(Debug)]
pub(super) struct Share {
    common: Arc<Common>,
    held: u32,
    widened: u32,
    streams: u32,
}

/// The most bytes of unfinished data that all connections may hold together. A client
/// sends each message in one packet, so nothing is held for it.
const HELD_MAX: usize = 32 * 1024 * 1024;
/// Beyond [`HELD_MAX`], a connection that adds to it ends unless it holds no more than
/// this, in bytes. No client has a longer report.
const SMALL: usize = 512;
/// The most bytes by which the windows of all connections together may be wider than usual.
/// Long messages are rare, and have this room for themselves, so that a flood of them ends no
/// other connection.
const WIDENED_MAX: u32 = 32 * 1024 * 1024;
/// The streams that all connections together may have beyond the first [`STREAMS_STEP`] of
/// each. They take some 100 MB if nothing but streams is opened on them.
const STREAMS_SHARED: u32 = 50_000;

impl Common {
    /// Makes the shared state for the connections of a port.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            held: AtomicUsize::new(0),
            widened: AtomicU32::new(0),
            streams: AtomicU32::new(0),
        })
    }

    /// Returns how many whole seconds have passed since the origin.
    pub(super) fn now(&self) -> Second {
        Second(u32::try_from(self.origin.elapsed().as_secs()).unwrap_or(u32::MAX - 1))
    }
}

impl Share {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self { common, held: 0, widened: 0, streams: 0 }
    }

    pub(super) fn now(&self) -> Second {
        self.common.now()
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.common.origin + time
    }

    /// Returns whether the connection holds anything.
    pub(super) fn is_any(&self) -> bool {
        self.held > 0 || self.widened > 0
    }

    /// Records how many bytes the connection holds now. Returns false if that is too much.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let held = self.held as usize;
        if bytes == held {
            return true;
        }
        let all = &self.common.held;
        let before = if bytes > held {
            all.fetch_add(bytes - held, Ordering::Relaxed)
        } else {
            all.fetch_sub(held - bytes, Ordering::Relaxed)
        };
        let grown = bytes > held;
        self.held = u32::try_from(bytes).unwrap_or(u32::MAX);
        !grown || bytes <= SMALL || before <= HELD_MAX
    }

    /// Records by how many bytes the connection's windows are to be wider than usual. Returns
    /// false, and leaves them, if all connections together have too much.
    pub(super) fn widen(&mut self, bytes: u32) -> bool {
        let more = bytes.saturating_sub(self.widened);
        let fits = |all: u32| all.checked_add(more).filter(|all| *all <= WIDENED_MAX);
        let all = &self.common.widened;
        let taken = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.widened += if taken { more } else { 0 };
        taken
    }

    /// Records by how many bytes, at most as many as before, the windows are wider now.
    pub(super) fn narrow(&mut self, bytes: u32) {
        let less = self.widened.saturating_sub(bytes);
        self.common.widened.fetch_sub(less, Ordering::Relaxed);
        self.widened -= less;
    }

    /// Takes [`STREAMS_STEP`] of the streams that all connections share, until this is
    /// dropped. Returns false if too few are left.
    pub(super) fn take_streams(&mut self) -> bool {
        let fits = |taken: u32| Some(taken + STREAMS_STEP).filter(|taken| *taken <= STREAMS_SHARED);
        let taken = self.common.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        self.streams += if taken.is_ok() { STREAMS_STEP } else { 0 };
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.common.held.fetch_sub(self.held as usize, Ordering::Relaxed);
        self.common.widened.fetch_sub(self.widened, Ordering::Relaxed);
        self.common.streams.fetch_sub(self.streams, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_windows_are_shared_by_all_connections() {
        let common = Common::new();
        let (mut greedy, mut other) = (Share::new(common.clone()), Share::new(common));
        assert!(greedy.widen(WIDENED_MAX - 1) && greedy.is_any());
        assert!(other.widen(1) && !other.widen(2) && !greedy.widen(WIDENED_MAX));
        greedy.narrow(10);
        assert!(other.widen(2));
        drop(greedy);
        assert!(other.widen(WIDENED_MAX));
        other.narrow(0);
        assert!(!other.is_any());
    }

    #[test]
    fn streams_beyond_the_first_are_shared_by_all_connections() {
        let common = Common::new();
        let mut greedy = Share::new(common.clone());
        let mut other = Share::new(common);
        let taken = (0..).take_while(|_| greedy.take_streams()).count();
        assert_eq!(taken, (STREAMS_SHARED / STREAMS_STEP) as usize);
        assert!(!other.take_streams());
        drop(greedy);
        assert!(other.take_streams());
    }
}
