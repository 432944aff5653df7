//! The limits of a client's reports.
//!
//! In: a report as it was sent. Out: its calls, if they can be true. Pure.

use crate::load::{Calls, REPORT_MAX};

use super::pb;

const CALLS_MAX: i64 = REPORT_MAX.cast_signed();

/// Returns the calls of a report; `None` if a count is negative or too large.
pub(super) fn calls(stats: &pb::ClientStats) -> Option<Calls> {
    let count = |number: i64| match number {
        0..=CALLS_MAX => u64::try_from(number).ok(),
        _ => None,
    };
    // The limit is for the whole report, however many tokens it names.
    let dropped = stats.calls_finished_with_drop.iter().try_fold(0_i64, |sum, token| {
        count(token.num_calls)?;
        sum.checked_add(token.num_calls)
    });
    Some(Calls {
        started: count(stats.num_calls_started)?,
        finished: count(stats.num_calls_finished)?,
        failed_to_send: count(stats.num_calls_finished_with_client_failed_to_send)?,
        known_received: count(stats.num_calls_finished_known_received)?,
        dropped: count(dropped?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_that_make_sense_are_counted_and_others_not() {
        let drops = |calls: &[i64]| {
            let token =
                |&num_calls: &i64| pb::ClientStatsPerToken { num_calls, ..Default::default() };
            calls.iter().map(token).collect()
        };
        let sane = pb::ClientStats {
            num_calls_started: 5,
            num_calls_finished: 9,
            num_calls_finished_with_client_failed_to_send: 1,
            num_calls_finished_known_received: 3,
            calls_finished_with_drop: drops(&[2, 3]),
            ..Default::default()
        };
        let expected =
            Calls { started: 5, finished: 9, failed_to_send: 1, known_received: 3, dropped: 5 };
        assert_eq!(calls(&sane), Some(expected));
        assert_eq!(calls(&pb::ClientStats::default()), Some(Calls::default()));
        let dropped = |each: &[i64]| {
            let stats =
                pb::ClientStats { calls_finished_with_drop: drops(each), ..Default::default() };
            calls(&stats).map(|calls| calls.dropped)
        };
        // The tokens together have the limit of one.
        assert_eq!(dropped(&[CALLS_MAX / 2; 2]), Some(1_000_000_000));
        assert_eq!(dropped(&[CALLS_MAX / 2, CALLS_MAX / 2, 1]), None);
        assert_eq!(dropped(&[CALLS_MAX; 5_000]), None);
        assert_eq!(dropped(&[CALLS_MAX, -1]), None);
        for bad in [-1, i64::MIN, i64::MAX, CALLS_MAX + 1] {
            let with = |change: fn(&mut pb::ClientStats, i64)| {
                let mut stats = sane.clone();
                change(&mut stats, bad);
                calls(&stats)
            };
            assert_eq!(with(|stats, bad| stats.num_calls_started = bad), None);
            assert_eq!(with(|stats, bad| stats.num_calls_finished = bad), None);
            assert_eq!(with(|stats, bad| stats.num_calls_finished_known_received = bad), None);
            assert_eq!(with(|stats, bad| stats.calls_finished_with_drop[1].num_calls = bad), None);
        }
    }
}
