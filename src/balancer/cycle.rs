//! Makes a cycle of entries from weights: grpclb has no weights, only repeated entries.
//!
//! In: weights, and the share of some of them. Out: the entries of one cycle in order, and
//! the window of the cycle that a stream is sent. Every replica makes the same cycle of the
//! same weights. Pure.
//!
//! A cycle is long enough for each backend to have its share. If it is longer than a
//! client should have to read, each list is a window of it, and the shares hold over all
//! clients together.

use crate::facts::factor::Factor;
use crate::policy::canary::{self, Entries};
use crate::policy::{CallSplit, Decision};

/// The most entries per backend in a cycle. Entries are rounded down, so each backend
/// loses less than one of 20, and no backend gets more than a nineteenth over its share;
/// mostly it is half of that.
const ENTRIES_PER_BACKEND: usize = 20;
/// The most entries in a cycle. A cycle costs memory and time, so large services get fewer
/// entries per backend.
const ENTRIES_MAX: usize = 20_480;
/// A cycle always has room for this many entries per backend, even beyond [`ENTRIES_MAX`].
/// With them, a backend is at most a ninth over its share.
const ENTRIES_PER_BACKEND_MIN: usize = 10;
/// A cycle of up to this many entries is sent as it is.
const WINDOW: usize = 1_024;
/// A longer cycle is sent in windows of this many entries per backend, or of [`WINDOW`]
/// entries if that is more: C-core builds a child policy for each entry.
const WINDOW_PER_BACKEND: usize = 2;
/// The windows of fewer streams than this do not balance each other: with 30 streams a
/// backend would be up to 9 % over its share. So these streams get longer windows.
const FEW_STREAMS: usize = 64;
/// The entries per backend in the windows of few streams. With them a backend is at most 5 %
/// over its share.
const WINDOW_PER_BACKEND_OF_FEW: usize = 5;
/// The most entries in a window of few streams.
const WINDOW_OF_FEW: usize = 4_096;
/// Fewer streams than this always get windows of [`WINDOW_OF_FEW`] entries.
const VERY_FEW_STREAMS: usize = 10;

/// The part of a cycle that a stream is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The first entry.
    pub start: u32,
    /// The number of entries. The cycle's first entry follows its last.
    pub length: u32,
}

/// The properties of a stream that decide its window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamRank {
    /// The stream's number among the streams of its class.
    pub stream: u64,
    /// The number of streams of its class.
    pub streams: usize,
}

impl Window {
    /// Returns the window of a stream in the `list`th cycle of its class. Every stream
    /// starts at another entry, so that clients do not all call the same backend first.
    /// Each list starts at another entry too: Java starts each new list at its first
    /// entry, and would otherwise call one backend for ever if lists come more often than
    /// calls.
    #[must_use]
    pub fn new(entries: usize, backends: usize, list: u64, rank: StreamRank) -> Self {
        // The golden ratio and the square root of 2, as fractions of 2^64. The multiples of
        // each are spread as evenly as possible, and no multiple of one is near one of the
        // other for long.
        const BY_STREAM: u64 = 0x9e37_79b9_7f4a_7c15;
        const BY_LIST: u64 = 0x6a09_e667_f3bc_c908;
        let fraction = rank.stream.wrapping_mul(BY_STREAM).wrapping_add(list.wrapping_mul(BY_LIST));
        let start = (u128::from(fraction) * entries as u128) >> u64::BITS;
        let length = if entries <= WINDOW {
            entries
        } else {
            let least = match rank.streams {
                ..VERY_FEW_STREAMS => WINDOW_OF_FEW,
                VERY_FEW_STREAMS..FEW_STREAMS => {
                    WINDOW.max(WINDOW_PER_BACKEND_OF_FEW * backends).min(WINDOW_OF_FEW)
                }
                _ => WINDOW,
            };
            entries.min(least.max(WINDOW_PER_BACKEND * backends))
        };
        Self {
            start: u32::try_from(start).unwrap_or(0),
            length: u32::try_from(length).unwrap_or(u32::MAX),
        }
    }

    /// Returns its first entry, and the one behind its last: beyond the cycle's end if it goes
    /// on at the beginning.
    #[must_use]
    pub fn ends(self) -> (usize, usize) {
        let start = self.start as usize;
        (start, start + self.length as usize)
    }
}

/// Returns how many entries each pick of a decision has in one cycle of the list.
#[must_use]
pub fn entries_per_pick(decision: &Decision) -> Vec<u32> {
    let weights = decision.weights();
    decision.split().map_or_else(|| counts(&weights), |split| split_counts(&weights, split))
}

