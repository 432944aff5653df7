//! Limits how often a warning is repeated: mostly once a minute, with the count since the last.
//!
//! In: how many new cases there are, and the time. Out: whether to log, and how many. Pure.

use std::time::{Duration, Instant};

/// When the warning was logged last, and how many cases it did not include.
#[derive(Debug)]
pub(crate) struct WarningLimit {
    /// The least time between two warnings.
    every: Duration,
    last_warned: Option<Instant>,
    unreported: usize,
}

/// Thousands of keys that are rejected in a row get one log line.
const A_MINUTE: Duration = Duration::from_secs(60);

impl Default for WarningLimit {
    fn default() -> Self {
        Self::every(A_MINUTE)
    }
}

impl WarningLimit {
    /// Makes a limit of one warning in this time.
    pub(crate) fn every(every: Duration) -> Self {
        Self { every, last_warned: None, unreported: 0 }
    }

    /// Counts `more` cases. Returns the number to log now; `None` if no line is due.
    pub(crate) fn count(&mut self, more: usize, now: Instant) -> Option<usize> {
        self.unreported += more;
        let is_due = |warned: Instant| now.saturating_duration_since(warned) >= self.every;
        let due = self.last_warned.is_none_or(is_due);
        if self.unreported == 0 || !due {
            return None;
        }
        self.last_warned = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_of_once_a_minute_and_none_is_left_out() {
        let (mut limit, start) = (WarningLimit::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(limit.count(0, at(0)), None);
        assert_eq!(limit.count(1, at(1)), Some(1), "the first at once");
        let last_warned = (2..60).filter_map(|second| limit.count(40, at(second))).count();
        assert_eq!(last_warned, 0);
        assert_eq!(limit.count(0, at(61)), Some(58 * 40), "without another one coming");
        assert_eq!(limit.count(0, at(200)), None);
        assert_eq!(limit.count(3, at(201)), Some(3));
    }
}
