//! A wrapper for a value that is derived from another value and stored in it.
//!
//! In: nothing. Out: [`Derived`], which comparisons of the other value ignore.

use std::fmt;
use std::ops::Deref;

/// A value derived from the value that contains it. All are equal, and a clone is empty.
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
