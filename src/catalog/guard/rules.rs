//! Applies each service's rules for lost backends. Pure.
//!
//! In: settings. Out: the rules of a service, and new ends for held backends.

use std::sync::Arc;

use super::{Guard, Rules};
use crate::model::ServiceName;
use crate::settings::Settings;

impl Guard {
    /// Sets the settings. Returns the services with lost backends whose rules changed.
    pub(in crate::catalog) fn set_settings(
        &mut self,
        settings: &Arc<Settings>,
    ) -> Vec<ServiceName> {
        self.settings = settings.clone();
        let mut changed = Vec::new();
        for (service, lost) in &mut self.services {
            let rules = Rules::from(&*settings.for_service(service));
            if lost.rules() == rules {
                continue;
            }
            changed.push(service.clone());
            for (addr, before, now) in lost.set_rules(rules) {
                // No backend's time ends before the registry has been read.
                if self.restored.is_none() {
                    self.ends.replace((before, now), service, addr);
                }
            }
        }
        changed
    }

    pub(super) fn rules(&self, service: &ServiceName) -> Rules {
        Rules::from(&*self.settings.for_service(service))
    }
}
