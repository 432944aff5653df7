//! Rendezvous hashing: assigns the same backend to a key every time.
//!
//! In: the hash of a key, and the backends that may be listed. Out: the backend for the
//! key; or whether a client belongs to a share of all clients. Pure. It uses integers only,
//! so every replica chooses the same backend. When a backend joins, only the keys that it
//! gets move. When it leaves, only the keys that it had move.
//!
//! The method is highest random weight (Thaler and Ravishankar 1998), with weights by
//! −w/ln u. `key_loads.rs` bounds the load of a backend.

use std::cmp::Ordering;

use super::hash::pair;
use crate::catalog::Candidate;
use crate::facts::factor::Factor;

/// Returns the index of the backend for a key; `None` if all weights are 0. It is fastest if
/// backends of one weight follow each other: only the best of each weight are compared by
/// logarithms.
#[must_use]
pub fn choose(key: u64, candidates: &[Candidate]) -> Option<usize> {
    let groups = candidates.chunk_by(|a, b| a.weight == b.weight).scan(0, |start, group| {
        let at = *start;
        *start += group.len();
        Some((at, group))
    });
    let best = groups.filter(|(_, group)| group[0].weight > 0).filter_map(|(start, group)| {
        let best = group.iter().enumerate().min_by(|(_, a), (_, b)| compare(key, a, b));
        best.map(|(at, one)| (start + at, one))
    });
    best.min_by(|(_, a), (_, b)| compare(key, a, b)).map(|(at, _)| at)
}

/// Returns the index of the best backend for a key among those that have room; `None` if none
/// has.
#[must_use]
pub fn choose_among(
    key: u64,
    candidates: &[Candidate],
    has_room: impl Fn(usize) -> bool,
) -> Option<usize> {
    let roomy = candidates.iter().enumerate().filter(|(at, _)| has_room(*at));
    roomy.min_by(|(_, a), (_, b)| compare(key, a, b)).map(|(at, _)| at)
}

/// Returns whether a client belongs to a share of all clients. A client that belongs to a
/// share belongs to every greater share of the same `salt`.
#[must_use]
pub fn is_in_share(client: u64, salt: u64, share: Factor) -> bool {
    let place = (u128::from(pair(salt, client)) * 1_000_000) >> u64::BITS;
    place < u128::from(share.as_millionths())
}

/// Compares two backends for a key. The better one is less.
fn compare(key: u64, a: &Candidate, b: &Candidate) -> Ordering {
    let hash = |one: &Candidate| pair(key, one.id);
    let (hash_a, hash_b) = (hash(a), hash(b));
    let by_hash = || hash_b.cmp(&hash_a).then(a.id.cmp(&b.id));
    if a.weight == b.weight {
        return by_hash();
    }
    // −ln u / w, multiplied by both weights to avoid a division.
    let left = u128::from(distance(hash_a)) * u128::from(b.weight);
    let right = u128::from(distance(hash_b)) * u128::from(a.weight);
    left.cmp(&right).then_with(by_hash)
}

/// Returns −log₂(hash / 2^64) as a multiple of 2^-32. It computes the digits of the logarithm
/// by squaring, because floating-point logarithms differ between machines.
fn distance(hash: u64) -> u64 {
    const DIGITS: u32 = 32;
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    let mut mantissa = hash << zeros;
    let mut fraction = 0_u64;
    for _ in 0..DIGITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        // The square of a number from 1 to 2 is from 1 to 4.
        let carry = (square >> 127) as u64;
        fraction = fraction << 1 | carry;
        mantissa = (square >> (63 + carry)) as u64;
    }
    ((u64::from(zeros) + 1) << DIGITS) - fraction
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hash::hash;
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let one = |(at, &weight): (usize, &u32)| Candidate {
            endpoint: 0,
            id: hash(format!("backend-{at}").as_bytes()),
            weight,
        };
        weights.iter().enumerate().map(one).collect()
    }

    fn key(at: usize) -> u64 {
        hash(format!("key-{at}").as_bytes())
    }

    #[test]
    fn the_logarithm_is_right() {
        for hash in [1, 2, 3, 1 << 40, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let expected = 64.0 - (hash as f64).log2();
            let found = distance(hash) as f64 / (1_u64 << 32) as f64;
            assert!((found - expected).abs() < 1e-8, "{hash}: {found} {expected}");
        }
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let all = candidates(&[1, 2, 4, 0, 1]);
        let mut counts = [0_u32; 5];
        (0..80_000).for_each(|at| counts[choose(key(at), &all).unwrap()] += 1);
        for (count, due) in counts.iter().zip([10_000_u32, 20_000, 40_000, 0, 10_000]) {
            assert!(count.abs_diff(due) < 600, "{counts:?}");
        }
        assert_eq!(choose(1, &candidates(&[0])), None);
        assert_eq!(choose_among(1, &all, |_| false), None);
        let (best, next) =
            (choose(7, &all).unwrap(), |best| choose_among(7, &all, |at| at != best));
        assert_eq!(choose_among(7, &all, |_| true), Some(best));
        assert!(next(best).is_some_and(|next| next != best));
    }

    #[test]
    fn a_share_of_clients_grows_by_adding_clients() {
        let inside = |percent: u32| -> Vec<usize> {
            let share = Factor::millionths(percent * 10_000);
            (0..20_000).filter(|&at| is_in_share(key(at), 7, share)).collect()
        };
        let (one, ten) = (inside(1), inside(10));
        assert!(one.len().abs_diff(200) < 60 && ten.len().abs_diff(2_000) < 180);
        assert!(one.iter().all(|at| ten.contains(at)));
        assert_eq!((inside(0).len(), inside(100).len()), (0, 20_000));
    }

    proptest! {
        #[test]
        fn a_backend_that_leaves_moves_only_its_keys(
            weights in proptest::collection::vec(1..9_u32, 2..20), gone in any::<proptest::sample::Index>(),
        ) {
            let all = candidates(&weights);
            let gone = gone.index(all.len());
            let mut rest = all.clone();
            rest.remove(gone);
            for key in (0..200).map(key) {
                let before = choose(key, &all).unwrap();
                let after = rest[choose(key, &rest).unwrap()];
                prop_assert!(before == gone || all[before] == after);
            }
            let turned: Vec<_> = all.iter().rev().copied().collect();
            let chosen = |all: &[Candidate], at| all[choose(key(at), all).unwrap()];
            prop_assert!((0..50).all(|at| chosen(&all, at) == chosen(&turned, at)));
        }
    }
}
