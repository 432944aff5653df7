//! Limits how often a warning is repeated: once a minute, with the count since the last.
//!
//! In: how many new cases there are, and the time. Out: whether to log, and how many.

use std::time::{Duration, Instant};

/// When the warning was logged last, and how many cases it did not include.
#[derive(Debug, Default)]
pub(super) struct Reminder {
    told: Option<Instant>,
    untold: usize,
}

/// Thousands of rejected keys in a row are one matter.
const EVERY: Duration = Duration::from_secs(60);

impl Reminder {
    /// Counts `more` cases. Returns how many to log now; `None` if nothing is to be
    /// logged.
    pub(super) fn count(&mut self, more: usize, now: Instant) -> Option<usize> {
        self.untold += more;
        let due = self.told.is_none_or(|told| now.duration_since(told) >= EVERY);
        if self.untold == 0 || !due {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_of_once_a_minute_and_none_is_left_out() {
        let (mut reminder, start) = (Reminder::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(reminder.count(0, at(0)), None);
        assert_eq!(reminder.count(1, at(1)), Some(1), "the first at once");
        let told = (2..60).filter_map(|second| reminder.count(40, at(second))).count();
        assert_eq!(told, 0);
        assert_eq!(reminder.count(0, at(61)), Some(58 * 40), "without another one coming");
        assert_eq!(reminder.count(0, at(200)), None);
        assert_eq!(reminder.count(3, at(201)), Some(3));
    }
}
