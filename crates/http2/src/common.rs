//! What all connections of a port share.
//!
//! In: how much each holds of what its peer has begun to say. Out: whether it
//! may, and the time, in whole seconds since one origin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::timer::Second;

/// What all connections of a port share: a bound on the memory that they hold
/// together, and the origin of their time.
#[derive(Debug)]
pub struct Common {
    /// Whence whole seconds are counted.
    origin: Instant,
    /// Bytes of unfinished frames and messages, and of what nobody has read.
    held: AtomicUsize,
}

/// One connection's part in it.
#[derive(Debug)]
pub(super) struct Share {
    common: Arc<Common>,
    held: usize,
}

/// So much all connections together hold of what is not finished. Clients say
/// all in one packet, so that nothing is held for them.
const HELD_MAX: usize = 32 * 1024 * 1024;
/// Beyond that a connection is ended which holds more than this: more than the
/// longest report of any client.
const SMALL: usize = 512;

impl Common {
    /// Makes one for the connections of a port.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), held: AtomicUsize::new(0) })
    }

    /// How many whole seconds have passed.
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

    /// Whether something is held.
    pub(super) fn is_any(&self) -> bool {
        self.held > 0
    }

    /// Notes how much is held now; false if that is too much.
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
