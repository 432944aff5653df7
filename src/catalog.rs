//! The catalog: knows which services have which backends.
//!
//! In: [`Input`]s, applied by [`drive`], the only writer. Out: [`Known`] for each typed
//! name, by [`Catalog::subscribe`] or [`Catalog::lookup`]. It never waits for a reader.
//! The loss of the registry never changes what it knows of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::{DashMap, Entry};
use tokio::sync::watch;

use crate::clock;
use crate::marks::Marks;
use crate::model::{ServiceName, Target};
use crate::registry::{Key, Rejected, Remark};
use crate::settings::Settings;
use crate::warning_limit::WarningLimit;

mod addresses;
mod affected;
mod backend_log;
mod cell_tracker;
mod cells;
mod class_cache;
mod departures;
mod derived;
mod down;
mod drive;
mod due_times;
mod empty;
mod group;
mod guard;
mod health;
mod health_tracker;
mod host_names;
mod index;
mod input;
mod key_problems;
mod liveness;
mod load;
mod load_tracker;
mod lookup;
mod marks;
mod newcomers;
mod pace;
mod preview;
mod publish;
mod ramps;
mod service;
mod settings;
mod shed_tracker;
mod snapshot;
mod split;
mod subscription;
mod target_users;
mod topic;
mod unresolved;
mod urgency;
mod zones;

pub use addresses::Addresses;
pub use cells::{CellSize, CellSizes, cell_groups};
pub use drive::drive;
pub use empty::EmptyService;
use empty::RecentlyEmpty;
use group::Group;
pub use health::{Health, HealthAnswer, HealthTarget, HealthTargets};
pub use input::{Input, Origin, OriginsQuery, Resolved, Restored};
pub use liveness::{HeldBackend, Liveness, LossReason, ProbeResult, Rules};
pub use load::{LoadFactors, LoadTarget, LoadTargets};
pub use lookup::is_chosen;
pub use newcomers::Newcomers;
pub use preview::{Preview, Proposal, Unknown, preview};
pub use service::{Facts, Service};
pub use snapshot::{Known, RegistryStatus, ServiceSnapshot};
pub use split::{Candidate, Split};
pub use subscription::{Subscriber, Subscription};
pub use topic::{Listener, Topic};
pub use unresolved::Unresolved;
pub use zones::Zones;

/// A handle for readers; cheap to clone.
#[derive(Clone)]
pub struct Catalog(Arc<Shared>);

struct Shared {
    /// By canonical name: one group for all names with the same canonical form.
    groups: DashMap<String, Group>,
    rejected: DashMap<Key, Rejected>,
    remarks: DashMap<Key, Vec<Remark>>,
    status: watch::Sender<RegistryStatus>,
    host_names: watch::Sender<Arc<BTreeSet<String>>>,
    unresolved: watch::Sender<Arc<[Unresolved]>>,
    /// How many backends were unresolved at the last log line.
    unresolved_logged: AtomicUsize,
    liveness: watch::Sender<Arc<Liveness>>,
    health_targets: watch::Sender<HealthTargets>,
    load_targets: watch::Sender<LoadTargets>,
    load_silent: watch::Sender<Arc<BTreeMap<ServiceName, usize>>>,
    /// Grows with each publication that changed a service.
    changes: watch::Sender<u64>,
    /// The newest version of any service.
    versions: AtomicU64,
    recently_empty: Mutex<RecentlyEmpty>,
    rejection_warnings: Mutex<WarningLimit>,
    settings: watch::Sender<Arc<Settings>>,
    marks: watch::Sender<Arc<Marks>>,
    closed: AtomicBool,
}

impl Catalog {
    /// Makes a catalog that has read nothing yet and holds no lost backends.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "an empty catalog is no default: it is unread")]
    pub fn new() -> Self {
        Self::with(Rules::OFF)
    }

    /// Makes a catalog with these settings: [`Settings`], or one `ServiceSettings` or
    /// [`Rules`] for every service.
    #[must_use]
    pub fn with(settings: impl Into<Arc<Settings>>) -> Self {
        let unread = RegistryStatus {
            synced: false,
            revision: 0,
            last_answer: None,
            stale: None,
            keys: 0,
            restored: None,
        };
        Self(Arc::new(Shared {
            groups: DashMap::new(),
            rejected: DashMap::new(),
            remarks: DashMap::new(),
            status: watch::Sender::new(unread),
            host_names: watch::Sender::new(Arc::default()),
            unresolved: watch::Sender::new(Arc::default()),
            unresolved_logged: AtomicUsize::new(0),
            liveness: watch::Sender::new(Arc::default()),
            health_targets: watch::Sender::new(HealthTargets::default()),
            load_targets: watch::Sender::new(LoadTargets::default()),
            load_silent: watch::Sender::new(Arc::default()),
            changes: watch::Sender::new(0),
            versions: AtomicU64::new(0),
            recently_empty: Mutex::default(),
            rejection_warnings: Mutex::default(),
            settings: watch::Sender::new(settings.into()),
            marks: watch::Sender::new(Arc::default()),
            closed: AtomicBool::new(false),
        }))
    }

