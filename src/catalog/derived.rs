//! What is made of a value and kept with it.
//!
//! In: nothing. Out: a place for it that makes no difference between two values.

use std::fmt;
use std::ops::Deref;

/// Derived from the value that it is kept with: all are equal, and a copy begins anew.
#[derive(Default)]
pub(super) struct Derived<T>(T);

impl<T> Deref for Derived<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Default> Clone for Derived<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Derived<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Derived<T> {}

impl<T> fmt::Debug for Derived<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derived")
    }
}
