//! A moment of the wall clock, in whole seconds. Pure.
//!
//! In: seconds since 1970, or text as RFC 3339 writes it. Out: the same, for keys that
//! people read. Only the wall clock means the same to every replica and outlives a
//! process.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// Seconds since 1970-01-01 00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// The longest time that a mark may be in force, unless it has no end: what is meant for
/// longer is meant for ever.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl Moment {
    /// Reads RFC 3339 in UTC, as in `2030-01-31T12:00:00Z`; parts of a second do not count.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let time = humantime::parse_rfc3339(text).ok()?;
        time.duration_since(UNIX_EPOCH).ok().map(|since| Self(since.as_secs()))
    }

    /// The moment that much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_secs()))
    }

    /// The time from an earlier moment to this one; zero if that one is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// As [`Moment::parse`] reads it.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// 9999-12-31 23:59:59: later moments cannot be written.
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
            assert_eq!(Moment::parse(text), Some(Moment(seconds)));
            assert_eq!(Moment(seconds).to_string(), text);
        }
        assert_eq!(Moment::parse("2026-11-28T10:30:00.9Z"), Some(Moment(1_795_861_800)));
        for wrong in ["", "tomorrow", "2026-11-28", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(Moment::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Moment(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Moment(5).since(Moment(2)), Duration::from_secs(3));
        assert_eq!(Moment(2).since(Moment(5)), Duration::ZERO);
    }
}
