//! Applies changed settings to the index. Pure.
//!
//! In: new settings. Out: the services whose lists may change.

use std::sync::Arc;

use super::super::affected::Affected;
use super::{Index, Rules};
use crate::model::ServiceName;
use crate::settings::Settings;

impl Index {
    /// Sets the settings. It affects a service only if its list may change.
    pub(in crate::catalog) fn set_settings(
        &mut self,
        settings: Arc<Settings>,
        affected: &mut Affected,
    ) {
        let former = std::mem::replace(&mut self.settings, settings);
        if former.registrants() != self.settings.registrants() {
            self.apply_registrants(affected);
        }
        for (service, members) in &mut self.services {
            let every = self.settings.for_service(service).probe_unleased;
            if members.probe_unleased == every {
                continue;
            }
            members.probe_unleased = every;
            for addr in members.unleased() {
                match every.is_zero() {
                    true => self.down.remove(service, addr),
                    false => self.down.add(service, addr, every),
                }
            }
            affected.service(service);
        }
        for service in self.guard.set_settings(&self.settings.clone()) {
            self.evict(&service, affected);
        }
    }

    pub(super) fn rules(&self, service: &ServiceName) -> Rules {
        Rules::from(&*self.settings.for_service(service))
    }
}
