//! The properties of a client that decide its list. Clients of one class share one list.
//!
//! In: the selectors that were read from a client's name, and the zone in which the client
//! is. Out: a [`Class`] in canonical form, so that equal selections are equal values.

use std::sync::Arc;

use super::Selector;

/// Everything about a client that may change its list. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Sorted, without duplicates.
    selectors: Arc<[Selector]>,
    zone: Option<Arc<str>>,
}

impl Class {
    /// Makes the class of clients that select with these selectors, in any order.
    #[must_use]
    pub fn new(selectors: &[Selector]) -> Self {
        let mut selectors = selectors.to_vec();
        selectors.sort_unstable();
        selectors.dedup();
        Self { selectors: selectors.into(), zone: None }
    }

    /// Returns the class of the same clients in a zone; `None`: in no zone that matters.
    #[must_use]
    pub fn in_zone(self, zone: Option<Arc<str>>) -> Self {
        Self { zone, ..self }
    }

    /// Returns the selectors. A backend must match all of them; with none, every backend
    /// is chosen.
    #[must_use]
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Returns the zone in which the clients are; `None` if it does not matter.
    #[must_use]
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.zone.as_ref()
    }

    /// Returns whether the clients select nothing: every backend may serve them.
    #[must_use]
    pub fn selects_nothing(&self) -> bool {
        self.selectors.is_empty()
    }

    /// Returns whether this is the class of all clients that select nothing, wherever they
    /// are.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.selects_nothing() && self.zone.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_wishes_are_equal_however_they_are_written() {
        let select = |key: &str, value: &str| Selector { key: key.into(), value: value.into() };
        let (a, b) = (select("zone", "a"), select("id", "7"));
        let one = Class::new(&[a.clone(), b.clone()]);
        assert_eq!(one, Class::new(&[b.clone(), a.clone(), b.clone()]));
        assert_ne!(one, Class::new(&[b]));
        assert!(Class::new(&[]).is_whole() && !one.is_whole());
        let here = Class::new(&[]).in_zone(Some("a".into()));
        assert!(here.selects_nothing() && !here.is_whole() && here != Class::default());
        assert_eq!(here.in_zone(None), Class::default());
    }
}
