//! The one place that knows which services have which backends.
//!
//! In: [`Input`]s, through [`drive`], the only writer. Out: [`Known`] per
//! typed name, by subscription or by asking. It never waits for a reader, and
//! losing the registry never changes what it says of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use tokio::sync::{mpsc, watch};

use crate::model::{ServiceName, Target, name};
use crate::registry::{Event, Key, Rejected};

mod index;
mod snapshot;

use index::{Index, Touched};
pub use snapshot::{Known, ServiceSnapshot, Status};

/// Everything that can change the world.
#[derive(Debug)]
pub enum Input {
    /// A registry said something.
    Registry(Event),
    /// A registered host name has these addresses now.
    Hosts(Resolved),
}

/// What a host name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// As registered, lower case.
    pub host: String,
    /// All of its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A handle for readers; cheap to clone.
#[derive(Clone)]
pub struct Catalog(Arc<Shared>);

/// What one typed name means, now and later. Ends when the catalog closes.
pub struct Subscription {
    /// The newest.
    pub known: watch::Receiver<Known>,
    catalog: Catalog,
    target: Target,
}

struct Shared {
    /// By canonical name: one group for each set of names that fold together.
    groups: DashMap<String, Group>,
    rejected: DashMap<Key, Rejected>,
    status: watch::Sender<Status>,
    host_names: watch::Sender<Arc<BTreeSet<String>>>,
    closed: AtomicBool,
}

/// The services that share a canonical name (nearly always one), and who asked
/// for it in which spelling.
#[derive(Default)]
struct Group {
    services: BTreeMap<ServiceName, Arc<ServiceSnapshot>>,
    subscribers: BTreeMap<Arc<str>, watch::Sender<Known>>,
}

/// Applies inputs until all senders are gone. Inputs that wait are applied
/// together, so that a burst costs each service one publication.
pub async fn drive(mut inputs: mpsc::Receiver<Input>, catalog: Catalog) {
    let mut index = Index::default();
    let mut touched = Touched::default();
    while let Some(input) = inputs.recv().await {
        let before = catalog.status();
        let mut status = before.clone();
        take_in(&mut index, &mut status, &mut touched, input);
        while let Ok(input) = inputs.try_recv() {
            take_in(&mut index, &mut status, &mut touched, input);
        }
        status.keys = index.keys();
        catalog.publish(&index, touched.take(), &before, status);
    }
}

fn take_in(index: &mut Index, status: &mut Status, touched: &mut Touched, input: Input) {
    let event = match input {
        Input::Hosts(resolved) => return index.resolved(resolved, touched),
        Input::Registry(event) => event,
    };
    match &event {
        Event::Reset { revision, .. } | Event::Apply { revision, .. } => {
            if let Some((since, _)) = status.stale.take() {
                tracing::info!(revision, silent_for = ?since.elapsed(), "registry is heard again");
            }
            status.synced |= matches!(event, Event::Reset { .. });
            status.revision = *revision;
            status.heard = Some(Instant::now());
        }
        Event::Stale { since, reason } => {
            if status.stale.is_none() {
                tracing::warn!(reason, "registry is not heard: serving what was last read");
            }
            status.stale = Some((*since, reason.clone()));
        }
    }
    index.apply(event, touched);
}

impl Catalog {
    /// One that has not read anything yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "an empty catalog is no default: it is unread")]
    pub fn new() -> Self {
        let unread = Status { synced: false, revision: 0, heard: None, stale: None, keys: 0 };
        Self(Arc::new(Shared {
            groups: DashMap::new(),
            rejected: DashMap::new(),
            status: watch::Sender::new(unread),
            host_names: watch::Sender::new(Arc::default()),
            closed: AtomicBool::new(false),
        }))
    }

    /// What a name means at this moment.
    #[must_use]
    pub fn lookup(&self, target: &Target) -> Known {
        if !self.0.status.borrow().synced {
            return Known::Syncing;
        }
        match self.0.groups.get(&target.canonical()) {
            Some(group) => group.known(&target.name),
            None => Known::Absent,
        }
    }

    /// What a name means, from now on. `None` when the catalog has closed.
    #[must_use]
    pub fn subscribe(&self, target: &Target) -> Option<Subscription> {
        let mut group = self.0.groups.entry(target.canonical()).or_default();
        // Asked under the group's lock: closing takes each lock after setting it.
        if self.0.closed.load(Ordering::SeqCst) {
            return None;
        }
        let known = match group.subscribers.get(&target.name) {
            Some(sender) => sender.subscribe(),
            None => {
                // Asked under the group's lock too: the first announcement takes
                // each lock after it has said that all is read.
                let synced = self.0.status.borrow().synced;
                let now = if synced { group.known(&target.name) } else { Known::Syncing };
                let (sender, receiver) = watch::channel(now);
                group.subscribers.insert(target.name.clone(), sender);
                receiver
            }
        };
        drop(group);
        Some(Subscription { known, catalog: self.clone(), target: target.clone() })
    }

