//! Publishes what marks decide about each service's backends.
//!
//! In: new marks, from the catalog's one writer. Out: a new value of each service that
//! the changed marks concern, and of no other.

use std::sync::Arc;

use tokio::sync::watch;

use super::Catalog;
use super::Known;
use super::topic::Rounds;
use crate::marks::{Differing, Marks};

impl Catalog {
    /// Returns the marks in force.
    #[must_use]
    pub fn marks(&self) -> Arc<Marks> {
        self.0.marks.borrow().clone()
    }

    /// Watches the marks in force.
    #[must_use]
    pub fn watch_marks(&self) -> watch::Receiver<Arc<Marks>> {
        self.0.marks.subscribe()
    }

    /// Publishes marks at once to the services that they concern. Returns whether any
    /// service changed.
    pub(super) fn publish_marks(&self, marks: Arc<Marks>, rounds: &mut Rounds<Known>) -> bool {
        let before = self.0.marks.send_replace(marks.clone());
        let mut publish = |canonical: &str, group: &mut super::Group| {
            if !group.set_marks(marks.for_canonical(canonical), || self.next_version()) {
                return false;
            }
            self.announce(group, rounds);
            !group.services.is_empty()
        };
        let mut changed = false;
        match before.differing(&marks) {
            Differing::All => {
                for mut group in self.0.groups.iter_mut() {
                    let (canonical, group) = group.pair_mut();
                    changed |= publish(canonical, group);
                }
            }
            Differing::Some(services) => {
                for canonical in services {
                    let group = self.0.groups.get_mut(&canonical);
                    changed |= group.is_some_and(|mut group| publish(&canonical, &mut group));
                }
            }
        }
        changed
    }
}
