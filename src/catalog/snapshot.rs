//! What the rest of the program may know of the world: immutable values.

use std::sync::Arc;
use std::time::Instant;

use crate::model::{Endpoint, Selector, ServiceName};
use crate::settings::ServiceSettings;

use super::Service;
use super::derived::Derived;
use super::lookup::Lookup;

/// What is known of the service that a name means.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// The registry has not been read yet: nothing may be concluded.
    Syncing,
    /// No backend is registered; the settings of such a service are these.
    Absent(Arc<ServiceSettings>),
    /// These backends are.
    Present(Arc<Service>),
}

/// A service's backends at one revision: never empty, sorted by id, each
/// address once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSnapshot {
    /// As registered.
    pub name: ServiceName,
    /// The store's revision that brought this content.
    pub revision: i64,
    /// In the order of every list, on every replica.
    pub endpoints: Vec<Endpoint>,
    lookup: Derived<Lookup>,
}

impl Known {
    /// The settings of the service, or of the one that would have the name; none before
    /// the registry has been read.
    #[must_use]
    pub fn settings(&self) -> Option<&Arc<ServiceSettings>> {
        match self {
            Self::Syncing => None,
            Self::Absent(settings) => Some(settings),
            Self::Present(service) => Some(&service.settings),
        }
    }
}

impl ServiceSnapshot {
    /// A service's backends, which must be sorted.
    #[must_use]
    pub fn new(name: ServiceName, revision: i64, endpoints: Vec<Endpoint>) -> Self {
        Self { name, revision, endpoints, lookup: Derived::default() }
    }

    /// The places of the endpoints that take calls and that a selector chooses,
    /// ascending. Looks at no other endpoint, once the first question has
    /// indexed them all.
    pub fn chosen<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = usize> + 'a {
        self.lookup.chosen(&self.endpoints, selector)
    }

    /// At most so many endpoints are looked at by [`Self::chosen`], besides the
    /// work of [`Self::unindexed`].
    #[must_use]
    pub fn visits(&self, selector: &Selector) -> usize {
        self.lookup.visits(&self.endpoints, selector)
    }

    /// How many endpoints must be indexed before a selector can be asked for:
    /// none from then on.
    #[must_use]
    pub fn unindexed(&self, selector: &Selector) -> usize {
        if self.lookup.is_indexed(selector) { 0 } else { self.endpoints.len() }
    }
}

/// How far and how fresh the registry has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Whether it has been read completely, at least once.
    pub synced: bool,
    /// The newest revision heard of.
    pub revision: i64,
    /// When the registry was last heard.
    pub heard: Option<Instant>,
    /// Set while the registry cannot be heard: since when, and why.
    pub stale: Option<(Instant, String)>,
    /// Keys read, rejected ones included.
    pub keys: usize,
    /// Set while what is served was saved before the start, and when.
    pub restored: Option<String>,
}

impl Status {
    /// What clients are served while the registry cannot be heard, for people.
    #[must_use]
    pub fn served(&self) -> &'static str {
        match (self.synced, &self.restored) {
            (false, _) => "nothing has been read yet, so nothing is served",
            (true, Some(_)) => "serving the saved state",
            (true, None) => "serving what was last read",
        }
    }
}
