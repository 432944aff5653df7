//! A set that nearly always has one element and then allocates nothing. Pure.

use std::collections::BTreeSet;
use std::mem;

#[derive(Debug)]
pub(super) enum SmallSet<T> {
    One(T),
    /// None, or more than one was inserted.
    Set(BTreeSet<T>),
}

impl<T: Ord> SmallSet<T> {
    pub(super) fn insert(&mut self, new: T) {
        *self = match mem::take(self) {
            Self::Set(set) if set.is_empty() => Self::One(new),
            Self::Set(mut set) => {
                set.insert(new);
                Self::Set(set)
            }
            Self::One(old) => Self::Set([old, new].into()),
        };
    }

    pub(super) fn remove(&mut self, element: &T) {
        match self {
            Self::One(one) if one == element => *self = Self::default(),
            Self::One(_) => {}
            Self::Set(set) => drop(set.remove(element)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Set(set) if set.is_empty())
    }

    /// Returns the elements, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, set) = match self {
            Self::One(one) => (Some(one), None),
            Self::Set(set) => (None, Some(set)),
        };
        one.into_iter().chain(set.into_iter().flatten())
    }
}

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        Self::Set(BTreeSet::new())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0..4_u8), 0..20)) {
            let (mut small_set, mut set) = (SmallSet::default(), BTreeSet::new());
            for (insert, element) in steps {
                match insert {
                    true => {
                        small_set.insert(element);
                        set.insert(element);
                    }
                    false => {
                        small_set.remove(&element);
                        set.remove(&element);
                    }
                }
                prop_assert_eq!(small_set.is_empty(), set.is_empty());
                prop_assert!(small_set.iter().eq(&set));
            }
        }
    }
}
