//! Cells: subsets of a large service that clients share.
//!
//! In: the registered backends in the order in which they registered, with their weights.
//! Out: the cell of each backend. Pure. All replicas make the same table. Health and load
//! are no inputs, so a backend that fails moves no other backend. `cells/placement.rs`
//! decides which cells a client uses.
//!
//! A service has 2^bits cells. The first bits of a backend's hash name its home cell, so
//! doubling the number splits cells, and halving it joins them. Each cell has a cap. Further
//! hashes find another cell for a backend that does not fit into its home. Backends are
//! placed in the order of their registration, so the newest displaces hardly any other: one
//! backend more or less changes about one connection of each client of one cell.
//!
//! Random subsets would give some backends 1.5 to 2 times the mean. Subsets by rank would
//! change for every client with each backend.

use super::hash::pair;

mod placement;

pub use crate::facts::cell_count::bits;
pub use placement::{Placement, Run};

/// The cap of a cell, in percent of its fair share. With 105, twice as many backends move
/// with each event; with 115, backends have up to 17 % more connections than the mean.
const CAP_PERCENT: u64 = 110;
/// How many hashes are tried before the emptiest cell takes a backend.
const TRIES: u64 = 500;

/// A registered backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The hash of its id.
    pub id: u64,
    /// Its registered weight. 0 counts as 1, so that a drain moves no backend.
    pub weight: u32,
}

/// The cell of each backend of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    bits: u32,
    cells: Vec<u32>,
}

impl Table {
    /// Makes the table. `backends` are in the order of their registration (revision, then
    /// key), and `peak` is that of [`bits`].
    #[must_use]
    pub fn new(backends: &[Backend], bits: u32, peak: usize) -> Self {
        let count = 1_usize << bits;
        let weight = |backend: &Backend| u64::from(backend.weight.max(1));
        let total: u64 = backends.iter().map(weight).sum();
        let peak = peak.max(backends.len()) as u64;
        let caps: Vec<u64> = (0..count as u64).map(|cell| cap(peak, count as u64, cell)).collect();
        let mut loads = vec![0_u64; count];
        // Caps count backends of the mean weight.
        let fits = |load: u64, cap: u64| {
            u128::from(load) * backends.len() as u128 <= u128::from(cap) * u128::from(total)
        };
        let mut cells = vec![0; backends.len()];
        let mut over = Vec::new();
        for (at, backend) in backends.iter().enumerate() {
            let home = first_bits(backend.id, bits);
            if fits(loads[home] + weight(backend), caps[home]) {
                loads[home] += weight(backend);
                cells[at] = index(home);
            } else {
                over.push(at);
            }
        }
        for at in over {
            let own = weight(&backends[at]);
            let mut tries = (1..=TRIES).map(|try_| first_bits(pair(backends[at].id, try_), bits));
            let roomy = tries.find(|&cell| fits(loads[cell] + own, caps[cell]));
            let emptiest = || (0..count).min_by_key(|&cell| loads[cell]).unwrap_or(0);
            let cell = roomy.unwrap_or_else(emptiest);
            loads[cell] += own;
            cells[at] = index(cell);
        }
        Self { bits, cells }
    }

    /// Returns the cell of each backend, in the order of the backends.
    #[must_use]
    pub fn cells(&self) -> &[u32] {
        &self.cells
    }

    /// Returns the number of bits of a cell's number.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Returns the sum over each cell of a value of its backends, such as the weight of
    /// those that may be listed. `of` returns the value of the backend at an index.
    #[must_use]
    pub fn sums(&self, of: impl Fn(usize) -> u64) -> Vec<u64> {
        let mut sums = vec![0; 1 << self.bits];
        self.cells.iter().enumerate().for_each(|(at, &cell)| sums[cell as usize] += of(at));
        sums
    }
}

/// Returns how many backends of the mean weight a cell may have. If all cells rounded alike,
/// their caps would all change with the same backend. So each cell adds a fraction of its
/// own before it rounds.
fn cap(peak: u64, count: u64, cell: u64) -> u64 {
    let fraction = u128::from(pair(cell, count));
    let most = (u128::from(peak * CAP_PERCENT) << u64::BITS) / u128::from(100 * count);
    let dithered = (most + fraction) >> u64::BITS;
    u64::try_from(dithered).unwrap_or(u64::MAX).max(peak.div_ceil(count))
}

fn first_bits(hash: u64, bits: u32) -> usize {
    usize::try_from(hash.checked_shr(u64::BITS - bits).unwrap_or(0)).unwrap_or(0)
}

fn index(cell: usize) -> u32 {
    u32::try_from(cell).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
