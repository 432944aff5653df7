//! What is in force for each service, published.
//!
//! In: new settings, from the one writer. Out: a new value of each service and name
//! whose settings are others now, and of no other.

use std::sync::Arc;

use super::Catalog;
use super::topic::Rounds;
use crate::settings::Settings;

impl Catalog {
    /// What is in force for each service.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.borrow().clone()
    }

    /// Tells those whose settings are others now, at once: however long a service is,
    /// its snapshot is the same. Returns whether that is any service's.
    pub(super) fn publish_settings(&self, settings: Arc<Settings>, rounds: &mut Rounds) -> bool {
        self.0.settings.send_replace(settings.clone());
        let mut changed = false;
        for mut group in self.0.groups.iter_mut() {
            let new = settings.of(group.key());
            if !group.set_settings(new, || self.next_version()) {
                continue;
            }
            changed |= !group.services.is_empty();
            self.announce(&group, rounds);
        }
        changed
    }
}
