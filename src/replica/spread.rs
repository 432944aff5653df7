//! How many streams a balancer asks to leave, so that all balancers have about as many.
//!
//! In: the streams of this balancer and of the others, how many of its clients were asked
//! before and came back, and how much time has passed. Out: numbers of streams. Pure.
//!
//! Clients stay at the balancer that they have, and a client whose connection ends connects
//! to the first address that DNS gave it *last*; only then it asks DNS again. So most
//! clients come back when they are first asked, with a new answer of DNS, and move when they
//! are asked again. Each balancer decides for itself from the same records. These bounds hold
//! whatever the records say:
//!
//! - Nobody is asked to leave while all balancers are within 5 % of the mean.
//! - A balancer asks no more than a set part of its streams in a second, or one each time.
//! - It asks only so many that it never goes below the mean, and that all balancers together
//!   ask no more than the others have room for, up to the mean.

use std::time::Duration;

/// How far from the mean balancers may be: one part in so many. Half of the 10 % within
/// which streams count as even, so that old numbers do not make streams move to and fro.
const TOLERANCE: u64 = 20;
/// Streams off the mean that never matter: the spread of a few clients is chance.
const SLACK: u64 = 8;

/// The streams that may leave a balancer in a second, in millionths of those that it has.
pub type PerSecond = u32;

/// Streams of clients that were asked to leave before, and came back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Returned {
    /// All of them.
    pub all: u64,
    /// Those that may be asked again now, because their clients have a new answer of DNS.
    pub due: u64,
}

/// How many streams are asked to leave now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asks {
    /// Streams of clients that came back.
    pub again: u64,
    /// Streams of other clients.
    pub first: u64,
}

/// Returns how many of `own` streams are asked to leave after `interval`.
#[must_use]
pub fn asks(
    leaving: u64,
    own: u64,
    returned: Returned,
    per: PerSecond,
    interval: Duration,
) -> Asks {
    let most = rate(own, per, interval);
    let again = returned.due.min(leaving).min(most);
    // Nobody is asked who would only wait for his second turn in vain.
    let first = leaving.saturating_sub(returned.all.max(again)).min(most - again);
    Asks { again, first }
}

/// Returns how many of `own` streams are to leave in the end, given the streams of the other
/// balancers that take clients.
#[must_use]
pub fn leaving(own: u64, others: &[u64]) -> u64 {
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
    excess.min(part)
}

/// Returns the streams over the mean; of a few, none.
fn excess(streams: u64, mean: u64) -> u64 {
    if streams > mean.saturating_add(SLACK) { streams - mean } else { 0 }
}

/// Returns the most streams that are asked to leave in this time: one in any second, because
/// a part of a few is less than one.
fn rate(own: u64, per: PerSecond, interval: Duration) -> u64 {
    let millis = u128::from(own) * u128::from(per);
    let most = millis.saturating_mul(interval.as_millis()) / 1_000_000_000;
    let least = u64::from(per > 0 && interval >= Duration::from_secs(1));
    u64::try_from(most).unwrap_or(u64::MAX).max(least)
}

#[cfg(test)]
mod tests;
