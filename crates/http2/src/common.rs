//! State that all connections of a port share.
//!
//! In: how many unfinished bytes each connection holds. Out: whether it may hold them,
//! and the time, in whole seconds since one origin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::timer::Second;

/// State that all connections of a port share: a limit on the memory that they hold
/// together, and the origin of their time.
#[derive(Debug)]
pub struct Common {
    /// The time from which whole seconds are counted.
    origin: Instant,
    /// Bytes of unfinished frames and messages, and of data that no reader has taken.
    held: AtomicUsize,
}

/// The part of one connection in [`Common`].
#[derive(Debug)]
pub(super) struct Share {
    common: Arc<Common>,
    held: usize,
}

/// The most bytes of unfinished data that all connections may hold together. A client
/// sends each message in one packet, so nothing is held for it.
const HELD_MAX: usize = 32 * 1024 * 1024;
/// Beyond [`HELD_MAX`], a connection that adds to it ends unless it holds no more than
/// this, in bytes. No client has a longer report.
const SMALL: usize = 512;

impl Common {
    /// Makes the shared state for the connections of a port.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), held: AtomicUsize::new(0) })
    }

    /// Returns how many whole seconds have passed since the origin.
    pub(super) fn now(&self) -> Second {
        Second(u32::try_from(self.origin.elapsed().as_secs()).unwrap_or(u32::MAX - 1))
    }
}

impl Share {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self { common, held: 0 }
    }

    pub(super) fn now(&self) -> Second {
        self.common.now()
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.common.origin + time
    }

    /// Returns whether the connection holds anything.
    pub(super) fn is_any(&self) -> bool {
        self.held > 0
    }

    /// Records how many bytes the connection holds now. Returns false if that is too much.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        if bytes == self.held {
            return true;
        }
        let all = &self.common.held;
        let before = if bytes > self.held {
            all.fetch_add(bytes - self.held, Ordering::Relaxed)
        } else {
            all.fetch_sub(self.held - bytes, Ordering::Relaxed)
        };
        let grown = bytes > self.held;
        self.held = bytes;
        !grown || bytes <= SMALL || before <= HELD_MAX
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.common.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}
