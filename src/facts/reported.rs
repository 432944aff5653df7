//! Whether the clients of a service report that their calls are answered.
//!
//! In: the totals of what a service's clients report, the time. Out: a [`Verdict`]. Pure.
//! It looks only at the last one to two spans, so old reports count for nothing once clients
//! stop reporting.

/// What clients have reported since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that ended, without dropped ones.
    pub finished: u64,
    /// Calls that ended without reaching a backend.
    pub failed_to_send: u64,
    /// Calls that ended with any answer of a backend.
    pub answered: u64,
}

/// What the newest reports say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Clients have not had the time to report yet.
    TooSoon,
    /// Calls are answered, and next to none fail to reach a backend.
    Answered,
    /// Calls fail, or there are too few to tell.
    Unknown,
}

/// The newest reports of one service's clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    since: u64,
    /// The totals at the beginning of the former span, and when it began.
    former: Option<(u64, Totals)>,
    /// The totals at the beginning of the current span, and when it began.
    current: Option<(u64, Totals)>,
    newest: Totals,
}

/// The fewest calls that tell anything.
const CALLS_MIN: u64 = 10;

impl Reported {
    /// Makes a value without reports, at a time in milliseconds.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { since: now, former: None, current: None, newest: Totals::default() }
    }

    /// Adds the totals as they are now. `span` is in milliseconds: every client reports at
    /// least once in one.
    pub fn add(&mut self, totals: Totals, span: u64, now: u64) {
        self.newest = totals;
        let begun = self.current.is_none_or(|(at, _)| now.saturating_sub(at) >= span);
        if begun {
            self.former = self.current.replace((now, totals)).or(Some((now, totals)));
        }
    }

    /// Returns what the reports of the last one to two spans say.
    #[must_use]
    pub fn verdict(&self, span: u64, now: u64) -> Verdict {
        if self.early_until(span) > now {
            return Verdict::TooSoon;
        }
        // Totals that are not added any more say nothing about the present.
        let fresh = self.current.is_some_and(|(at, _)| now.saturating_sub(at) <= 2 * span);
        let Some((_, begin)) = self.former.filter(|_| fresh) else { return Verdict::Unknown };
        let finished = self.newest.finished.saturating_sub(begin.finished);
        let failed = self.newest.failed_to_send.saturating_sub(begin.failed_to_send);
        let answered = self.newest.answered.saturating_sub(begin.answered);
        let most = answered >= CALLS_MIN && answered.saturating_mul(10) / 9 >= finished;
        if most && failed.saturating_mul(100) <= finished {
            Verdict::Answered
        } else {
            Verdict::Unknown
        }
    }

    /// Returns until when it is too soon for a verdict, in milliseconds.
    #[must_use]
    pub fn early_until(&self, span: u64) -> u64 {
        self.since.saturating_add(span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: u64 = 15_000;

    fn totals(finished: u64, failed_to_send: u64, answered: u64) -> Totals {
        Totals { finished, failed_to_send, answered }
    }

    /// Adds the totals of each second.
    fn reported(seconds: u64, of: impl Fn(u64) -> Totals) -> Reported {
        let mut reported = Reported::new(0);
        (0..=seconds).for_each(|second| reported.add(of(second), SPAN, second * 1_000));
        reported
    }

    #[test]
    fn answered_calls_count_and_failing_ones_do_not() {
        let check = |of: fn(u64) -> Totals, expected| {
            assert_eq!(reported(20, of).verdict(SPAN, 20_000), expected);
        };
        check(|n| totals(n * 10, 0, n * 10), Verdict::Answered);
        check(|n| totals(n * 10, n, n * 9), Verdict::Unknown);
        check(|n| totals(n * 10, 0, n * 8), Verdict::Unknown);
        check(|_| totals(10_000, 0, 10_000), Verdict::Unknown);
        check(|n| totals(n / 4, 0, n / 4), Verdict::Unknown);
        let early = reported(14, |n| totals(n, 0, n));
        assert_eq!(early.verdict(SPAN, 14_999), Verdict::TooSoon);
        assert_eq!(early.early_until(SPAN), SPAN);
        assert_eq!(Reported::new(0).verdict(SPAN, SPAN), Verdict::Unknown);
    }

    #[test]
    fn old_answers_count_for_at_most_two_spans() {
        let stops = |n: u64| totals(n.min(100) * 10, 0, n.min(100) * 10);
        assert_eq!(reported(101, stops).verdict(SPAN, 101_000), Verdict::Answered);
        assert_eq!(reported(131, stops).verdict(SPAN, 131_000), Verdict::Unknown);
        // Nor do they if nobody adds anything any more.
        assert_eq!(reported(100, stops).verdict(SPAN, 150_000), Verdict::Unknown);
    }

    proptest! {
        /// Calls that are not answered in the last span are always noticed.
        #[test]
        fn trouble_is_noticed_within_two_spans(
            good in 0..200_u64, rate in 1..1_000_u64, bad in 31..100_u64, answered in 0..=8_u64,
        ) {
            let of = |n: u64| {
                let after = n.saturating_sub(good);
                totals(n * rate * 10, 0, n.min(good) * rate * 10 + after * rate * answered)
            };
            let at = good + bad;
            prop_assert_eq!(reported(at, of).verdict(SPAN, at * 1_000), Verdict::Unknown);
        }
    }
}