/// Returns how far over its share the most favoured pick of a decision is.
#[must_use]
pub fn excess_of(decision: &Decision, counts: &[u32]) -> f32 {
    if decision.split().is_none() {
        return excess(&decision.weights(), counts);
    }
    let entries: f64 = counts.iter().copied().map(f64::from).sum();
    let dues = decision.dues();
    let ratios = dues.iter().zip(counts).map(|(due, &has)| f64::from(has) / entries / due);
    (ratios.fold(1.0, f64::max) - 1.0) as f32
}

/// Returns how far over its share the most favoured backend is, from the weights and the
/// numbers of entries: 0.05 is 5 % over.
#[must_use]
pub fn excess(weights: &[u32], counts: &[u32]) -> f32 {
    let sum = |all: &[u32]| all.iter().copied().map(f64::from).sum::<f64>();
    let (weight, entries) = (sum(weights), sum(counts));
    let shares = weights.iter().zip(counts);
    let ratios = shares.map(|(&due, &has)| f64::from(has) / entries * weight / f64::from(due));
    (ratios.fold(1.0, f64::max) - 1.0) as f32
}

/// Returns how many entries each weight gets if a group of them, the canaries, gets a share
/// of all entries. Within each group, entries are in proportion to the weights.
#[must_use]
pub fn split_counts(weights: &[u32], split: &CallSplit) -> Vec<u32> {
    let group = |canary: bool| -> (Vec<usize>, Vec<u32>) {
        let is_in = |&at: &usize| split.canaries[at] == canary;
        let places: Vec<usize> = (0..weights.len()).filter(is_in).collect();
        let weights: Vec<u32> = places.iter().map(|&at| weights[at]).collect();
        (places, counts(&weights))
    };
    let (canaries, others) = (group(true), group(false));
    let sum = |counts: &[u32]| counts.iter().copied().map(u64::from).sum::<u64>();
    let million = u64::from(Factor::ONE.as_millionths());
    let share = u64::from(split.share.as_millionths());
    // A small share needs a cycle in which it is a whole entry.
    let least = million.div_ceil(share.min(million - share).max(1)).min(ENTRIES_MAX as u64);
    let most = least.max(entries_max(weights.len()).max(WINDOW) as u64);
    let repeated = |counts: &[u32], times: u64| -> Vec<u32> {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        counts.iter().map(|count| count.saturating_mul(times)).collect()
    };
    let (small, large) =
        if 2 * share > million { (&others, &canaries) } else { (&canaries, &others) };
    let (small_counts, large_counts) =
        match canary::entries(sum(&canaries.1), sum(&others.1), split.share, most) {
            Entries::Repeat { canaries: a, others: b } if 2 * share > million => {
                (repeated(&small.1, b), repeated(&large.1, a))
            }
            Entries::Repeat { canaries: a, others: b } => {
                (repeated(&small.1, a), repeated(&large.1, b))
            }
            Entries::Fill { repeat, fill } => (filled(&small.1, fill), repeated(&large.1, repeat)),
        };
    let mut all = vec![0; weights.len()];
    for ((places, _), counts) in [(small, small_counts), (large, large_counts)] {
        places.iter().zip(counts).for_each(|(&at, count)| all[at] = count);
    }
    let divisor = gcd_of(all.iter().copied()).max(1);
    all.into_iter().map(|count| count / divisor).collect()
}

/// Returns exactly `entries` entries in proportion to the weights. If there are fewer
/// entries than weights, the first weights get one each.
fn filled(weights: &[u32], entries: u64) -> Vec<u32> {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    // A price is below one entry for each unit of weight.
    let scale = u32::try_from(entries / sum.max(1) + 1).unwrap_or(u32::MAX);
    let weights: Vec<u32> = weights.iter().map(|weight| weight.saturating_mul(scale)).collect();
    let fits = weights.len() as u64 <= entries;
    let price = if fits { price(&weights, entries) } else { 0 };
    let mut counts: Vec<u32> =
        weights.iter().map(|&weight| if fits { at_price(weight, price) } else { 0 }).collect();
    let given: u64 = counts.iter().copied().map(u64::from).sum();
    let rest = usize::try_from(entries.saturating_sub(given)).unwrap_or(usize::MAX);
    counts.iter_mut().take(rest).for_each(|count| *count += 1);
    counts
}

/// Returns one cycle over these weights, which must not be 0: indices of weights, heavier
/// ones more often, spread evenly.
#[cfg(test)]
fn cycle(weights: &[u32]) -> Vec<u32> {
    order(&counts(weights))
}

