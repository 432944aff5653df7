//! A moment of the wall clock, in whole seconds. Pure.
//!
//! In: seconds since 1970, or text in the form of RFC 3339. Out: the same. Marks use
//! the wall clock, because it is the same for every replica and outlives a process.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// Seconds since 1970-01-01 00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

/// The longest time that a mark with an end may be in force. A mark that is meant for
/// longer needs no end.
pub const LASTS_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl Timestamp {
    /// Parses RFC 3339 in UTC, as in `2030-01-31T12:00:00Z`. Fractions of a second are
    /// dropped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let time = humantime::parse_rfc3339(text).ok()?;
        time.duration_since(UNIX_EPOCH).ok().map(|since| Self(since.as_secs()))
    }

    /// Returns the moment that is `time` later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_secs()))
    }

    /// Returns the time from an earlier moment to this one; zero if that one is not
    /// earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// The text that [`Timestamp::parse`] reads.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// 9999-12-31 23:59:59: RFC 3339 cannot express a later moment.
        const LAST: u64 = 253_402_300_799;
        let time = UNIX_EPOCH + Duration::from_secs(self.0.min(LAST));
        write!(f, "{}", humantime::format_rfc3339_seconds(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_they_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-28T10:30:00Z", 1_795_861_800),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(Timestamp::parse(text), Some(Timestamp(seconds)));
            assert_eq!(Timestamp(seconds).to_string(), text);
        }
        assert_eq!(Timestamp::parse("2026-11-28T10:30:00.9Z"), Some(Timestamp(1_795_861_800)));
        for wrong in ["", "tomorrow", "2026-11-28", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(Timestamp::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp(5).since(Timestamp(2)), Duration::from_secs(3));
        assert_eq!(Timestamp(2).since(Timestamp(5)), Duration::ZERO);
    }
}
