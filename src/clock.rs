//! The one clock: monotonic, and the same that timers run by.
//!
//! In: nothing. Out: the time. Whoever stops or bends tokio's time (a test, a
//! simulation) bends this with it.

use std::time::Instant;

/// Now.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
