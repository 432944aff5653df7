//! Limits how often refusals of clients are logged: once in ten seconds, with the count
//! since the last line. Pure: the time is an argument.
//!
//! In: refusals, as they occur. Out: whether to log one now, and how many there were.

use std::time::{Duration, Instant};

/// When a refusal was logged last, and how many there were since.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    logged: Option<Instant>,
    since: u64,
}

/// Thousands of clients refuse the same response at once.
const EVERY: Duration = Duration::from_secs(10);

impl Refusals {
    /// Counts a refusal. Returns the number since the last line if a line is due.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.logged.is_some_and(|logged| now.saturating_duration_since(logged) < EVERY) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_then_one_in_ten_seconds() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(refusals.count(at(0)), Some(1));
        assert_eq!((1..10).filter_map(|second| refusals.count(at(second))).count(), 0);
        assert_eq!(refusals.count(at(10)), Some(10));
    }
}
