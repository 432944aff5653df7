//! The part of a large service's backends that a client uses.
//!
//! In: the first bits of the numbers of cells. Out: a [`Subset`].

use std::fmt;
use std::num::NonZeroU8;

/// The cells whose numbers begin with some bits: one of 2, 4, 8 … equal parts of a service.
/// It means the same however many cells the service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subset {
    bits: NonZeroU8,
    index: u16,
}

impl Subset {
    /// The most bits.
    pub const BITS_MAX: u32 = 15;

    /// Makes the part number `index` (from 0) of 2^`bits` parts. Returns `None` if that is
    /// the whole service (no bits), or if there is no such part.
    #[must_use]
    pub fn new(bits: u32, index: u32) -> Option<Self> {
        let exists = bits <= Self::BITS_MAX && index < 1 << bits;
        let bits = NonZeroU8::new(u8::try_from(bits).ok()?)?;
        exists.then_some(Self { bits, index: u16::try_from(index).ok()? })
    }

    /// Returns the number of bits with which its cells begin; not 0.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.bits.get())
    }

    /// Returns these bits as a number.
    #[must_use]
    pub fn index(self) -> u32 {
        u32::from(self.index)
    }
}

/// `3/8`: the third of eight parts.
impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index() + 1, 1 << self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_is_one_of_equal_parts() {
        let shown = |bits, index| Subset::new(bits, index).map(|subset| subset.to_string());
        assert_eq!(shown(3, 2).as_deref(), Some("3/8"));
        assert_eq!(shown(15, 32_767).as_deref(), Some("32768/32768"));
        assert_eq!([shown(0, 0), shown(3, 8), shown(16, 0)], [None, None, None]);
        // Each stream has one.
        assert_eq!(size_of::<Option<Subset>>(), 4);
    }
}
