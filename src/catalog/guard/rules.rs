//! The rules by which each service keeps what it lost. Pure.
//!
//! In: settings. Out: the rules of a service, and new ends for what is held.

use std::sync::Arc;

use super::{Guard, Rules};
use crate::model::ServiceName;
use crate::settings::Settings;

impl Guard {
    /// From now on these settings hold. Returns the services that lost something and
    /// whose rules are others now.
    pub(in crate::catalog) fn settle(&mut self, settings: &Arc<Settings>) -> Vec<ServiceName> {
        self.settings = settings.clone();
        let mut changed = Vec::new();
        for (service, lost) in &mut self.services {
            let rules = Rules::from(&*settings.of_service(service));
            if lost.rules() == rules {
                continue;
            }
            changed.push(service.clone());
            for (addr, before, now) in lost.set_rules(rules) {
                // While nothing is certain nothing has an end.
                if self.restored.is_none() {
                    self.ends.replace((before, now), service, addr);
                }
            }
        }
        changed
    }

    pub(super) fn rules(&self, service: &ServiceName) -> Rules {
        Rules::from(&*self.settings.of_service(service))
    }
}
