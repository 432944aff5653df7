//! The services at which something is due, by time.
//!
//! In: services and times. Out: the services that are due. Pure. Asking costs what is due,
//! however many services wait.

use std::collections::BTreeSet;

use crate::model::ServiceName;

/// Services and the times at which they are due.
#[derive(Debug)]
pub(super) struct DueTimes<T>(BTreeSet<(T, ServiceName)>);

impl<T: Ord + Copy> DueTimes<T> {
    /// Adds a service.
    pub(super) fn add(&mut self, service: &ServiceName, at: T) {
        self.0.insert((at, service.clone()));
    }

    /// Removes a service that was added with this time.
    pub(super) fn remove(&mut self, service: &ServiceName, at: T) {
        self.0.remove(&(at, service.clone()));
    }

    /// Returns when the next service is due.
    pub(super) fn first(&self) -> Option<T> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Removes and returns the next service that is due by now.
    pub(super) fn pop(&mut self, now: T) -> Option<ServiceName> {
        self.first().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, service)| service)
    }
}

impl<T> Default for DueTimes<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_due_in_order_and_no_sooner() {
        let [a, b, c] = ["a", "b", "c"].map(|name| ServiceName::new(name).unwrap());
        let mut due = DueTimes::default();
        due.add(&a, 3);
        due.add(&b, 1);
        due.add(&c, 2);
        due.remove(&c, 7);
        assert_eq!((due.first(), due.pop(0)), (Some(1), None));
        assert_eq!((due.pop(2), due.pop(2), due.pop(2)), (Some(b), Some(c), None));
        due.remove(&a, 3);
        assert_eq!((due.first(), due.pop(9)), (None, None));
    }
}
