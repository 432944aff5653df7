//! The clock of timers, monotonic, and the wall clock.
//!
//! In: nothing. Out: the time. A test or a simulation that pauses tokio's time pauses
//! this too.

#![expect(clippy::disallowed_types, reason = "only the wall clock is the same on every replica")]

use std::time::{Duration, Instant, SystemTime};

/// Returns the current time.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the time since 1970 by the wall clock; zero if it is set before that.
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
