//! Publishes changes: of services, liveness and status.
//!
//! In: the index, and what an input affected. Out: new values for every reader. It runs in
//! the catalog's one task, and publishes only what differs.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::clock;
use crate::model::ServiceName;
use crate::settings::ServiceSettings;

use super::affected::Affected;
use super::backend_log::BackendLog;
use super::group::Group;
use super::index::Index;
use super::newcomers::{Change, NewcomerTracker};
use super::pace::Pace;
use super::topic::Rounds;
use super::{Catalog, Known, Newcomers, RegistryStatus, Service, ServiceSnapshot, Zones};

/// The writer's state between publications.
pub(super) struct Publisher {
    pace: Pace,
    newcomers: NewcomerTracker,
    backend_log: BackendLog,
    pub(super) rounds: Rounds<Known>,
}

impl Publisher {
    /// Makes a publisher; `wall` returns the time since 1970.
    pub(super) fn new(wall: fn() -> Duration) -> Self {
        Self {
            pace: Pace::default(),
            newcomers: NewcomerTracker::new(wall),
            backend_log: BackendLog::default(),
            rounds: Rounds::default(),
        }
    }

    /// Returns when something is due to be published or logged without an input.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.pace.due(), self.newcomers.due(), self.backend_log.due()].into_iter().flatten().min()
    }
}

impl Catalog {
    pub(super) fn publish(
        &self,
        index: &mut Index,
        mut affected: Affected,
        before: &RegistryStatus,
        status: RegistryStatus,
        publisher: &mut Publisher,
    ) {
        let Publisher { pace, newcomers, backend_log, rounds } = publisher;
        let first = status.synced && !before.synced;
        let read = first || (before.restored.is_some() && status.restored.is_none());
        let (revision, now) = (status.revision, clock::now());
        let mut changed = false;
        if let Some(settings) = affected.settings.take() {
            changed |= self.publish_settings(settings, rounds);
            affected.services.extend(newcomers.services());
        }
        if let Some(marks) = affected.marks.take() {
            changed |= self.publish_marks(marks, rounds);
        }
        for (service, demand) in mem::take(&mut affected.demands) {
            changed |= self.publish_demand(&service, demand, rounds);
        }
        affected.services.extend(newcomers.ready(now));
        // Endpoints of the first reading do not join: they count as listed before.
        let join = before.synced && !read;
        for service in &pace.ready(mem::take(&mut affected.services), now) {
            let settings = self.settings().for_service(service);
            let new = index.snapshot(service, revision);
            let newcomers = newcomers.follows(service, &settings).then(|| {
                let old = self.service(service);
                let before = old.as_ref().map_or(&[][..], |old| &old.endpoints);
                let after = new.as_ref().map_or(&[][..], |new| &new.endpoints);
                newcomers.update(service, &Change { before, after, join }, &settings, now)
            });
            let new = new.map(|new| self.new_version(new, settings, newcomers.flatten()));
            let endpoints = new.as_ref().map_or(0, |new| new.endpoints.len());
            pace.published(service, endpoints, now);
            changed |= self.publish_service(service, new, now, rounds);
        }
        self.forget_empty(now);
        let doubted = index.liveness().map(|(liveness, services)| {
            self.0.liveness.send_replace(Arc::new(liveness));
            services
        });
        let departures = index.departures.take();
        backend_log.update(doubted.unwrap_or_default(), departures, index, now);
        self.publish_key_problems(index, &affected);
        if affected.hosts {
            self.0.host_names.send_replace(Arc::new(index.host_names()));
        }
        self.0.status.send_if_modified(|current| {
            let matters = current.synced != status.synced
                || current.restored != status.restored
                || current.stale.as_ref().map(|s| s.0) != status.stale.as_ref().map(|s| s.0);
            *current = status;
            matters
        });
        // From here on a missing service means that it does not exist.
        if first {
            let services: usize = self.0.groups.iter().map(|group| group.services.len()).sum();
            match &self.status().restored {
                Some(saved) => {
                    tracing::warn!(saved, services, "serving the saved state: registry is unread")
                }
                None => tracing::info!(revision, services, keys = index.keys(), "registry is read"),
            }
            self.0.groups.iter_mut().for_each(|group| group.announce(rounds));
        }
        // The wake-up comes last, so that a woken reader sees everything, the status too.
        if changed || read {
            self.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Makes the next version of a service.
    fn new_version(
        &self,
        snapshot: ServiceSnapshot,
        settings: Arc<ServiceSettings>,
        newcomers: Option<Arc<Newcomers>>,
    ) -> Arc<Service> {
        let drained = self.marks().for_service(&snapshot.name);
        // Only services with zones pay for the look at their former value.
        let zones = settings.zones.are_on().then(|| {
            let old = self.service(&snapshot.name);
            let before = old.as_ref().and_then(|old| old.zones.as_ref());
            Zones::next(before, &settings, self.settings().zones())
        });
        let service = Service::new(self.next_version(), snapshot, settings);
        let service = service.with_drained(drained).with_newcomers(newcomers);
        Arc::new(service.with_zones(zones.flatten()))
    }

    /// Publishes to each spelling of a group's name what it means now, but not
    /// before the registry has been read: until then a missing service may still exist.
    pub(super) fn announce(&self, group: &Group, rounds: &mut Rounds<Known>) {
        if self.0.status.borrow().synced {
            group.announce(rounds);
        }
    }

    pub(super) fn next_version(&self) -> u64 {
        self.0.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Publishes a service's newest value; `None` removes it. Returns whether it is a
    /// change.
    fn publish_service(
        &self,
        service: &ServiceName,
        new: Option<Arc<Service>>,
        now: Instant,
        rounds: &mut Rounds<Known>,
    ) -> bool {
        let canonical = service.canonical();
        let endpoints = new.as_ref().map_or(0, |new| new.endpoints.len());
        let mut group = match &new {
            None => match self.0.groups.get_mut(&canonical) {
                Some(group) => group,
                None => return false,
            },
            Some(new) => {
                let group = || Group::new(new.settings.clone(), new.drained.clone());
                self.0.groups.entry(canonical.clone()).or_insert_with(group)
            }
        };
        let changed = group.put(service, new, now);
        if changed {
            tracing::debug!(%service, endpoints, "service changed");
            self.announce(&group, rounds);
            if group.services.is_empty() {
                drop(group);
                self.recently_empty().push(now, canonical);
            }
        }
        changed
    }
}
