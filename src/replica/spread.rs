//! How many streams a balancer asks to leave, so that all balancers have about as many.
//!
//! In: the streams of this balancer and of the others, and how much time has passed. Out: a
//! number of streams. Pure.
//!
//! grpclb clients ask DNS again only after their stream has ended, so a balancer that was
//! added would stay empty for as long as no client starts. Each balancer decides for itself
//! from the same records. These bounds hold whatever the records say:
//!
//! - Nobody is asked to leave while all balancers are within 5 % of the mean.
//! - A balancer asks no more than 0.2 % of its streams in a second, or one each time.
//! - All balancers together ask no more than the others have room for, up to the mean.
//! - It never goes below the mean.

use std::time::Duration;

/// How far from the mean balancers may be: one part in so many. Half of the 10 % within
/// which streams count as even, so that old numbers do not make streams move to and fro.
const TOLERANCE: u64 = 20;
/// Streams off the mean that never matter: the spread of a few clients is chance.
const SLACK: u64 = 8;
/// The streams that are asked to leave in a second, in millionths. 10,000 streams lose 20,
/// which a restart of the balancer would exceed a hundredfold.
const RATE_PPM: u64 = 2_000;

/// Returns how many of `own` streams are asked to leave after `interval`, given the streams of
/// the other balancers that take clients.
#[must_use]
pub fn leavers(own: u64, others: &[u64], interval: Duration) -> u64 {
    let total = others.iter().fold(u128::from(own), |sum, other| sum + u128::from(*other));
    // Rounded up, so that a balancer never asks somebody to leave for a rest of the division.
    let mean = total.div_ceil(others.len() as u128 + 1);
    let mean = u64::try_from(mean).unwrap_or(u64::MAX);
    let tolerated = (mean / TOLERANCE).saturating_add(SLACK);
    let even = mean.saturating_sub(tolerated)..=mean.saturating_add(tolerated);
    if others.iter().chain([&own]).all(|streams| even.contains(streams)) {
        return 0;
    }
    let excess = excess(own, mean);
    if excess == 0 {
        return 0;
    }
    let room: u128 = others.iter().map(|other| u128::from(mean.saturating_sub(*other))).sum();
    let all: u128 = others.iter().map(|other| u128::from(self::excess(*other, mean))).sum();
    // Others over the mean ask theirs to leave at the same time, for the same room.
    let part = room.saturating_mul(u128::from(excess)) / (all + u128::from(excess));
    let part = u64::try_from(part).unwrap_or(u64::MAX);
    excess.min(part).min(rate(own, interval))
}

/// Returns the streams over the mean; of a few, none.
fn excess(streams: u64, mean: u64) -> u64 {
    if streams > mean.saturating_add(SLACK) { streams - mean } else { 0 }
}

/// Returns the most streams that are asked to leave in this time: one in any second, because
/// a part of a few is less than one.
fn rate(own: u64, interval: Duration) -> u64 {
    let millis = u128::from(own) * u128::from(RATE_PPM);
    let most = millis.saturating_mul(interval.as_millis()) / 1_000_000_000;
    let least = u64::from(interval >= Duration::from_secs(1));
    u64::try_from(most).unwrap_or(u64::MAX).max(least)
}

#[cfg(test)]
mod tests {
    use super::super::order::{Candidate, ordered};
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn few_leave_and_only_to_where_there_is_room() {
        for (own, others, expected) in [
            (5_000, &[5_000, 0][..], 50),
            (0, &[5_000, 5_000], 0),
            (5_000, &[], 0),
            // All are within 5 % and a few.
            (1_050, &[1_000, 1_000], 0),
            (12, &[0], 0),
            // All but one are over the mean a little, and share the room that it has.
            (1_050, &[1_050, 1_050, 850], 10),
            (90, &[0], 1),
            (u64::MAX, &[u64::MAX, 0], u64::MAX / 100),
        ] {
            assert_eq!(leavers(own, others, INTERVAL), expected, "{own} {others:?}");
        }
        assert_eq!(leavers(5_000, &[5_000, 0], Duration::ZERO), 0);
    }

    /// Lets balancers ask and clients move, with records that are one interval old. Returns
    /// the streams of each at the end, and how many clients moved.
    fn play(mut streams: Vec<u64>, intervals: usize) -> (Vec<u64>, u64) {
        let (mut moved, mut seed) = (0, 1_usize);
        for _ in 0..intervals {
            let records = streams.clone();
            for own in 0..streams.len() {
                let mut others = records.clone();
                others.remove(own);
                let leaving = leavers(streams[own], &others, INTERVAL).min(streams[own]);
                moved += leaving;
                streams[own] -= leaving;
                for _ in 0..leaving {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let candidates = records.iter().enumerate().map(|(name, &streams)| Candidate {
                        name,
                        near: true,
                        streams: Some(streams),
                    });
                    streams[ordered(candidates.collect(), seed >> 33)[0]] += 1;
                }
            }
        }
        (streams, moved)
    }

    #[test]
    fn a_balancer_that_was_added_fills_up_slowly_until_it_is_even() {
        // A restarted balancer, an added one, and one of two.
        for begin in [vec![5_000, 5_000, 0], vec![2_500, 2_500, 2_500, 2_500, 0], vec![4_000, 0]] {
            let total: u64 = begin.iter().sum();
            let mean = total / begin.len() as u64;
            let (end, moved) = play(begin.clone(), 400);
            for streams in &end {
                assert!(streams.abs_diff(mean) * 10 <= mean, "{begin:?} {end:?}");
            }
            // DNS lets each client choose by chance, so some come back and are asked again: two
            // moves for each stream that the third of three lacks, three with the fifth of five.
            assert!(moved * 4 <= total * 3, "{begin:?} {end:?}: {moved}");
            let (later, again) = play(end.clone(), 100);
            assert!(again <= mean / 20, "{end:?} {later:?}: {again}");
        }
    }

    proptest! {
        #[test]
        fn the_bounds_hold(
            streams in prop::collection::vec(0..50_000_u64, 1..9),
            seconds in 0..60_u64,
        ) {
            let interval = Duration::from_secs(seconds);
            let total: u64 = streams.iter().sum();
            let mean = total.div_ceil(streams.len() as u64);
            let mut leaving = 0;
            for own in 0..streams.len() {
                let mut others = streams.clone();
                others.remove(own);
                let leavers = leavers(streams[own], &others, interval);
                prop_assert!(leavers <= 1 || leavers * 1_000 <= streams[own] * 2 * seconds);
                prop_assert!(leavers == 0 || streams[own] - leavers >= mean);
                leaving += leavers;
            }
            let room: u64 = streams.iter().map(|streams| mean.saturating_sub(*streams)).sum();
            prop_assert!(leaving <= room, "{leaving} {room}");
        }

        #[test]
        fn whatever_the_records_say_nothing_overflows(
            own in any::<u64>(),
            others in prop::collection::vec(any::<u64>(), 0..5),
            millis in any::<u64>(),
        ) {
            let leaving = leavers(own, &others, Duration::from_millis(millis));
            prop_assert!(leaving <= own);
        }
    }
}
