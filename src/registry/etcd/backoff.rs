//! Computes the pause before the next attempt. Pure: the seed is an argument.
//!
//! In: the number of failures, and a random number. Out: a pause of 25 ms to 5 s.

use std::time::Duration;

/// The longest pause after the first failure: enough to spare a restarting server, too
/// short to be noticed.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause after any number of failures: when etcd works again, its clients
/// must return soon.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// Returns the pause after `failures` failures in a row. It doubles with each failure.
/// It is chosen between half and all of that time, so that processes that fail together
/// do not return together.
#[must_use]
pub fn backoff(failures: u32, seed: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = (FIRST * 2u32.pow(doublings)).min(LONGEST);
    let half = whole / 2;
    let jitter = half.as_nanos() * u128::from(seed) / u128::from(u64::MAX);
    half + Duration::from_nanos(u64::try_from(jitter).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_first_to_longest_and_jitters_down_to_half() {
        let check = |failures, least, most| {
            assert_eq!(backoff(failures, 0).as_millis(), least, "{failures}");
            assert_eq!(backoff(failures, u64::MAX).as_millis(), most, "{failures}");
        };
        check(0, 25, 50);
        check(1, 25, 50);
        check(2, 50, 100);
        check(5, 400, 800);
        check(8, 2500, 5000);
        check(u32::MAX, 2500, 5000);
    }
}
