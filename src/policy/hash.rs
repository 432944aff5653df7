//! Hashes of names that are equal on every replica, machine and release.
//!
//! In: bytes or numbers. Out: 64 bits. Pure. The standard library's hashes may change with
//! any release, and a changed hash would move clients to other backends. The hashes are not
//! for secrets: anyone can choose names with a wanted hash.

/// Returns the hash of bytes: FNV-1a with mixed bits.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Returns the hash of a pair of hashes. Their order counts.
#[must_use]
pub fn pair(first: u64, second: u64) -> u64 {
    mix(first.wrapping_add(mix(second ^ 0x9e37_79b9_7f4a_7c15)))
}

/// Mixes bits with SplitMix64's finaliser (Steele et al. 2014): each bit of the result
/// depends on all bits of the argument.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_stay_as_they_are() {
        const EXPECTED: [u64; 3] =
            [0xf52a_15e9_a9b5_e89b, 0x02c0_bdbf_4814_20f8, 0xf282_6f98_653e_9e57];
        // A change would move every client of every service.
        assert_eq!([hash(b""), hash(b"a"), pair(1, 2)], EXPECTED);
        assert_ne!(pair(1, 2), pair(2, 1));
    }

    #[test]
    fn similar_names_spread_evenly() {
        let mut buckets = [0_u32; 64];
        for at in 0..64_000 {
            let hash = pair(hash(format!("10.0.{}.{}", at / 256, at % 256).as_bytes()), 7);
            buckets[(hash >> 58) as usize] += 1;
        }
        // Five standard deviations around 1,000.
        assert!(buckets.iter().all(|&count| (842..1_158).contains(&count)), "{buckets:?}");
    }
}
