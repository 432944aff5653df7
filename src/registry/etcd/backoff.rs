//! How long to wait before trying again. Pure: the seed is an argument.

use std::time::Duration;

/// After the first failure: long enough for a restarting server not to be hammered,
/// too short for anybody to notice.
const FIRST: Duration = Duration::from_millis(50);
/// However often it failed: who mends etcd shall see its clients come back at once.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// The pause after so many failures in a row: doubling, then between half and
/// the whole of it, so that those who failed together do not return together.
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
