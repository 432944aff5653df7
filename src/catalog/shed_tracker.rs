//! Follows which services are overloaded, and the part of their calls that clients drop.
//!
//! In: services with their settings, the calls that clients report, the capacity that backends
//! report, the time. Out: the part in percent, and when it begins and ends. Pure. A service
//! whose settings do not ask for it costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Instant;

use crate::facts::overload::{CallRates, Overload};
use crate::model::ServiceName;
use crate::settings::{ServiceSettings, ShedMode};

use super::load_tracker::LoadTracker;

/// The overload of all services, followed by the catalog's writer.
#[derive(Debug, Default)]
pub(super) struct ShedTracker {
    services: BTreeMap<ServiceName, Followed>,
    changes: Vec<ShedChange>,
    /// The moment at which milliseconds begin.
    begun: Option<Instant>,
}

#[derive(Debug, Default)]
struct Followed {
    overload: Overload,
    most: u32,
}

/// The beginning or the end of an overload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShedChange {
    pub(super) service: ServiceName,
    /// The part of the calls that clients drop from now on, in percent.
    pub(super) percent: u32,
    /// Calls per second that clients start, and those that the backends can serve for them;
    /// `None` if that is no longer known.
    pub(super) measured: Option<(f64, f64)>,
}

impl ShedTracker {
    /// Returns whether [`Self::update`] must be called for a service.
    pub(super) fn follows(&self, service: &ServiceName, settings: &ServiceSettings) -> bool {
        settings.shed.mode != ShedMode::Off || self.services.contains_key(service)
    }

    /// Applies a change of a service or of its settings; `exists`: it has a backend. Returns
    /// the part of their calls that clients drop, in percent; `None`: none.
    pub(super) fn update(
        &mut self,
        service: &ServiceName,
        exists: bool,
        settings: &ServiceSettings,
    ) -> Option<u32> {
        if !exists || settings.shed.mode == ShedMode::Off {
            self.services.remove(service);
            return None;
        }
        let followed = self.services.entry(service.clone()).or_default();
        followed.most = settings.shed.most;
        followed.percent()
    }

    /// Applies the calls of clients, by service; call it each second. Returns the services
    /// that must be published again.
    pub(super) fn started(
        &mut self,
        rates: &[(ServiceName, CallRates)],
        load: &LoadTracker,
        now: Instant,
    ) -> BTreeSet<ServiceName> {
        let begun = *self.begun.get_or_insert(now);
        let millis = now.saturating_duration_since(begun).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let mut changed = BTreeSet::new();
        for (service, rates) in rates {
            let Some(followed) = self.services.get_mut(service) else { continue };
            let capacity = load.capacity(service, now);
            let before = followed.percent();
            followed.overload.second(*rates, capacity, millis);
            let after = followed.percent();
            if before == after {
                continue;
            }
            changed.insert(service.clone());
            if before.is_none() || after.is_none() {
                self.changes.push(ShedChange {
                    service: service.clone(),
                    percent: after.unwrap_or(0),
                    measured: followed.overload.measured(),
                });
            }
        }
        changed
    }

    /// Returns every service that is followed.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Returns the overloads that began or ended since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<ShedChange> {
        mem::take(&mut self.changes)
    }
}

impl Followed {
    fn percent(&self) -> Option<u32> {
        Some(self.overload.percent().min(self.most)).filter(|percent| *percent > 0)
    }
}
