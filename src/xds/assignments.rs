//! Assignments that streams share: one for each service and class, whatever the spelling
//! of the name.
//!
//! In: services and classes. Out: one [`Assignment`] for all streams of a class, encoded by
//! the first stream that asks. An assignment with the same bytes as before stays the same
//! value, and is not sent again. It holds nothing that no stream uses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::catalog::Service;
use crate::model::{Class, ServiceName};
use crate::policy;
use crate::streams::held_bytes::count_held;
use crate::telemetry::Counters;

use super::assignment::Assignment;
use super::localities::Grouping;

/// The assignments in use.
pub(super) struct Assignments {
    counters: Arc<Counters>,
    in_use: Mutex<HashMap<Key, Weak<SharedAssignment>>>,
}

/// The newest assignment of one class of one service's clients.
pub(super) struct SharedAssignment {
    key: Key,
    latest: Mutex<Option<Latest>>,
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
    /// The newest grouping of backends; kept while there are none.
    grouping: Option<Grouping>,
}

impl Assignments {
    pub(super) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { counters, in_use: Mutex::default() })
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
        let latest = Mutex::default();
        let shared = Arc::new(SharedAssignment { key: key.clone(), latest, owner: self.clone() });
        in_use.insert(key, Arc::downgrade(&shared));
        shared
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

    /// Returns the assignment to send, one for all streams of the class (`None` if no
    /// backend can serve it), and the work of making it. A caller with an older value of
    /// the service gets the newest assignment.
    pub(super) fn get(&self, service: &Arc<Service>) -> (Option<Arc<Assignment>>, usize) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = latest.as_ref()
            && (Arc::ptr_eq(&latest.service, service) || latest.service.version > service.version)
        {
            return (latest.assignment.clone(), 0);
        }
        let decision = policy::decide(service, &self.key.class);
        let work = policy::work(service, &self.key.class) + decision.picks().len();
        let (old, mut grouping) = match latest.take() {
            Some(Latest { assignment, grouping, .. }) => (assignment, grouping),
            None => (None, None),
        };
        let mut assignment = None;
        if !decision.picks().is_empty() {
            let next = Grouping::next(grouping, decision.picks().len());
            grouping = Some(next);
            let new = Assignment::new(service, &decision, next);
            assignment = Some(match old {
                Some(old) if old.version == new.version => old,
                _ => self.keep(new),
            });
        }
        let service = service.clone();
        *latest = Some(Latest { service, assignment: assignment.clone(), grouping });
        (assignment, work)
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

impl Drop for SharedAssignment {
    fn drop(&mut self) {
        let mut in_use = self.owner.lock();
        // Another one may have replaced this one since its last stream left.
        if in_use.get(&self.key).is_some_and(|shared| shared.strong_count() == 0) {
            in_use.remove(&self.key);
        }
    }
}
