//! The one clock: monotonic, and the one that timers run by.
//!
//! In: nothing. Out: the time. A test or a simulation that pauses tokio's time pauses
//! this too.

use std::time::Instant;

/// Returns the current time.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
