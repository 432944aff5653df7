//! The marks that say what clients do: drop calls, or use the addresses from DNS. Pure.
//!
//! In: the shed and fallback marks of one scope. Out: the mark that concerns a class of
//! clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Clients, Mark, MarkKey};
use crate::model::Class;

/// What the clients of one service, or of all services, do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForClients {
    shed: BTreeMap<Clients, Arc<Mark>>,
    fallback: Option<Arc<Mark>>,
}

impl ForClients {
    pub(super) fn insert(&mut self, mark: Arc<Mark>) {
        match &mark.key {
            MarkKey::Shed(_, clients) => drop(self.shed.insert(clients.clone(), mark)),
            MarkKey::Fallback(_) => self.fallback = Some(mark),
            MarkKey::Drain(..) | MarkKey::Release(_) => {}
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Mark>> {
        self.shed.values().chain(&self.fallback)
    }

    /// Returns the mark by which clients of a class drop the most calls.
    pub(super) fn shed(&self, class: &Class) -> Option<&Arc<Mark>> {
        let concerned = self.shed.iter().filter(|(clients, _)| clients.include(class));
        concerned.map(|(_, mark)| mark).max_by_key(|mark| mark.value.percent())
    }

    pub(super) fn sheds(&self) -> impl Iterator<Item = &Arc<Mark>> {
        self.shed.values()
    }

    pub(super) fn fallback(&self) -> Option<&Arc<Mark>> {
        self.fallback.as_ref()
    }
}

impl Clients {
    /// Returns whether clients of a class are among these.
    fn include(&self, class: &Class) -> bool {
        match self {
            Self::All => true,
            Self::Selecting(selector) => class.selects(selector),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Marks, Value};
    use super::*;
    use crate::model::Selector;

    fn mark(key: &str, percent: Option<u32>) -> Arc<Mark> {
        let value = Value { percent, ..Value::default() };
        Arc::new(Mark { key: MarkKey::parse(key).unwrap(), value })
    }

    fn class(selectors: &[(&str, &str)]) -> Class {
        let selector =
            |&(key, value): &(&str, &str)| Selector { key: key.into(), value: value.into() };
        Class::new(&selectors.iter().map(selector).collect::<Vec<_>>())
    }

    #[test]
    fn the_greatest_part_counts_and_only_for_those_meant() {
        let marks = Marks::new([
            mark("shed/hello", Some(10)),
            mark("shed/hello/zone=a", Some(30)),
            mark("shed/*", Some(20)),
            mark("shed/other", None),
            mark("fallback/other", None),
        ]);
        let percent = |service: &str, class: &Class| {
            marks.for_canonical(service).shed(class).map(|mark| mark.value.percent())
        };
        let (all, zone) = (class(&[]), class(&[("version", "v2"), ("zone", "A")]));
        assert_eq!((percent("hello", &all), percent("hello", &zone)), (Some(20), Some(30)));
        assert_eq!((percent("other", &all), percent("third", &zone)), (Some(100), Some(20)));
        let falls_back = |service| marks.for_canonical(service).fallback().is_some();
        assert!(falls_back("other") && !falls_back("hello"));
        assert_eq!(marks.all().count(), 5);
        let equal = Marks::new([mark("shed/*", Some(5)), mark("shed/hello", Some(5))]);
        let shed = equal.for_canonical("hello");
        assert_eq!(shed.shed(&all).unwrap().key.service(), "hello");
    }
}