    /// Returns what a name means now.
    #[must_use]
    pub fn lookup(&self, target: &Target) -> Known {
        if !self.0.status.borrow().synced {
            return Known::Syncing;
        }
        for (canonical, typed) in readings(target) {
            let known = self.0.groups.get(&canonical).map(|group| group.known(typed));
            if let Some(known @ Known::Present(_)) = known {
                return known;
            }
        }
        Known::Absent(self.settings().for_canonical(&target.canonical()))
    }

    /// Subscribes to the meaning of a name. Returns `None` if the catalog has closed.
    #[must_use]
    pub fn subscribe(&self, target: &Target) -> Option<Subscription> {
        let mut topics = Vec::new();
        for (canonical, typed) in readings(target) {
            let mut group = match self.0.groups.entry(canonical) {
                Entry::Occupied(group) => group.into_ref(),
                Entry::Vacant(place) => {
                    // Read under the group's lock, because new settings and marks are set
                    // before each lock is taken.
                    let canonical = place.key();
                    let settings = self.settings().for_canonical(canonical);
                    let group = Group::new(settings, self.marks().for_canonical(canonical));
                    place.insert(group)
                }
            };
            // Read under the group's lock, because `close` takes each lock after it has
            // set this.
            if self.0.closed.load(Ordering::SeqCst) {
                return None;
            }
            // Read under the group's lock too, because the first announcement takes each
            // lock after it has set `synced`.
            let synced = self.0.status.borrow().synced;
            let served = topics.iter().any(|topic: &Arc<Topic<Known>>| topic.newest().is_present());
            topics.push(group.subscribe(typed, served, synced, clock::now()));
        }
        let first = topics.remove(0);
        Some(Subscription::new(first, topics, self.clone(), target.clone()))
    }

    /// Ends every subscription and refuses new ones.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.groups.iter_mut().for_each(|mut group| group.close());
    }

    /// Returns every service that has a backend, sorted by name.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        let mut all: Vec<_> =
            self.0.groups.iter().flat_map(|group| group.services.clone()).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Returns the newest value of a service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.0.groups.get(&name.canonical())?.service(name).cloned()
    }

    /// Returns the services without a backend, sorted: each name that streams ask for,
    /// and for ten minutes each service that lost its last backend.
    #[must_use]
    pub fn empty_services(&self) -> Vec<EmptyService> {
        if !self.0.status.borrow().synced {
            return Vec::new();
        }
        let now = clock::now();
        let groups = self.0.groups.iter();
        let mut all: Vec<_> =
            groups.filter_map(|group| group.shown_empty(group.key(), now)).collect();
        all.sort_unstable_by(|a, b| a.canonical.cmp(&b.canonical));
        all
    }

    /// Returns how far the registry has been read, and whether it is stale.
    #[must_use]
    pub fn status(&self) -> RegistryStatus {
        self.0.status.borrow().clone()
    }

    /// Watches the status. Wakes when `synced`, `restored` or the start of `stale`
    /// changes.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<RegistryStatus> {
        self.0.status.subscribe()
    }

    /// Watches the host names that are registered as addresses and must be resolved.
    #[must_use]
    pub fn watch_host_names(&self) -> watch::Receiver<Arc<BTreeSet<String>>> {
        self.0.host_names.subscribe()
    }

    /// Returns the held, guarded and down backends, and the addresses to probe.
    #[must_use]
    pub fn liveness(&self) -> Arc<Liveness> {
        self.0.liveness.borrow().clone()
    }

    /// Watches the value of [`Self::liveness`].
    #[must_use]
    pub fn watch_liveness(&self) -> watch::Receiver<Arc<Liveness>> {
        self.0.liveness.subscribe()
    }

    /// Watches the backends whose health is to be checked.
    #[must_use]
    pub fn watch_health_targets(&self) -> watch::Receiver<HealthTargets> {
        self.0.health_targets.subscribe()
    }

    /// Watches the backends that are asked to report their load.
    #[must_use]
    pub fn watch_load_targets(&self) -> watch::Receiver<LoadTargets> {
        self.0.load_targets.subscribe()
    }

    /// Returns how many backends of each service are asked for their load and do not report
    /// it, where there are any.
    #[must_use]
    pub fn load_silent(&self) -> Arc<BTreeMap<ServiceName, usize>> {
        self.0.load_silent.borrow().clone()
    }

    /// Watches a counter that grows when a service has changed.
    #[must_use]
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn release(&self, target: &Target) {
        let now = clock::now();
        for (canonical, typed) in readings(target) {
            if let Some(mut group) = self.0.groups.get_mut(&canonical) {
                group.unsubscribe(typed, now);
            }
            self.0.groups.remove_if(&canonical, |_, group| group.is_unused(now));
        }
    }
}

/// Returns the readings of a name, the one with the fewest selectors first: for each the
/// canonical name to look under, and the name to compare.
fn readings(target: &Target) -> impl Iterator<Item = (String, &Arc<str>)> {
    let longer = target.longer().iter().map(|one| (one.canonical(), &one.name));
    longer.chain(std::iter::once_with(|| (target.canonical(), &target.name)))
}

#[cfg(test)]
mod tests;
