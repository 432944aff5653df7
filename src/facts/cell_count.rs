//! Decides into how many cells the backends of a service, or of a part of it, are divided.
//!
//! In: the number of backends, the time. Out: the number of cells, and the largest number of
//! backends in the last minutes. Pure.
//!
//! All replicas count the minutes by the wall clock, and once an hour all forget how many
//! cells they had. So replicas that have run for an hour have the same cells, whenever they
//! started. Replicas that differ for a while harm no client, because each balances its own
//! clients.

use std::time::Duration;

/// The number of cells of one group of backends, over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellCount {
    bits: u32,
    /// The largest number of backends in this span, and in the one before.
    current: usize,
    former: usize,
    /// The number of this span.
    span: Span,
}

/// The number of a span of time, from 1970 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

/// The largest number of backends is that of one to two such spans, so that a rolling restart
/// changes the size of no cell.
const SPAN: Duration = Duration::from_secs(300);
/// After so many spans, the number of cells no longer depends on what it was before: it may
/// double, or halve, although a cell still has 0.9 to 2.2 times `least` backends. Less often,
/// replicas would differ for longer; more often, a service whose size changes each few minutes
/// would move its clients as often.
const ANEW_EVERY: u64 = 12;

impl Span {
    /// Returns the span of a moment, given as the time since 1970, and the time until it ends.
    #[must_use]
    pub fn of(wall: Duration) -> (Self, Duration) {
        let number = wall.as_secs() / SPAN.as_secs();
        (Self(number), Duration::from_secs((number + 1) * SPAN.as_secs()).saturating_sub(wall))
    }

    /// Returns whether the number of cells begins anew in one of the spans after `before`, up
    /// to this one. `turn` tells services apart, so that not all begin anew at once.
    fn begins_anew_since(self, before: Self, turn: u64) -> bool {
        let hour = |span: Self| (span.0 + turn % ANEW_EVERY) / ANEW_EVERY;
        hour(self) != hour(before)
    }
}

/// Returns the number of bits of a cell's number. `peak` is the largest number of backends
/// in the last ten minutes, so that a restart changes no cap. `least` is the number of
/// backends that a cell should have. `current` is the number of bits in force. The number of
/// cells halves late, because each halving doubles the connections.
#[must_use]
pub fn bits(peak: usize, least: usize, current: Option<u32>) -> u32 {
    let least = least.max(1);
    let size = |bits: u32| peak.checked_shr(bits).unwrap_or(0);
    // With fewer than four cells, subsets save too few connections.
    let most = || (0..16).rev().find(|&bits| size(bits) >= least).unwrap_or(0);
    let start = || Some(most()).filter(|&bits| bits >= 2).unwrap_or(0);
    match current {
        // The number stays while a cell has 0.9 to 2.2 times `least` backends.
        Some(bits) if bits > 0 && 10 * size(bits) < 22 * least && 10 * size(bits) >= 9 * least => {
            bits
        }
        Some(bits) if bits > 0 && 10 * size(bits) < 9 * least => {
            (0..bits).rev().find(|&bits| 10 * size(bits) >= 9 * least).unwrap_or(0)
        }
        _ => start(),
    }
}

impl CellCount {
    /// Makes the count of a group. `least` is that of [`bits`].
    #[must_use]
    pub fn new(backends: usize, least: usize, span: Span) -> Self {
        Self { bits: bits(backends, least, None), current: backends, former: 0, span }
    }

    /// Applies a number of backends, and the time. `turn` differs from service to service.
    pub fn update(&mut self, backends: usize, least: usize, span: Span, turn: u64) {
        let before = std::mem::replace(&mut self.span, span);
        if span != before {
            // A clock that is set back is a new span, too.
            self.former = if span.0.abs_diff(before.0) == 1 { self.current } else { 0 };
            self.current = 0;
        }
        self.current = self.current.max(backends);
        let current = Some(self.bits).filter(|_| !span.begins_anew_since(before, turn));
        self.bits = bits(self.peak(), least, current);
    }

