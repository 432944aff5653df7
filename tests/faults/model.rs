//! The model: which backends were registered when. Lists are compared with it.
//!
//! In: each registration and deregistration of the test, in order, before it is
//! written to etcd. Out: the steps of each service. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::support::crowd::Set;

/// The steps of all services.
#[derive(Debug, Default, Clone)]
pub struct Model(BTreeMap<String, Vec<Step>>);

/// From `at` on, lists hold at least `must` and at most `may`. The two are equal
/// where no registration is in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub at: Instant,
    pub must: Arc<Set>,
    pub may: Arc<Set>,
}

impl Model {
    pub fn put(&mut self, service: &str, server: SocketAddr, at: Instant) {
        self.change(service, at, |set| {
            set.insert(server);
        });
    }

    pub fn delete(&mut self, service: &str, server: SocketAddr, at: Instant) {
        self.change(service, at, |set| {
            set.remove(&server);
        });
    }

    /// From `at` on, any list that holds all of `must` and nothing beyond `may` is right.
    pub fn between(&mut self, service: &str, must: Set, may: Set, at: Instant) {
        self.push(service, Step { at, must: must.into(), may: may.into() });
    }

    /// From `at` on, only this list is right.
    pub fn exactly(&mut self, service: &str, set: Set, at: Instant) {
        let set = Arc::new(set);
        self.push(service, Step { at, must: set.clone(), may: set });
    }

    pub fn steps(&self, service: &str) -> &[Step] {
        self.0.get(service).map_or(&[], Vec::as_slice)
    }

    /// Returns the backends that are registered, or may be, after the last step.
    pub fn now(&self, service: &str) -> Set {
        self.steps(service).last().map(|step| Set::clone(&step.may)).unwrap_or_default()
    }

    fn change(&mut self, service: &str, at: Instant, change: impl Fn(&mut Set)) {
        let (mut must, mut may) = match self.steps(service).last() {
            Some(step) => (step.must.clone(), step.may.clone()),
            None => Default::default(),
        };
        let exact = Arc::ptr_eq(&must, &may) || must == may;
        change(Arc::make_mut(&mut may));
        if exact {
            must = may.clone();
        } else {
            change(Arc::make_mut(&mut must));
        }
        self.push(service, Step { at, must, may });
    }

    fn push(&mut self, service: &str, step: Step) {
        self.0.entry(service.to_owned()).or_default().push(step);
    }
}

impl Step {
    /// Returns whether exactly one list is right.
    pub fn is_exact(&self) -> bool {
        Arc::ptr_eq(&self.must, &self.may) || self.must == self.may
    }

    /// Returns whether a list is right from this step on.
    pub fn allows(&self, list: &Set) -> bool {
        let (least, most) = (self.must.len(), self.may.len());
        (least..=most).contains(&list.len())
            && self.must.is_subset(list)
            && list.is_subset(&self.may)
    }
}
