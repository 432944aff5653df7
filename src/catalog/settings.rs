//! Publishes the settings that are in force for each service.
//!
//! In: new settings, from the catalog's one writer. Out: a new value of each service and
//! name whose settings changed, and of no other.

use std::sync::Arc;
use std::time::Instant;

use super::Catalog;
use super::Known;
use super::ramps::RampTracker;
use super::topic::Rounds;
use crate::settings::Settings;

impl Catalog {
    /// Returns the settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.borrow().clone()
    }

    /// Publishes settings at once, because they change no snapshot, however long it is.
    /// Returns whether any service changed.
    pub(super) fn publish_settings(
        &self,
        settings: Arc<Settings>,
        ramps: &mut RampTracker,
        now: Instant,
        rounds: &mut Rounds<Known>,
    ) -> bool {
        self.0.settings.send_replace(settings.clone());
        let mut changed = false;
        for mut group in self.0.groups.iter_mut() {
            let new = settings.for_canonical(group.key());
            let share = |service: &_, settings: &_| ramps.share(service, settings, now);
            if !group.set_settings(new, settings.zones(), || self.next_version(), share) {
                continue;
            }
            changed |= !group.services.is_empty();
            self.announce(&group, rounds);
        }
        changed
    }
}
