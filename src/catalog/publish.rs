//! Publishes changes: of services, liveness and status.
//!
//! In: the index, and what an input affected. Out: new values for every reader. It runs in
//! the catalog's one task, and publishes only what differs.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::clock;
use crate::model::ServiceName;
use crate::settings::{HealthKind, LoadKind, ServiceSettings, ShedMode, SubsetMode};
use crate::warning_limit::WarningLimit;

use super::affected::Affected;
use super::backend_log::{BackendLog, State};
use super::cell_tracker::CellTracker;
use super::group::Group;
use super::health_tracker::HealthTracker;
use super::index::Index;
use super::load_tracker::LoadTracker;
use super::newcomers::{Change, NewcomerTracker};
use super::pace::Pace;
use super::ramps::RampTracker;
use super::shed_tracker::{ShedChange, ShedTracker};
use super::topic::Rounds;
use super::{Catalog, Facts, Known, RegistryStatus, Service, Zones};

/// The writer's state between publications.
pub(super) struct Publisher {
    pace: Pace,
    newcomers: NewcomerTracker,
    pub(super) health: HealthTracker,
    pub(super) load: LoadTracker,
    ramps: RampTracker,
    pub(super) cells: CellTracker,
    pub(super) shed: ShedTracker,
    /// How often clients of a service were placed on other cells, or keys were moved.
    pub(super) placed: BTreeMap<ServiceName, u64>,
    backend_log: BackendLog,
    load_warnings: WarningLimit,
    pub(super) rounds: Rounds<Known>,
}

impl Publisher {
    /// Makes a publisher; `wall` returns the time since 1970.
    pub(super) fn new(wall: fn() -> Duration) -> Self {
        Self {
            pace: Pace::default(),
            newcomers: NewcomerTracker::new(wall),
            health: HealthTracker::default(),
            load: LoadTracker::default(),
            ramps: RampTracker::new(wall),
            cells: CellTracker::new(wall),
            shed: ShedTracker::default(),
            placed: BTreeMap::new(),
            backend_log: BackendLog::default(),
            load_warnings: WarningLimit::default(),
            rounds: Rounds::default(),
        }
    }

    /// Returns when something is due to be published or logged without an input.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = [self.pace.due(), self.newcomers.due(), self.health.due(), self.load.due()];
        due.into_iter()
            .chain([self.ramps.due(), self.cells.due(), self.backend_log.due()])
            .flatten()
            .min()
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
        let Publisher {
            pace,
            newcomers,
            health,
            load,
            ramps,
            cells,
            shed,
            placed,
            backend_log,
            load_warnings,
            rounds,
        } = publisher;
        let first = status.synced && !before.synced;
        let read = first || (before.restored.is_some() && status.restored.is_none());
        let (revision, now) = (status.revision, clock::now());
        let mut changed = false;
        if let Some(settings) = affected.settings.take() {
            changed |= self.publish_settings(settings, ramps, now, rounds);
            affected.services.extend(newcomers.services());
            affected.services.extend(health.services().cloned());
            affected.services.extend(load.services().cloned());
            affected.services.extend(cells.services().cloned());
            affected.services.extend(shed.services().cloned());
            affected.services.extend(self.asked_services());
        }
        if let Some(marks) = affected.marks.take() {
            changed |= self.publish_marks(marks, rounds);
            // A drained backend does not count for panic.
            affected.services.extend(health.unhealthy().cloned());
        }
        for (service, demand) in mem::take(&mut affected.demands) {
            changed |= self.publish_demand(&service, demand, rounds);
        }
        affected.services.extend(newcomers.ready(now));
        affected.services.extend(health.ready(now));
        affected.services.extend(load.ready(now));
        affected.services.extend(ramps.ready(now));
        affected.services.extend(cells.ready(now));
        // Endpoints of the first reading do not join: they count as listed before.
        let join = before.synced && !read;
        for service in &pace.ready(mem::take(&mut affected.services), now) {
            let settings = self.settings().for_service(service);
            let new = index.snapshot(service, revision);
            let marks = self.marks().for_service(service);
            let after = new.as_ref().map_or(&[][..], |new| &new.endpoints);
            let follows = health.follows(service, &settings);
            let health_now = follows.then(|| health.update(service, after, &marks, &settings, now));
            let load_now = load
                .follows(service, &settings)
                .then(|| load.update(service, after, &settings, now));
            let newcomers = newcomers.follows(service, &settings).then(|| {
                newcomers.rejoin(service, health.take_cold(service), now);
                let old = self.service(service);
                let before = old.as_ref().map_or(&[][..], |old| &old.endpoints);
                let former = old.as_ref().and_then(|old| old.facts.health.as_deref());
                let new = health_now.as_ref().and_then(|health| health.as_deref());
                let acts = settings.health.kind != HealthKind::Observe;
                let health = [former, new].map(|health| health.filter(|_| acts));
                let change = Change { before, after, join, health };
                newcomers.update(service, &change, &settings, now)
            });
            if new.is_none() {
                ramps.forget(service);
            }
            // Only services with zones pay for the look at their former value.
            let zones = settings.zones.are_on().then(|| {
                let old = self.service(service);
                let before = old.as_ref().and_then(|old| old.facts.zones.as_ref());
                Zones::next(before, &settings, self.settings().zones())
            });
            let cells_now = cells.follows(service, &settings).then(|| {
                let zones = zones.as_ref().and_then(|zones| zones.as_deref());
                cells.update(service, after, &settings, zones, now)
            });
            let cells_now = cells_now.flatten();
            if new.is_none() || cells_now.is_none() && settings.hash_balance == 0 {
                placed.remove(service);
            }
            let shed_now = shed
                .follows(service, &settings)
                .then(|| shed.update(service, new.is_some(), &settings));
            let new = new.map(|snapshot| {
                let facts = Facts {
                    newcomers: newcomers.flatten(),
                    health: health_now.flatten(),
                    load: load_now.flatten(),
                    zones: zones.flatten(),
                    cells: cells_now,
                    placed: placed.get(service).copied().unwrap_or_default(),
                    overload_shed: shed_now.flatten(),
                    ramp_share: ramps.share(service, &settings, now),
                };
                let new = Service::new(self.next_version(), snapshot, settings);
                Arc::new(new.with_marks(marks).with_facts(facts))
            });
            let endpoints = new.as_ref().map_or(0, |new| new.endpoints.len());
            pace.published(service, endpoints, now);
            changed |= self.publish_service(service, new, now, rounds);
        }
        self.forget_empty(now);
        let doubted = index.liveness().map(|(liveness, services)| {
            self.0.liveness.send_replace(Arc::new(liveness));
            services
        });
        if let Some(targets) = health.take_targets() {
            self.0.health_targets.send_replace(targets);
        }
        if let Some(targets) = load.take_targets() {
            self.0.load_targets.send_replace(targets);
        }
        if let Some(silent) = load.take_silent() {
            self.publish_silent(silent, load_warnings, now);
        }
        shed.take_changes().iter().for_each(log_overload);
        let departures = index.departures.take();
        let mut doubted = doubted.unwrap_or_default();
        doubted.extend(health.take_changed());
        backend_log.update(doubted, departures, State { index, health }, now);
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

