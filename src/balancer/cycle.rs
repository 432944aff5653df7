//! Weights as a cycle of turns: grpclb has no weights, only repeats.
//!
//! In: weights. Out: whose turn it is, over one cycle, and which part of the
//! cycle a stream is sent. Every replica makes the same cycle of the same
//! weights. Pure.
//!
//! A cycle is long enough for each backend to have its share. Where it is longer
//! than a client should have to read, each list is a window of it, and the shares
//! hold over all clients together.

use crate::policy::Decision;

/// A cycle has at most this many turns a backend. Turns are rounded down, so each
/// backend loses less than one of 20, and nobody gets more than a nineteenth over its
/// share; mostly it is half of that.
const TURNS_PER_BACKEND: usize = 20;
/// Large services get fewer turns a backend, for a cycle is memory and time:
/// this many turns in all, ...
const TURNS: usize = 20_480;
/// ... and never fewer than this many a backend: a ninth over at most.
const TURNS_PER_BACKEND_MIN: usize = 10;
/// A cycle of so many turns is sent as it is.
const LIST: usize = 1_024;
/// A longer one is sent in windows of this many turns a backend: C-core builds a
/// child policy for each entry.
const LIST_PER_BACKEND: usize = 2;
/// So few clients do not make up for each other's windows: with 30 of them a
/// backend would be up to 9 % over its share, ...
const FEW: usize = 64;
/// ... so they are sent longer ones, and it is 5 %.
const LIST_OF_FEW: usize = 4_096;

/// Which part of a cycle a stream is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// The turn that comes first.
    pub(super) start: usize,
    /// How many turns it has; after the cycle's last comes its first.
    pub(super) length: usize,
}

/// What a stream's window depends on besides the cycle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The stream's number among those of its class.
    pub(super) stream: u64,
    /// How many streams its class has.
    pub(super) streams: usize,
}

impl Window {
    /// The window of a stream, in the `list`th cycle of its class. Every stream
    /// begins elsewhere, so that clients do not all call the same backend first,
    /// and elsewhere in each list: Java begins each new list at its first entry,
    /// and would otherwise call one backend for ever where lists come more often
    /// than calls.
    pub(super) fn new(turns: usize, backends: usize, list: u64, place: Place) -> Self {
        // The golden ratio and the square root of 2, as fractions of 2^64: their
        // multiples are spread as evenly as can be, and differently.
        const BY_STREAM: u64 = 0x9e37_79b9_7f4a_7c15;
        const BY_LIST: u64 = 0x6a09_e667_f3bc_c908;
        let fraction =
            place.stream.wrapping_mul(BY_STREAM).wrapping_add(list.wrapping_mul(BY_LIST));
        let start = (u128::from(fraction) * turns as u128) >> u64::BITS;
        let length = if turns <= LIST {
            turns
        } else {
            let few = if place.streams < FEW { LIST_OF_FEW } else { LIST };
            turns.min(few.max(LIST_PER_BACKEND * backends))
        };
        Self { start: usize::try_from(start).unwrap_or(0), length }
    }
}

/// How often each pick of a decision stands in one cycle of the list.
#[must_use]
pub fn turns(decision: &Decision) -> Vec<u32> {
    counts(&decision.weights())
}

/// How far over its share the most favoured backend is, given its weight and its
/// turns: 0.05 is 5 % over.
pub(super) fn excess(weights: &[u32], counts: &[u32]) -> f32 {
    let sum = |all: &[u32]| all.iter().copied().map(f64::from).sum::<f64>();
    let (weight, turns) = (sum(weights), sum(counts));
    let shares = weights.iter().zip(counts);
    let ratios = shares.map(|(&due, &has)| f64::from(has) / turns * weight / f64::from(due));
    (ratios.fold(1.0, f64::max) - 1.0) as f32
}

/// One cycle of turns over these weights, which must not be 0: indices of
/// weights, heavier ones more often, spread evenly.
#[cfg(test)]
fn cycle(weights: &[u32]) -> Vec<u32> {
    order(&counts(weights))
}

/// How often each takes a turn in one cycle.
pub(super) fn counts(weights: &[u32]) -> Vec<u32> {
    let most = most_turns(weights.len()) as u64;
    let divisor = gcd_of(weights.iter().copied()).max(1);
    let exact: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    if exact <= most {
        return weights.iter().map(|&weight| weight / divisor).collect();
    }
    let price = price(weights, most);
    let counts: Vec<u32> = weights.iter().map(|&weight| at_price(weight, price)).collect();
    // They may be alike now.
    let divisor = gcd_of(counts.iter().copied()).max(1);
    counts.into_iter().map(|count| count / divisor).collect()
}

fn most_turns(backends: usize) -> usize {
    (TURNS_PER_BACKEND * backends).min(TURNS.max(TURNS_PER_BACKEND_MIN * backends))
}

/// The turns that a unit of weight gets, as a fraction of 2^64: as many as keep
/// the cycle within its length. This is d'Hondt's rule: of all ways to round, it
/// leaves the most overloaded backend the least overloaded.
fn price(weights: &[u32], most: u64) -> u64 {
    let fits = |price| {
        weights.iter().map(|&weight| u64::from(at_price(weight, price))).sum::<u64>() <= most
    };
    // The greatest that fits; 0 does, for the cycle has room for a turn each.
    (0..u64::BITS)
        .rev()
        .map(|bit| 1 << bit)
        .fold(0, |price, step| if fits(price | step) { price | step } else { price })
}

/// Nobody who takes calls is left out.
fn at_price(weight: u32, price: u64) -> u32 {
    let turns = (u128::from(weight) * u128::from(price)) >> u64::BITS;
    u32::try_from(turns).unwrap_or(u32::MAX).max(1)
}

/// Spreads turns evenly. Those with equally many are a class whose members take
/// its turns one after the other: so light backends do not come in a row, and
/// equal weights keep their order. Each turn of a class has an ideal place in
/// the cycle, and the turns are sorted by it.
pub(super) fn order(counts: &[u32]) -> Vec<u32> {
    let mut members: Vec<u32> = (0..counts.len()).map(index).collect();
    // Stable: the members of a class keep their order.
    members.sort_by_key(|&member| counts[member as usize]);
    let classes: Vec<&[u32]> =
        members.chunk_by(|&a, &b| counts[a as usize] == counts[b as usize]).collect();
    let shares =
        classes.iter().map(|members| u64::from(counts[members[0] as usize]) * members.len() as u64);
    let mut turns: Vec<(u64, u32)> =
        Vec::with_capacity(counts.iter().map(|&count| count as usize).sum());
    for (class, share) in shares.enumerate() {
        // A share is below 2^24, so nothing overflows and no two places of a class
        // are one.
        turns.extend((0..share).map(|turn| (((2 * turn + 1) << 39) / share, index(class))));
    }
    turns.sort_unstable();
    let mut next = vec![0; classes.len()];
    let member = |(_, class): (u64, u32)| {
        let (members, next) = (classes[class as usize], &mut next[class as usize]);
        let member = members[*next % members.len()];
        *next += 1;
        member
    };
    turns.into_iter().map(member).collect()
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
