//! Puts drop entries into a cycle: the clients drop a part of their calls.
//!
//! In: a cycle of picks, and a percentage. Out: the cycle with drop entries, spread evenly.
//! Pure. A client takes the next entry of its list with each call, and drops the call at a
//! drop entry. The windows of streams start at different entries, and each list starts at
//! another one. So the part holds over all clients, and for one client over time, also if
//! lists come more often than calls.

use crate::facts::shedding;

/// The largest error of the part, in hundredths of a percent, for which a short cycle is
/// repeated no further.
const ERROR_MAX: usize = 25;
/// The longest cycle that is repeated, in entries. The error of longer ones is smaller than
/// half a percent in any case.
const REPEATED_MAX: usize = 200;

/// Returns the cycle with drop entries (`None`), so that clients drop `percent` of their
/// calls: 0 to 99.
pub(super) fn with_drops(cycle: &[u32], percent: u32) -> Vec<Option<u32>> {
    if percent == 0 || cycle.is_empty() {
        return cycle.iter().copied().map(Some).collect();
    }
    let entries = cycle.len() * repeats(cycle.len(), percent);
    let drops = shedding::drops(entries, percent);
    let mut picks = cycle.iter().copied().cycle();
    let total = entries + drops;
    let entry = |at| if shedding::is_drop(at, total, drops, 0) { None } else { picks.next() };
    (0..total).map(entry).collect()
}

/// Returns how often a cycle is repeated, so that the part of the drops is exact enough.
fn repeats(entries: usize, percent: u32) -> usize {
    let error = |repeats: &usize| {
        let drops = shedding::drops(entries * repeats, percent);
        let part = drops * 10_000 / (entries * repeats + drops);
        part.abs_diff(percent as usize * 100)
    };
    let most = (REPEATED_MAX / entries).max(1);
    let exact = (1..=most).find(|repeats| error(repeats) <= ERROR_MAX);
    exact.unwrap_or_else(|| (1..=most).min_by_key(error).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_backend_is_repeated_until_the_part_is_exact() {
        let list = with_drops(&[0], 30);
        assert_eq!((list.len(), list.iter().filter(|entry| entry.is_none()).count()), (10, 3));
        assert_eq!(with_drops(&[1, 0], 0), [Some(1), Some(0)]);
        assert_eq!(with_drops(&[], 30), []);
        assert_eq!(with_drops(&[4, 5], 50), [Some(4), None, Some(5), None]);
    }

    proptest! {
        #[test]
        fn the_part_holds_and_the_picks_keep_their_order(length in 1..400_usize, percent in 0..100_u32) {
            let cycle: Vec<u32> = (0..length as u32).collect();
            let list = with_drops(&cycle, percent);
            let picks: Vec<u32> = list.iter().copied().flatten().collect();
            prop_assert!(picks.chunks(length).all(|turn| turn == cycle));
            let part = (list.len() - picks.len()) as f64 / list.len() as f64;
            prop_assert!((part * 100.0 - f64::from(percent)).abs() < 0.51, "{}", part);
            prop_assert!(list.len() <= 100 * 200.max(length));
        }
    }
}
