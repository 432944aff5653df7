//! What was registered when: the truth that lists are held against.
//!
//! In: each registration and deregistration of the test, in order, before it is
//! written. Out: the steps of each service. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::support::crowd::Set;

/// All services.
#[derive(Debug, Default, Clone)]
pub struct Model(BTreeMap<String, Vec<Step>>);

/// From a moment on, lists hold at least `must` and at most `may`. Where
/// nothing is in doubt these are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub at: Instant,
    pub must: Set,
    pub may: Set,
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

    /// From now on anything between these is right.
    pub fn between(&mut self, service: &str, must: Set, may: Set, at: Instant) {
        self.0.entry(service.to_owned()).or_default().push(Step { at, must, may });
    }

    /// From now on this is right and nothing else.
    pub fn exactly(&mut self, service: &str, set: Set, at: Instant) {
        self.between(service, set.clone(), set, at);
    }

    pub fn steps(&self, service: &str) -> &[Step] {
        self.0.get(service).map_or(&[], Vec::as_slice)
    }

    /// What is registered now.
    pub fn now(&self, service: &str) -> Set {
        self.steps(service).last().map(|step| step.may.clone()).unwrap_or_default()
    }

    fn change(&mut self, service: &str, at: Instant, change: impl Fn(&mut Set)) {
        let (mut must, mut may) = match self.steps(service).last() {
            Some(step) => (step.must.clone(), step.may.clone()),
            None => (Set::new(), Set::new()),
        };
        change(&mut must);
        change(&mut may);
        self.between(service, must, may, at);
    }
}

impl Step {
    /// Whether a list is right from this step on.
    pub fn allows(&self, list: &Set) -> bool {
        let (least, most) = (self.must.len(), self.may.len());
        (least..=most).contains(&list.len())
            && self.must.is_subset(list)
            && list.is_subset(&self.may)
    }
}
