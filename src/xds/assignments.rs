//! Assignments that streams share: one for each service and class, whatever the spelling
//! of the name.
//!
//! In: services and classes. Out: one [`Assignment`] for all streams of a class, encoded by
//! the first stream that asks. An assignment with the same bytes as before stays the same
//! value, and is not sent again. It holds nothing that no stream uses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::catalog::Service;
use crate::model::{Class, Part, ServiceName};
use crate::policy;
use crate::settings::LbKind;
use crate::streams::held_bytes::count_held;
use crate::telemetry::Counters;

use super::assignment::Assignment;
use super::localities::{Grouping, Groups};

/// The assignments in use.
pub(super) struct Assignments {
    counters: Arc<Counters>,
    in_use: Mutex<HashMap<Key, Weak<SharedAssignment>>>,
    groupings: Mutex<HashMap<Key, Weak<LastGrouping>>>,
}

/// The newest grouping of the backends that a name of a service selects, whatever the zone, the
/// part of a split or the cells of its clients. A client that changes its class finds its
/// backends in the same localities.
type LastGrouping = Mutex<Option<Grouping>>;

/// The newest assignment of one class of one service's clients.
pub(super) struct SharedAssignment {
    key: Key,
    latest: Mutex<Option<Latest>>,
    grouping: Arc<LastGrouping>,
    owner: Arc<Assignments>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    service: ServiceName,
    class: Class,
}

struct Latest {
    service: Arc<Service>,
    /// `None` if no backend can serve this class.
    assignment: Option<Arc<Assignment>>,
    drops_all: bool,
}

/// What to send to the streams of a class.
#[derive(Clone)]
pub(super) struct ToSend {
    /// `None` if no backend can serve this class.
    pub(super) assignment: Option<Arc<Assignment>>,
    /// Whether an operator's mark makes clients drop all calls.
    pub(super) drops_all: bool,
    /// The work of making it.
    pub(super) work: usize,
}