    /// Ends every subscription, and refuses new ones.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.groups.iter_mut().for_each(|mut group| group.subscribers.clear());
    }

    /// Every service that has a backend, sorted by name.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<ServiceSnapshot>> {
        let mut all: Vec<_> = self
            .0
            .groups
            .iter()
            .flat_map(|group| group.services.values().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The keys that could not be read, sorted, and why.
    #[must_use]
    pub fn rejected(&self) -> Vec<(Key, Rejected)> {
        let pair = |entry: dashmap::mapref::multiple::RefMulti<'_, Key, Rejected>| {
            (entry.key().clone(), entry.value().clone())
        };
        let mut all: Vec<_> = self.0.rejected.iter().map(pair).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// How many keys could not be read.
    #[must_use]
    pub fn rejected_len(&self) -> usize {
        self.0.rejected.len()
    }

    /// How far and how fresh the registry has been read.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// The same, as it changes: wakes when `synced` or `stale` do.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }

    /// The host names that are registered as addresses and need resolving.
    #[must_use]
    pub fn watch_host_names(&self) -> watch::Receiver<Arc<BTreeSet<String>>> {
        self.0.host_names.subscribe()
    }

    fn publish(&self, index: &Index, touched: Touched, before: &Status, status: Status) {
        let first = status.synced && !before.synced;
        let revision = status.revision;
        for service in &touched.services {
            self.publish_service(service, index.snapshot(service, revision).map(Arc::new));
        }
        self.publish_rejections(index, &touched.rejections);
        if touched.hosts {
            self.0.host_names.send_replace(Arc::new(index.host_names()));
        }
        self.0.status.send_if_modified(|current| {
            let matters = current.synced != status.synced
                || current.stale.as_ref().map(|s| s.0) != status.stale.as_ref().map(|s| s.0);
            *current = status;
            matters
        });
        // Only now may anyone conclude from absence.
        if first {
            let services = self.services().len();
            tracing::info!(revision, services, keys = index.keys(), "registry is read");
            self.0.groups.iter_mut().for_each(|group| group.announce());
        }
    }

    fn publish_rejections(&self, index: &Index, keys: &BTreeSet<Key>) {
        let before = self.0.rejected.len();
        for key in keys {
            match index.rejection(key) {
                Some(rejected) => {
                    tracing::debug!(%key, reason = rejected.reason, "key cannot be read");
                    self.0.rejected.insert(key.clone(), rejected.clone());
                }
                None => drop(self.0.rejected.remove(key)),
            }
        }
        let rejected = self.0.rejected.len();
        if rejected > before {
            tracing::warn!(rejected, "keys cannot be read: see /api/v1/rejected for the reasons");
        }
    }

    fn publish_service(&self, service: &ServiceName, snapshot: Option<Arc<ServiceSnapshot>>) {
        let canonical = service.canonical();
        let Some(snapshot) = snapshot else {
            if let Some(mut group) = self.0.groups.get_mut(&canonical) {
                group.services.remove(service);
                group.announce_if(self.0.status.borrow().synced);
            }
            self.0.groups.remove_if(&canonical, |_, group| group.is_unused());
            return;
        };
        let mut group = self.0.groups.entry(canonical).or_default();
        let same = group.services.get(service).map(|old| &old.endpoints);
        if same == Some(&snapshot.endpoints) {
            return;
        }
        tracing::debug!(%service, endpoints = snapshot.endpoints.len(), "service changed");
        group.services.insert(service.clone(), snapshot);
        group.announce_if(self.0.status.borrow().synced);
    }

    fn release(&self, target: &Target) {
        let canonical = target.canonical();
        if let Some(mut group) = self.0.groups.get_mut(&canonical) {
            // One receiver is the one that is going.
            let unused = |sender: &watch::Sender<Known>| sender.receiver_count() <= 1;
            if group.subscribers.get(&target.name).is_some_and(unused) {
                group.subscribers.remove(&target.name);
            }
        }
        self.0.groups.remove_if(&canonical, |_, group| group.is_unused());
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.catalog.release(&self.target);
    }
}

impl Group {
    /// The service that a spelling means: the best match, and among equals the
    /// first by name, so that every replica says the same.
    fn known(&self, typed: &str) -> Known {
        let rank = |service: &&ServiceName| name::matches(typed, service);
        let best = self.services.keys().filter(|service| rank(service).is_some()).min_by_key(rank);
        match best.and_then(|service| self.services.get(service)) {
            Some(snapshot) => Known::Present(snapshot.clone()),
            None => Known::Absent,
        }
    }

    fn announce_if(&self, synced: bool) {
        if synced {
            self.announce();
        }
    }

    fn announce(&self) {
        for (typed, sender) in &self.subscribers {
            let new = self.known(typed);
            sender.send_if_modified(|current| {
                let differs = *current != new;
                *current = new;
                differs
            });
        }
    }

    fn is_unused(&self) -> bool {
        self.services.is_empty() && self.subscribers.is_empty()
    }
}

#[cfg(test)]
mod tests;
