//! Encoded lists that streams share: one for each service and class, whatever the
//! spelling of the name.
//!
//! In: services and classes. Out: one [`EncodedList`] for all streams of a class, encoded
//! by the first stream that asks. A list with the same endpoints as before is neither
//! encoded nor sent again. It holds nothing that no stream uses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::catalog::Service;
use crate::model::{BackendAddr, Class, ServiceName, Weight};
use crate::policy::{self, Decision, Pick};
use crate::seed;
use crate::settings::WhenEmpty;
use crate::streams::admission::COST_MIN;
use crate::telemetry::Counters;

use super::cycle::StreamRank;
use super::encode::EncodedList;

/// The lists in use.
pub(super) struct Lists {
    counters: Arc<Counters>,
    in_use: Mutex<HashMap<Key, Weak<SharedList>>>,
    /// The cost of all lists of classes with selectors, in entries.
    selected: AtomicUsize,
}

/// The newest list of one class of one service's clients.
pub(super) struct SharedList {
    key: Key,
    latest: Mutex<Option<Latest>>,
    /// Its cost in entries, if its class has selectors.
    cost: AtomicUsize,
    /// The number of the next stream. The first number is random, so that the streams of
    /// another replica do not start at the same entries.
    next: AtomicU64,
    owner: Arc<Lists>,
}

/// A stream's hold of a list.
pub(super) struct StreamList {
    list: Arc<SharedList>,
    number: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    service: ServiceName,
    class: Class,
}

#[derive(Clone)]
struct Latest {
    service: Arc<Service>,
    decision: Decision,
    /// How many lists the class had before.
    number: u64,
    /// `None` if no backend can serve this class, or clients get none by a mark.
    list: Option<Arc<EncodedList>>,
}

/// A list, and the work of making it.
#[derive(Default)]
pub(super) struct ListToSend {
    pub(super) list: Option<Arc<EncodedList>>,
    /// What an operator's mark tells clients in place of a list, if it does.
    pub(super) instead: Option<WhenEmpty>,
    /// The stream's part of the list.
    pub(super) rank: StreamRank,
    /// How many endpoints were looked at and entries encoded; 0 for a list that was there
    /// already.
    pub(super) work: usize,
}

