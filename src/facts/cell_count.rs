//! Decides into how many cells the backends of a service, or of a part of it, are divided.
//!
//! In: the number of backends, the time. Out: the number of cells, and the largest number of
//! backends in the last minutes. Pure. Replicas that started at different times may differ
//! for ten minutes; that harms no client, because each balances its own clients.

use std::time::{Duration, Instant};

/// The number of cells of one group of backends, over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellCount {
    bits: u32,
    /// The largest number of backends in this span, and in the one before.
    current: usize,
    former: usize,
    /// When this span began.
    began: Instant,
}

/// The largest number of backends is that of one to two such spans, so that a rolling restart
/// changes the size of no cell.
const SPAN: Duration = Duration::from_secs(300);

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
    pub fn new(backends: usize, least: usize, now: Instant) -> Self {
        Self { bits: bits(backends, least, None), current: backends, former: 0, began: now }
    }

    /// Applies a number of backends, and the time.
    pub fn update(&mut self, backends: usize, least: usize, now: Instant) {
        let spans = now.saturating_duration_since(self.began).as_secs() / SPAN.as_secs();
        if spans > 0 {
            self.former = if spans == 1 { self.current } else { 0 };
            (self.current, self.began) = (0, now);
        }
        self.current = self.current.max(backends);
        self.bits = bits(self.peak(), least, Some(self.bits));
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

    /// Returns when the count must be updated, although the number of backends stays.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.began + SPAN
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn backends_that_are_away_for_a_while_change_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut count = CellCount::new(300, 32, start);
        assert_eq!((count.bits(), count.peak(), count.due()), (3, 300, at(300)));
        count.update(299, 32, at(200));
        count.update(100, 32, at(400));
        assert_eq!((count.bits(), count.peak(), count.due()), (3, 300, at(700)));
        // 100 backends are three cells, and two are enough.
        count.update(100, 32, at(700));
        assert_eq!((count.bits(), count.peak()), (1, 100));
        // A long silence ends both spans.
        count.update(20, 32, at(2_000));
        assert_eq!((count.bits(), count.peak()), (0, 20));
        count.update(400, 32, at(2_001));
        assert_eq!((count.bits(), count.peak()), (3, 400));
    }
}