impl Assignments {
    pub(super) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { counters, in_use: Mutex::default(), groupings: Mutex::default() })
    }

    /// Returns a stream's hold of the assignment of a class of a service's clients.
    pub(super) fn join(
        self: &Arc<Self>,
        service: &ServiceName,
        class: &Class,
    ) -> Arc<SharedAssignment> {
        let key = Key { service: service.clone(), class: class.clone() };
        let mut in_use = self.lock();
        if let Some(shared) = in_use.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        let grouping = self.grouping(&key);
        let latest = Mutex::default();
        let shared = SharedAssignment { key: key.clone(), latest, grouping, owner: self.clone() };
        let shared = Arc::new(shared);
        in_use.insert(key, Arc::downgrade(&shared));
        shared
    }

    fn grouping(&self, key: &Key) -> Arc<LastGrouping> {
        let mut groupings = self.groupings.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key.as_selected();
        if let Some(grouping) = groupings.get(&key).and_then(Weak::upgrade) {
            return grouping;
        }
        let grouping = Arc::new(LastGrouping::default());
        groupings.insert(key, Arc::downgrade(&grouping));
        grouping
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<SharedAssignment>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedAssignment {
    /// Returns whether the assignment is one of this service.
    pub(super) fn is_of(&self, service: &ServiceName) -> bool {
        self.key.service == *service
    }

    /// Returns the class of the assignment's clients.
    pub(super) fn class(&self) -> &Class {
        &self.key.class
    }

    /// Returns what to send, one for all streams of the class. A caller with an older value
    /// of the service gets the newest assignment.
    pub(super) fn get(&self, service: &Arc<Service>) -> ToSend {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = latest.as_ref()
            && (Arc::ptr_eq(&latest.service, service) || latest.service.version > service.version)
        {
            let Latest { assignment, drops_all, .. } = latest;
            return ToSend { assignment: assignment.clone(), drops_all: *drops_all, work: 0 };
        }
        let class = &self.key.class;
        let decision = policy::decide(service, class);
        let work = policy::work(service, class) + decision.picks().len();
        let old = latest.take().and_then(|latest| latest.assignment);
        let assignment = (!decision.picks().is_empty()).then(|| {
            let groups = Groups::of(service);
            let grouping = match service.settings.xds.balancing.kind {
                LbKind::RoundRobin => self.next_grouping(service, &groups),
                LbKind::RingHash => Grouping::Each,
                LbKind::Weighted => Grouping::Together,
            };
            let new = Assignment::new(service, &decision, grouping, &groups);
            match old {
                Some(old) if old.version == new.version => old,
                _ => self.keep(new),
            }
        });
        let drops_all = decision.drop_percent >= 100;
        let service = service.clone();
        *latest = Some(Latest { service, assignment: assignment.clone(), drops_all });
        ToSend { assignment, drops_all, work }
    }

    /// Returns the grouping of the backends. All that may serve any client count, so that no
    /// failure of backends, no zone and no other cells change it.
    fn next_grouping(&self, service: &Service, groups: &Groups) -> Grouping {
        let backends = policy::most(service, &self.key.class);
        let mut last = self.grouping.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Grouping::next(*last, backends, service, groups);
        *last = Some(next);
        next
    }

    fn keep(&self, mut new: Assignment) -> Arc<Assignment> {
        (new.body, new.held) =
            count_held(new.body, &self.owner.counters, |all| &all.assignment_bytes);
        self.owner.counters.assignments_encoded.increment();
        if new.omitted > 0 {
            let (service, omitted) = (&self.key.service, new.omitted);
            tracing::warn!(%service, omitted, "assignment exceeds the size that clients take: some backends are left out");
        }
        Arc::new(new)
    }
}

impl Key {
    /// Returns the key of what the same names select for all clients.
    fn as_selected(&self) -> Self {
        let class = self.class.clone().in_zone(None).with_part(Part::Both);
        let class = class.with_subset(None).with_backend(None);
        Self { service: self.service.clone(), class }
    }
}

impl Drop for SharedAssignment {
    fn drop(&mut self) {
        let mut in_use = self.owner.lock();
        // Another one may have replaced this one since its last stream left.
        if in_use.get(&self.key).is_some_and(|shared| shared.strong_count() == 0) {
            in_use.remove(&self.key);
        }
        drop(in_use);
        let mut groupings = self.owner.groupings.lock().unwrap_or_else(PoisonError::into_inner);
        // This one is the last that uses it.
        if Arc::strong_count(&self.grouping) == 1 {
            groupings.remove(&self.key.as_selected());
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::catalog::ServiceSnapshot;
    use crate::model::{BackendAddr, Endpoint, Meta, Weight};
    use crate::settings::{ServiceSettings, SplitKey, SplitSetting};
    use crate::xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;

    /// A client that moves to another part finds each backend in the same locality, though it
    /// has so few of them.
    #[test]
    fn all_classes_of_a_service_have_one_grouping() {
        let endpoint = |port: u16| Endpoint {
            id: port.to_string().into(),
            addr: BackendAddr::new([10, 0, 0, 1].into(), port).unwrap(),
            weight: Weight(1),
            meta: Arc::new(Meta::from([("version".to_owned(), format!("v{}", port.min(11)))])),
        };
        let mut settings = ServiceSettings::DEFAULT;
        let split =
            [(SplitKey::Select, "version=v7"), (SplitKey::By, "clients"), (SplitKey::Percent, "5")];
        for (key, text) in split {
            settings.split.set(SplitSetting::parse(key, text).unwrap());
        }
        let name = ServiceName::new("s").unwrap();
        let service = |backends: u16| {
            let all = (1..=backends).map(endpoint).collect();
            Arc::new(Service::new(1, ServiceSnapshot::new(name.clone(), 1, all), settings.clone()))
        };
        let assignments = Assignments::new(Arc::default());
        let localities = |part: Part, backends: u16| -> Vec<String> {
            let shared = assignments.join(&name, &Class::default().with_part(part));
            let assignment = shared.get(&service(backends)).assignment.unwrap();
            let all = ClusterLoadAssignment::decode(assignment.body.clone()).unwrap().endpoints;
            all.into_iter().map(|one| one.locality.unwrap().sub_zone).collect()
        };
        let whole = assignments.join(&name, &Class::default());
        for (backends, canary) in [(100, "10.0.0.1:7"), (200, "weight-1.000")] {
            assert_eq!(localities(Part::Canaries, backends), [canary]);
            assert_eq!(
                localities(Part::Others, backends).contains(&canary.to_owned()),
                backends == 200
            );
        }
        // Between the two limits, the grouping stays as long as any class is in use.
        assert_eq!(localities(Part::Canaries, 100), ["weight-1.000"]);
        drop(whole);
        assert_eq!(localities(Part::Canaries, 100), ["10.0.0.1:7"]);
        assert!(assignments.groupings.lock().unwrap().is_empty());
        assert!(assignments.lock().is_empty());
    }
}