impl Lists {
    pub(super) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { counters, in_use: Mutex::default(), selected: AtomicUsize::new(0) })
    }

    /// Returns one more stream's hold of the list of a class of a service's clients.
    pub(super) fn join(self: &Arc<Self>, service: &ServiceName, class: &Class) -> StreamList {
        let list = self.shared_list(service, class);
        let number = list.next.fetch_add(1, Ordering::Relaxed);
        StreamList { list, number }
    }

    fn shared_list(self: &Arc<Self>, service: &ServiceName, class: &Class) -> Arc<SharedList> {
        let key = Key { service: service.clone(), class: class.clone() };
        let mut in_use = self.lock();
        if let Some(list) = in_use.get(&key).and_then(Weak::upgrade) {
            return list;
        }
        let list = Arc::new(SharedList {
            key: key.clone(),
            latest: Mutex::default(),
            cost: AtomicUsize::new(0),
            next: AtomicU64::new(seed::random()),
            owner: self.clone(),
        });
        in_use.insert(key, Arc::downgrade(&list));
        self.counters.list_classes.increment();
        list
    }

    /// Returns how far over its share the most favoured backend of any list is.
    pub(super) fn excess(&self) -> f32 {
        let lists: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        lists.iter().map(|list| list.excess()).fold(0.0, f32::max)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<SharedList>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamList {
    /// Returns whether the list is one of this service.
    pub(super) fn is_of(&self, service: &ServiceName) -> bool {
        self.list.key.service == *service
    }

    /// Returns the class of the list's clients.
    pub(super) fn class(&self) -> &Class {
        &self.list.key.class
    }

    /// Returns whether the list is the one of this class of a service's clients.
    pub(super) fn is_for(&self, service: &ServiceName, class: &Class) -> bool {
        self.is_of(service) && self.list.key.class == *class
    }

    /// Lets a list that has not been made yet follow the `former` one of its first stream, so
    /// that the stream is not sent an equal list again. Only keys get the same list in another
    /// class: where a backend becomes the first choice of a key that it has, or is it no longer.
    pub(super) fn follow(&self, former: &Self) {
        let class = self.class();
        if class.key().is_some()
            && class.key() == former.class().key()
            && former.is_of(&self.list.key.service)
        {
            let former = former.list.lock().clone();
            let mut latest = self.list.lock();
            if latest.is_none() {
                *latest = former;
            }
        }
    }

    /// Returns the cost of all other lists of classes with selectors, in entries.
    pub(super) fn others(&self) -> usize {
        self.list.owner.selected.load(Ordering::Relaxed).saturating_sub(self.list.cost())
    }

    /// Counts the expected cost of the list until it is made.
    pub(super) fn reserve(&self, entries: usize) {
        if self.list.cost() == 0 {
            self.list.set_cost(entries.max(COST_MIN));
        }
    }

    /// Returns the list to send, one for all streams of the class; no list if no backend
    /// can be listed. A caller with an older value of the service gets the newest list.
    pub(super) fn get(&self, service: &Arc<Service>) -> ListToSend {
        let (list, instead, work) = self.list.get(service);
        let rank = StreamRank { stream: self.number, streams: Arc::strong_count(&self.list) };
        ListToSend { list, instead, rank, work }
    }
}

impl SharedList {
    fn get(&self, service: &Arc<Service>) -> (Option<Arc<EncodedList>>, Option<WhenEmpty>, usize) {
        let mut latest = self.lock();
        if let Some(latest) = latest.as_ref()
            && (Arc::ptr_eq(&latest.service, service) || latest.service.version > service.version)
        {
            return (latest.list.clone(), instead(&latest.decision), 0);
        }
        let mut work = policy::work(service, &self.key.class);
        let decision = policy::decide(service, &self.key.class);
        let (number, list) = match latest.take() {
            // A list that only seems new (because metadata or another part of the service
            // changed) is not sent again.
            Some(old) if are_equal_lists((&old.service, &old.decision), (service, &decision)) => {
                (old.number, old.list)
            }
            old => {
                let number = old.map_or(0, |old| old.number + 1);
                (number, self.encode(service, &decision, number))
            }
        };
        let entries = list.as_ref().map_or(0, |list| list.len());
        work += entries;
        if !self.key.class.is_whole() {
            self.set_cost(entries.max(COST_MIN));
        }
        let instead = instead(&decision);
        *latest = Some(Latest { service: service.clone(), decision, number, list: list.clone() });
        (list, instead, work)
    }

    fn encode(
        &self,
        service: &Service,
        decision: &Decision,
        number: u64,
    ) -> Option<Arc<EncodedList>> {
        if decision.picks().is_empty() || instead(decision).is_some() {
            return None;
        }
        let list = EncodedList::new(service, decision, number).counted(&self.owner.counters);
        self.owner.counters.lists_encoded.increment();
        let cut = list.omitted();
        if cut > 0 {
            let service = &service.name;
            tracing::warn!(%service, cut, "list exceeds the size that clients take: each client gets a part");
        }
        Some(Arc::new(list))
    }

    fn excess(&self) -> f32 {
        let latest = self.lock();
        let list = latest.as_ref().and_then(|latest| latest.list.as_ref());
        list.map_or(0.0, |list| list.excess)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Returns what a mark tells clients in place of a list.
fn instead(decision: &Decision) -> Option<WhenEmpty> {
    match decision {
        Decision { fallback: true, .. } => Some(WhenEmpty::Fallback),
        Decision { drop_percent: 100.., .. } => Some(WhenEmpty::Drop),
        _ => None,
    }
}

/// Returns whether clients would be sent equal lists. A list is made of addresses only,
/// in their order, by weight and by the share of their group, and of drops.
fn are_equal_lists(old: (&Service, &Decision), new: (&Service, &Decision)) -> bool {
    let rest = |decision: &Decision| (decision.drop_percent, decision.fallback);
    if rest(old.1) != rest(new.1) {
        return false;
    }
    fn entries<'a>(
        (service, decision): (&'a Service, &'a Decision),
    ) -> impl Iterator<Item = (BackendAddr, Weight)> + 'a {
        let entries = |pick: &Pick| (service.endpoints[pick.endpoint as usize].addr, pick.weight);
        decision.picks().iter().map(entries)
    }
    old.1.split() == new.1.split() && entries(old).eq(entries(new))
}

impl Drop for SharedList {
    fn drop(&mut self) {
        self.owner.selected.fetch_sub(self.cost(), Ordering::Relaxed);
        self.owner.counters.list_classes.decrement();
        let mut in_use = self.owner.lock();
        // Another list may have replaced this one since its last stream left.
        if in_use.get(&self.key).is_some_and(|list| list.strong_count() == 0) {
            in_use.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ServiceSnapshot;
    use crate::model::{Endpoint, Meta, Selector};
    use crate::settings::ServiceSettings;

    /// Different weights take more entries than there are backends, and each entry is
    /// memory.
    #[test]
    fn a_selection_costs_as_many_entries_as_its_list_has() {
        let meta: Arc<Meta> = Arc::new([("zone".to_owned(), "a".to_owned())].into());
        let endpoint = |port: u16| Endpoint {
            id: port.to_string().into(),
            addr: BackendAddr::new([10, 0, 0, 1].into(), port).unwrap(),
            weight: Weight(1_000 + u32::from(port)),
            meta: meta.clone(),
        };
        let name = ServiceName::new("s").unwrap();
        let snapshot = ServiceSnapshot::new(name.clone(), 1, (1..=100).map(endpoint).collect());
        let service = Arc::new(Service::new(1, snapshot, Arc::new(ServiceSettings::DEFAULT)));
        let class = Class::new(&[Selector { key: "zone".into(), value: "a".into() }]);
        let lists = Lists::new(Arc::default());
        let list = lists.join(&name, &class);
        list.reserve(100);
        assert_eq!(lists.selected.load(Ordering::Relaxed), 100);
        let entries = list.get(&service).list.unwrap().len();
        assert!(entries > 1_000, "{entries}");
        assert_eq!(lists.selected.load(Ordering::Relaxed), entries);
        drop(list);
        assert_eq!(lists.selected.load(Ordering::Relaxed), 0);
    }
}
