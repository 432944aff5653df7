//! The one source of randomness.
//!
//! In: nothing; in a simulation, a seed. Out: unpredictable numbers that spread load and
//! serve as distinct ids.
//! Never used for secrets.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    /// The state of this thread's sequence; `None` where no seed was set.
    static SEQUENCE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Returns 64 random bits.
#[must_use]
pub fn random() -> u64 {
    SEQUENCE.with(|sequence| match sequence.get() {
        // The standard library seeds each `RandomState` differently, from the system's
        // randomness.
        None => RandomState::new().hash_one(0),
        Some(state) => {
            let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            sequence.set(Some(state));
            scatter(state)
        }
    })
}

/// Makes all further numbers of this thread follow from `seed`, for simulations.
pub fn fix(seed: u64) {
    SEQUENCE.set(Some(seed));
}

/// SplitMix64's finaliser (Steele et al. 2014).
fn scatter(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_and_follow_from_a_seed_once_there_is_one() {
        assert_ne!(random(), random());
        let sequence = |seed| {
            fix(seed);
            [random(), random(), random()]
        };
        let [first, second, third] = sequence(7);
        assert!(first != second && second != third);
        assert_eq!(sequence(7), [first, second, third]);
        assert_ne!(sequence(8)[0], first);
    }
}