    /// Returns the number of bits of a cell's number: 0 if there is one cell.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Returns the largest number of backends in the last minutes.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.current.max(self.former)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_double_early_and_halve_late() {
        assert_eq!(
            [10, 127, 128, 300, 1_000, 10_000].map(|n| bits(n, 32, None)),
            [0, 0, 2, 3, 4, 8]
        );
        // From 4 cells of 32 up to 4 of 70, and down to 4 of 29.
        assert_eq!(bits(281, 32, Some(2)), 2);
        assert_eq!(bits(284, 32, Some(2)), 3);
        assert_eq!(bits(116, 32, Some(2)), 2);
        assert_eq!(bits(115, 32, Some(2)), 1);
        assert_eq!(bits(20, 32, Some(2)), 0);
    }

    /// Returns the span of a moment, in minutes.
    fn minute(minute: u64) -> Span {
        Span::of(Duration::from_secs(60 * minute)).0
    }

    #[test]
    fn spans_are_those_of_the_wall_clock() {
        let at = |seconds| Span::of(Duration::from_secs(seconds));
        assert_eq!(at(0), (Span(0), SPAN));
        assert_eq!(at(599), (Span(1), Duration::from_secs(1)));
        assert_eq!(at(600), (Span(2), SPAN));
    }

    #[test]
    fn backends_that_are_away_for_a_while_change_nothing() {
        let mut count = CellCount::new(300, 32, minute(0));
        assert_eq!((count.bits(), count.peak()), (3, 300));
        count.update(299, 32, minute(3), 0);
        count.update(100, 32, minute(7), 0);
        assert_eq!((count.bits(), count.peak()), (3, 300));
        // 100 backends are three cells, and two are enough.
        count.update(100, 32, minute(12), 0);
        assert_eq!((count.bits(), count.peak()), (1, 100));
        // A long silence ends both spans.
        count.update(20, 32, minute(34), 0);
        assert_eq!((count.bits(), count.peak()), (0, 20));
        count.update(400, 32, minute(34), 0);
        assert_eq!((count.bits(), count.peak()), (3, 400));
    }

    #[test]
    fn once_an_hour_the_past_is_forgotten() {
        let mut count = CellCount::new(200, 32, minute(1));
        // It has four cells, and a replica that starts now has eight.
        count.update(260, 32, minute(2), 0);
        assert_eq!((count.bits(), bits(260, 32, None)), (2, 3));
        count.update(260, 32, minute(59), 0);
        assert_eq!(count.bits(), 2);
        let (mut same, mut other) = (count.clone(), count.clone());
        same.update(260, 32, minute(60), 0);
        assert_eq!(same.bits(), 3);
        // Another service has another hour.
        other.update(260, 32, minute(60), 1);
        assert_eq!(other.bits(), 2);
        other.update(260, 32, minute(116), 1);
        assert_eq!(other.bits(), 3);
    }

    proptest! {
        /// Replicas that have known the same backends for an hour and ten minutes have the
        /// same cells, whenever they started.
        #[test]
        fn replicas_agree_after_an_hour(
            sizes in proptest::collection::vec(0..600_usize, 75..200),
            starts in 0..75_usize,
            turn in 0..24_u64,
        ) {
            let mut old = CellCount::new(sizes[0], 32, minute(0));
            let mut new = None::<CellCount>;
            for (at, &size) in sizes.iter().enumerate() {
                let span = minute(at as u64);
                old.update(size, 32, span, turn);
                match &mut new {
                    Some(new) => new.update(size, 32, span, turn),
                    None if at >= starts => new = Some(CellCount::new(size, 32, span)),
                    None => {}
                }
                if at >= starts + 70 {
                    prop_assert_eq!(Some(&old), new.as_ref());
                }
            }
        }
    }
}