    /// Publishes how many backends of each service do not report their load. Logs at most once
    /// a minute that there are more such services.
    fn publish_silent(
        &self,
        mut silent: BTreeMap<ServiceName, usize>,
        warnings: &mut WarningLimit,
        now: Instant,
    ) {
        silent.retain(|_, backends| *backends > 0);
        let before = self.load_silent();
        let is_new = |(service, _): &(&ServiceName, &usize)| !before.contains_key(*service);
        let count = silent.iter().filter(is_new).count();
        let first = silent.iter().find(is_new).or_else(|| silent.iter().next());
        if let Some((service, backends)) = first
            && let Some(services) = warnings.count(count, now)
        {
            tracing::warn!(
                %service,
                backends,
                services,
                "backends do not report their load: after three minutes they get their registered \
                 shares"
            );
        }
        self.0.load_silent.send_replace(Arc::new(silent));
    }

    /// Returns the services whose settings ask for something that a tracker follows.
    fn asked_services(&self) -> Vec<ServiceName> {
        let asks = |service: &&Arc<Service>| {
            let ServiceSettings { health, load, subset, shed, .. } = &*service.settings;
            let asks = health.kind != HealthKind::Off || load.kind != LoadKind::Off;
            asks || subset.mode != SubsetMode::Off || shed.mode != ShedMode::Off
        };
        let services = |group: &Group| -> Vec<_> {
            group.services.iter().filter(asks).map(|service| service.name.clone()).collect()
        };
        self.0.groups.iter().flat_map(|group| services(&group)).collect()
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
                let group = || Group::new(new.settings.clone(), new.marks.clone());
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

/// Logs that an overload began or ended.
fn log_overload(ShedChange { service, percent, measured }: &ShedChange) {
    let calls = |of: fn((f64, f64)) -> f64| measured.map(of).map(f64::round);
    let (started, capacity) = (calls(|one| one.0), calls(|one| one.1));
    match percent {
        0 => tracing::info!(%service, started, capacity, "overload is over: no call is shed"),
        _ => tracing::warn!(
            %service,
            percent,
            started,
            capacity,
            "clients start more calls than the backends can serve: a part of the calls is shed"
        ),
    }
}
