//! Limits repeated log messages: a cause is logged at once and then ever more rarely.
//! Pure: the time is an argument.
//!
//! In: causes, as they occur. Out: whether to log one now, and how often it occurred
//! since it was last logged. Keeps only the newest causes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The causes that occurred recently.
#[derive(Debug, Default)]
pub(super) struct LogLimit(VecDeque<LoggedCause>);

#[derive(Debug)]
struct LoggedCause {
    text: String,
    logged_at: Instant,
    last_seen: Instant,
    /// Occurrences since `logged_at`.
    times: u64,
    pause: Duration,
}

/// Enough for the causes that several endpoints can report in turn.
const CAUSES_MAX: usize = 16;
/// The first and the longest pause between two messages about one cause. An operator must
/// see in the log that the cause persists.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// A cause that did not occur for this long is logged at once when it returns.
const FORGET: Duration = Duration::from_secs(30);

impl LogLimit {
    /// Counts one occurrence of a cause. Returns how often it occurred since it was
    /// last logged, this time included, if it is to be logged now.
    pub(super) fn due(&mut self, text: &str, now: Instant) -> Option<u64> {
        self.0.retain(|cause| now.duration_since(cause.last_seen) < FORGET);
        let Some(cause) = self.0.iter_mut().find(|cause| cause.text == text) else {
            if self.0.len() == CAUSES_MAX {
                self.0.pop_front();
            }
            let text = text.to_owned();
            self.0.push_back(LoggedCause {
                text,
                logged_at: now,
                last_seen: now,
                times: 0,
                pause: PAUSE,
            });
            return Some(1);
        };
        cause.last_seen = now;
        cause.times += 1;
        if now.duration_since(cause.logged_at) < cause.pause {
            return None;
        }
        cause.logged_at = now;
        cause.pause = (cause.pause * 4).min(PAUSE_MAX);
        Some(std::mem::take(&mut cause.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns at which seconds something that occurs each second is logged, with the
    /// counts.
    fn logged_seconds(seconds: u64) -> Vec<(u64, u64)> {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        let at = |second| start + Duration::from_secs(second);
        (0..seconds).filter_map(|s| limit.due("x", at(s)).map(|times| (s, times))).collect()
    }

    #[test]
    fn a_cause_is_said_at_once_and_then_ever_more_rarely() {
        assert_eq!(logged_seconds(5000), [(0, 1), (60, 60), (300, 240), (1260, 960), (4860, 3600)]);
    }

    #[test]
    fn another_cause_and_one_that_was_away_are_news() {
        let now = Instant::now();
        let mut limit = LogLimit::default();
        assert_eq!(
            (limit.due("a", now), limit.due("b", now), limit.due("a", now)),
            (Some(1), Some(1), None)
        );
        assert_eq!(limit.due("a", now + FORGET), Some(1));
        for n in 0..100 {
            assert_eq!(limit.due(&n.to_string(), now + FORGET), Some(1));
        }
        assert_eq!(limit.0.len(), CAUSES_MAX);
    }
}
