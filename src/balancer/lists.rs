//! Encoded lists that streams share: one for each service and class, however
//! its name is written.
//!
//! In: snapshots, classes. Out: the same [`EncodedList`] for every stream of a
//! class, encoded by the first stream that asks. A list whose endpoints are the
//! same as before is neither encoded nor sent again. Holds nothing that no
//! stream uses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::catalog::ServiceSnapshot;
use crate::model::{Class, ServiceName};
use crate::policy::{self, Chosen};
use crate::telemetry::Counters;

use super::admission::COST_MIN;
use super::encode::EncodedList;

/// The lists in use.
pub(super) struct Lists {
    counters: Arc<Counters>,
    in_use: Mutex<HashMap<Key, Weak<SharedList>>>,
    /// What the lists of those who select cost, in entries.
    selected: AtomicUsize,
}

/// The newest list of one class of one service's clients.
pub(super) struct SharedList {
    key: Key,
    latest: Mutex<Option<Latest>>,
    /// What it costs, where its class selects.
    cost: AtomicUsize,
    owner: Arc<Lists>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    service: ServiceName,
    class: Class,
}

struct Latest {
    of: Arc<ServiceSnapshot>,
    chosen: Chosen,
    /// `None`: nobody in it can serve this class.
    list: Option<Arc<EncodedList>>,
}

/// A list, and the work of making it.
pub(super) struct Made {
    pub(super) list: Option<Arc<EncodedList>>,
    /// How many endpoints were looked at and entries encoded: 0 for a list that
    /// was there.
    pub(super) work: usize,
}

impl Lists {
    pub(super) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { counters, in_use: Mutex::default(), selected: AtomicUsize::new(0) })
    }

    /// The list of a class of a service's clients.
    pub(super) fn of(self: &Arc<Self>, service: &ServiceName, class: &Class) -> Arc<SharedList> {
        let key = Key { service: service.clone(), class: class.clone() };
        let mut in_use = self.lock();
        if let Some(list) = in_use.get(&key).and_then(Weak::upgrade) {
            return list;
        }
        let list = Arc::new(SharedList {
            key: key.clone(),
            latest: Mutex::default(),
            cost: AtomicUsize::new(0),
            owner: self.clone(),
        });
        in_use.insert(key, Arc::downgrade(&list));
        self.counters.list_classes.increment();
        list
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<SharedList>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedList {
    /// Whether it is that of this service.
    pub(super) fn is_of(&self, service: &ServiceName) -> bool {
        self.key.service == *service
    }

    /// What all other lists of those who select cost, in entries.
    pub(super) fn others(&self) -> usize {
        self.owner.selected.load(Ordering::Relaxed).saturating_sub(self.cost())
    }

    /// Counts what it is going to cost, until it is made.
    pub(super) fn reserve(&self, entries: usize) {
        if self.cost() == 0 {
            self.set_cost(entries.max(COST_MIN));
        }
    }

    /// The list to send, the very same to every stream; none when there is
    /// nobody to list. Who asks with a snapshot that is no longer the newest
    /// gets the newest list.
    pub(super) fn get(&self, snapshot: &Arc<ServiceSnapshot>) -> Made {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = latest.as_ref()
            && (Arc::ptr_eq(&latest.of, snapshot) || latest.of.version > snapshot.version)
        {
            return Made { list: latest.list.clone(), work: 0 };
        }
        let mut work = policy::work(snapshot, &self.key.class);
        let chosen = policy::choose(snapshot, &self.key.class);
        let list = match latest.take() {
            // What only looks new (metadata changed, or another part of the
            // service) is not sent again.
            Some(old) if is_same((&old.of, &old.chosen), (snapshot, &chosen)) => old.list,
            _ => self.encode(snapshot, &chosen),
        };
        work += list.as_ref().map_or(0, |list| list.len());
        if let Chosen::These(places) = &chosen {
            self.set_cost(places.len().max(COST_MIN));
        }
        *latest = Some(Latest { of: snapshot.clone(), chosen, list: list.clone() });
        Made { list, work }
    }

    fn encode(&self, snapshot: &ServiceSnapshot, chosen: &Chosen) -> Option<Arc<EncodedList>> {
        let assignment = policy::assign(snapshot, chosen);
        if assignment.0.is_empty() {
            return None;
        }
        let list = EncodedList::new(snapshot, &assignment).counted(&self.owner.counters);
        self.owner.counters.lists_encoded.increment();
        if list.cut > 0 {
            let (service, cut) = (&snapshot.name, list.cut);
            tracing::warn!(%service, cut, "list is over the size clients take: its end is cut off");
        }
        Some(Arc::new(list))
    }

    fn cost(&self) -> usize {
        self.cost.load(Ordering::Relaxed)
    }

    fn set_cost(&self, cost: usize) {
        let before = self.cost.swap(cost, Ordering::Relaxed);
        self.owner.selected.fetch_add(cost, Ordering::Relaxed);
        self.owner.selected.fetch_sub(before, Ordering::Relaxed);
    }
}

/// Whether clients would be told the same: a list is made of addresses, in
/// their order and by weight, and of nothing else.
fn is_same(old: (&ServiceSnapshot, &Chosen), new: (&ServiceSnapshot, &Chosen)) -> bool {
    let mut old = old.1.endpoints(old.0).map(|(_, endpoint)| (endpoint.addr, endpoint.weight));
    let mut new = new.1.endpoints(new.0).map(|(_, endpoint)| (endpoint.addr, endpoint.weight));
    loop {
        match (old.next(), new.next()) {
            (None, None) => return true,
            (old, new) if old != new => return false,
            _ => {}
        }
    }
}

impl Drop for SharedList {
    fn drop(&mut self) {
        self.owner.selected.fetch_sub(self.cost(), Ordering::Relaxed);
        self.owner.counters.list_classes.decrement();
        let mut in_use = self.owner.lock();
        // Another may have taken its place since the last stream left it.
        if in_use.get(&self.key).is_some_and(|list| list.strong_count() == 0) {
            in_use.remove(&self.key);
        }
    }
}
