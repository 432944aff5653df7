//! What the settings of a service mean for what it lists. Pure.
//!
//! In: settings that change. Out: the services of which others are listed now.

use std::sync::Arc;
use std::time::Duration;

use super::super::touched::Touched;
use super::{Index, Members, Rules};
use crate::model::ServiceName;
use crate::settings::Settings;

impl Index {
    /// From now on these settings hold. Touches a service only if that changes who is
    /// listed.
    pub(in crate::catalog) fn set_settings(
        &mut self,
        settings: Arc<Settings>,
        touched: &mut Touched,
    ) {
        let before = std::mem::replace(&mut self.settings, settings);
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for service in names {
            let every = self.settings.of_service(&service).probe_unleased;
            if every != before.of_service(&service).probe_unleased {
                self.probe_unleased(&service, every);
                touched.service(&service);
            }
        }
        for service in self.guard.settle(&self.settings.clone()) {
            self.evict(&service, touched);
        }
    }

    pub(super) fn rules(&self, service: &ServiceName) -> Rules {
        Rules::from(&*self.settings.of_service(service))
    }

    /// Has those of a service that have no lease probed that often; zero: never.
    fn probe_unleased(&mut self, service: &ServiceName, every: Duration) {
        let unleased = self.services.get(service).into_iter().flat_map(Members::unleased);
        for addr in unleased {
            match every.is_zero() {
                true => self.unleased.remove(service, addr),
                false => self.unleased.add(service, addr, every),
            }
        }
    }
}