/// Returns how many entries each weight gets in one cycle.
#[must_use]
pub fn counts(weights: &[u32]) -> Vec<u32> {
    let most = entries_max(weights.len()) as u64;
    let divisor = gcd_of(weights.iter().copied()).max(1);
    let exact: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    if exact <= most {
        return weights.iter().map(|&weight| weight / divisor).collect();
    }
    let counts = evenest(weights, price(weights, most));
    // The counts may have a common divisor now.
    let divisor = gcd_of(counts.iter().copied()).max(1);
    counts.into_iter().map(|count| count / divisor).collect()
}

fn entries_max(backends: usize) -> usize {
    (ENTRIES_PER_BACKEND * backends).min(ENTRIES_MAX.max(ENTRIES_PER_BACKEND_MIN * backends))
}

/// Returns the *price*: the entries per unit of weight, as a fraction of 2^64. It is the
/// largest number that keeps the cycle within `most` entries. This is d'Hondt's rule: of all
/// ways to round, it overloads the most overloaded backend the least.
fn price(weights: &[u32], most: u64) -> u64 {
    let fits = |price| {
        weights.iter().map(|&weight| u64::from(at_price(weight, price))).sum::<u64>() <= most
    };
    // The largest price that fits. 0 fits, because there is room for one entry per backend.
    (0..u64::BITS)
        .rev()
        .map(|bit| 1 << bit)
        .fold(0, |price, step| if fits(price | step) { price | step } else { price })
}

/// Returns the entries at the best price among this one and some that are up to a quarter
/// lower. The best price overloads the most favoured backend the least, and takes a quarter
/// of its share from no backend. Backends with equal weights gain or lose together by
/// rounding, so a slightly shorter cycle may give all of them their exact share.
fn evenest(weights: &[u32], price: u64) -> Vec<u32> {
    const STEPS: u64 = 16;
    let counts_at =
        |price| -> Vec<u32> { weights.iter().map(|&weight| at_price(weight, price)).collect() };
    let sum = |counts: &[u32]| counts.iter().copied().map(u64::from).sum::<u64>();
    let first = counts_at(price);
    let entries = sum(&first);
    let over = |counts: &[u32]| {
        // A backend whose share is less than one entry still has one, so it does not count.
        let due = weights.iter().zip(counts).zip(&first).filter(|one| *one.1 > 1);
        let (weights, counts): (Vec<u32>, Vec<u32>) = due.map(|(one, _)| one).unzip();
        excess(&weights, &counts)
    };
    let keeps_all = |counts: &[u32]| {
        let length = sum(counts);
        counts
            .iter()
            .zip(&first)
            .all(|(&now, &before)| 4 * u64::from(now) * entries >= 3 * u64::from(before) * length)
    };
    let (mut best, mut least) = (first.clone(), over(&first));
    for step in 1..=STEPS {
        let counts = counts_at(price - price / (4 * STEPS) * step);
        let over = over(&counts);
        if over < least && keeps_all(&counts) {
            (best, least) = (counts, over);
        }
    }
    best
}

/// Returns the entries of one weight: at least 1, so that no backend that takes calls is
/// left out.
fn at_price(weight: u32, price: u64) -> u32 {
    let entries = (u128::from(weight) * u128::from(price)) >> u64::BITS;
    u32::try_from(entries).unwrap_or(u32::MAX).max(1)
}

/// Spreads entries evenly. Backends with equal counts form a class (of backends, not of
/// clients), whose members take its entries one after the other. So light backends do not
/// come in a row, and equal weights keep their order. Each entry of a class has an ideal
/// place in the cycle, and the entries are sorted by it.
#[must_use]
pub fn order(counts: &[u32]) -> Vec<u32> {
    let mut members: Vec<u32> = (0..counts.len()).map(index).collect();
    // Stable: the members of a class keep their order.
    members.sort_by_key(|&member| counts[member as usize]);
    let classes: Vec<&[u32]> =
        members.chunk_by(|&a, &b| counts[a as usize] == counts[b as usize]).collect();
    let shares =
        classes.iter().map(|members| u64::from(counts[members[0] as usize]) * members.len() as u64);
    let mut entries: Vec<(u64, u32)> =
        Vec::with_capacity(counts.iter().map(|&count| count as usize).sum());
    for (class, share) in shares.enumerate() {
        // A share is below 2^24, so nothing overflows, and no two entries of a class have
        // the same place.
        entries.extend((0..share).map(|entry| (((2 * entry + 1) << 39) / share, index(class))));
    }
    entries.sort_unstable();
    let mut next = vec![0; classes.len()];
    let member = |(_, class): (u64, u32)| {
        let (members, next) = (classes[class as usize], &mut next[class as usize]);
        let member = members[*next % members.len()];
        *next += 1;
        member
    };
    entries.into_iter().map(member).collect()
}

fn gcd_of(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, gcd)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
