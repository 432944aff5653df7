//! Multiplies weights by the factors of passes.
//!
//! In: weights, and a factor for each. Out: weights in the proportions of the products.
//! Pure. It uses integers only, so every replica computes the same values.

/// A factor by which a pass multiplies a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(u32);

const MILLION: u32 = 1_000_000;

impl Factor {
    /// The factor 0: the backend is left out.
    pub const ZERO: Self = Self(0);
    /// The factor 1: the weight stays the same.
    pub const ONE: Self = Self(MILLION);

    /// Makes a factor from millionths.
    #[must_use]
    pub const fn millionths(millionths: u32) -> Self {
        Self(millionths)
    }

    /// Makes the factor `part / whole`, rounded, and at least a millionth if `part` is not
    /// 0. It is 0 if `whole` is 0.
    #[must_use]
    pub fn ratio(part: u64, whole: u64) -> Self {
        if part == 0 || whole == 0 {
            return Self::ZERO;
        }
        let (part, whole) = (u128::from(part) * u128::from(MILLION), u128::from(whole));
        let rounded = (part + whole / 2) / whole;
        Self(u32::try_from(rounded).unwrap_or(u32::MAX).max(1))
    }

    /// Returns the factor in millionths.
    #[must_use]
    pub const fn as_millionths(self) -> u32 {
        self.0
    }

    /// Returns the factor as a fraction of 1.
    #[must_use]
    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }

    /// Returns the product of two factors.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        Self::ratio(u64::from(self.0) * u64::from(other.0), u64::from(MILLION) * u64::from(MILLION))
    }
}

impl Default for Factor {
    fn default() -> Self {
        Self::ONE
    }
}

/// Returns the weights multiplied by their factors. The result may have another scale,
/// because only proportions count. It is 0 exactly where a weight or its factor is 0.
#[must_use]
pub fn apply(weights: &[u32], factors: &[Factor]) -> Vec<u32> {
    let product = |(&weight, factor): (&u32, &Factor)| u64::from(weight) * u64::from(factor.0);
    let products: Vec<u64> = weights.iter().zip(factors).map(product).collect();
    let divisor = products.iter().copied().fold(0, gcd).max(1);
    let most = products.iter().max().map_or(0, |most| most / divisor);
    let shift = (u64::BITS - most.leading_zeros()).saturating_sub(u32::BITS);
    let fit = |product: u64| {
        let weight = u32::try_from((product / divisor) >> shift).unwrap_or(u32::MAX);
        weight.max(u32::from(product > 0))
    };
    products.into_iter().map(fit).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_keep_their_proportions() {
        let half = Factor::millionths(500_000);
        assert_eq!(apply(&[1, 1, 3], &[Factor::ONE, half, Factor::ONE]), [2, 1, 6]);
        assert_eq!(apply(&[4, 4], &[Factor::ONE, Factor::ZERO]), [1, 0]);
        assert_eq!(apply(&[], &[]), [0; 0]);
        assert_eq!(half.times(half), Factor::ratio(1, 4));
        assert_eq!(Factor::ratio(1, u64::MAX), Factor::millionths(1));
        assert_eq!((Factor::ratio(0, 1), Factor::ratio(1, 0)), (Factor::ZERO, Factor::ZERO));
    }

    proptest! {
        #[test]
        fn products_are_exact_to_the_range_of_a_weight(
            pairs in proptest::collection::vec((any::<u32>(), 0..8 * MILLION), 1..20),
        ) {
            let (weights, factors): (Vec<u32>, Vec<Factor>) =
                pairs.iter().map(|&(weight, factor)| (weight, Factor(factor))).unzip();
            let found = apply(&weights, &factors);
            let due: Vec<f64> =
                pairs.iter().map(|&(a, b)| f64::from(a) * f64::from(b)).collect();
            let most = due.iter().copied().fold(0.0, f64::max);
            let scale = f64::from(*found.iter().max().unwrap()) / most.max(1.0);
            for (&found, due) in found.iter().zip(due) {
                prop_assert_eq!(found == 0, due == 0.0);
                prop_assert!((f64::from(found) - due * scale).abs() <= 1.0 + 1e-6);
            }
        }
    }
}
