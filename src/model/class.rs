//! The properties of a client that decide its list. Clients of one class share one list.
//!
//! In: the selectors that were read from a client's name, the client's part of a split, the
//! zone in which it is, its subset of the backends, and the backend that its key is given. Out: a [`Class`] in canonical form, so that equal selections are
//! equal values.

use std::sync::Arc;

use super::{Selector, Subset};

/// Everything about a client that may change its list. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Sorted, without duplicates.
    selectors: Arc<[Selector]>,
    key: Option<Arc<str>>,
    part: Part,
    zone: Option<Arc<str>>,
    subset: Option<Subset>,
    backend: Option<u64>,
}

/// The group of backends that a client uses, where a service splits its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Both groups.
    #[default]
    Both,
    /// The canaries only.
    Canaries,
    /// All backends but the canaries.
    Others,
}

/// The key of the label that chooses one backend by a hash: `hash--user42`.
const HASH: &str = "hash";

impl Class {
    /// Makes the class of clients that select with these selectors, in any order. The
    /// selectors with the key `hash` become the class's key.
    #[must_use]
    pub fn new(selectors: &[Selector]) -> Self {
        let mut selectors = selectors.to_vec();
        selectors.sort_unstable();
        selectors.dedup();
        let (keys, selectors): (Vec<_>, Vec<_>) =
            selectors.into_iter().partition(|selector| selector.key == HASH);
        // A label has no dot, so different labels give different keys.
        let keys: Vec<String> = keys.into_iter().map(|selector| selector.value).collect();
        let key = (!keys.is_empty()).then(|| keys.join(".").into());
        Self { selectors: selectors.into(), key, ..Self::default() }
    }

    /// Returns the class for one part of the clients.
    #[must_use]
    pub fn with_part(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// Returns the class without its key.
    #[must_use]
    pub fn without_key(&self) -> Self {
        Self { key: None, backend: None, ..self.clone() }
    }

    /// Returns the class of the same clients in a zone; `None`: in no zone that matters.
    #[must_use]
    pub fn in_zone(self, zone: Option<Arc<str>>) -> Self {
        Self { zone, ..self }
    }

    /// Returns the class of the same clients with a subset of the backends; `None`: with all.
    #[must_use]
    pub fn with_subset(self, subset: Option<Subset>) -> Self {
        Self { subset, ..self }
    }

    /// Returns the class of the same clients, to whose key the balancer gives this backend.
    /// `backend` is the hash of the backend's id; `None`: the key uses its first choice.
    #[must_use]
    pub fn with_backend(self, backend: Option<u64>) -> Self {
        Self { backend, ..self }
    }

    /// Returns the selectors. A backend must match all of them; with none, every backend
    /// is chosen.
    #[must_use]
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Returns whether its clients' name selects with this label. Letter case of the value
    /// does not matter.
    #[must_use]
    pub fn selects(&self, wanted: &Selector) -> bool {
        let same = |value: &str| value.eq_ignore_ascii_case(&wanted.value);
        match wanted.key == HASH {
            true => self.key().is_some_and(same),
            false => self.selectors.iter().any(|one| one.key == wanted.key && same(&one.value)),
        }
    }

    /// Returns the key to which one backend is assigned.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the backends that its clients use, where a service splits its clients.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// Returns the zone in which the clients are; `None` if it does not matter.
    #[must_use]
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.zone.as_ref()
    }

    /// Returns the subset of the backends that the clients use; `None`: all.
    #[must_use]
    pub fn subset(&self) -> Option<Subset> {
        self.subset
    }

    /// Returns the backend that the balancer gives to the key, by the hash of its id.
    #[must_use]
    pub fn backend(&self) -> Option<u64> {
        self.backend
    }

    /// Returns whether its clients' name chooses nothing, wherever they are. A service has few
    /// such classes.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.selectors.is_empty() && self.key.is_none()
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
        assert_eq!((one.key(), one.part()), (None, Part::Both));
        let here = Class::new(&[]).in_zone(Some("a".into()));
        assert!(here.is_whole() && here != Class::default());
        assert_eq!(here.in_zone(None), Class::default());
    }

    #[test]
    fn a_key_is_no_selector() {
        let select = |key: &str, value: &str| Selector { key: key.into(), value: value.into() };
        let all = [select("zone", "a"), select("hash", "x"), select("hash", "b")];
        let class = Class::new(&all);
        assert_eq!((class.selectors(), class.key()), (&all[..1], Some("b.x")));
        assert!(class.selects(&select("hash", "B.x")) && class.selects(&select("zone", "A")));
        assert!(!class.selects(&select("hash", "a")) && !class.selects(&select("x", "a")));
        assert_eq!(class.without_key(), Class::new(&all[..1]));
        assert!(!Class::new(&all[1..]).is_whole());
        let part = Class::default().with_part(Part::Canaries);
        assert!(part.is_whole() && part != Class::default());
    }
}
