//! Immutable values that the rest of the program reads.
//!
//! In: a service's endpoints. Out: [`Known`], [`ServiceSnapshot`] and [`RegistryStatus`].

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::model::{Endpoint, Selector, ServiceName};
use crate::settings::ServiceSettings;

use super::Service;
use super::derived::Derived;
use super::lookup::Lookup;

/// The meaning of a typed name.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// Nothing has been read yet, so a missing service may still exist.
    Syncing,
    /// The name has no backend. A service of this name would have these settings.
    Absent(Arc<ServiceSettings>),
    /// The name means this service.
    Present(Arc<Service>),
}

/// A service's backends at one revision: never empty, sorted by id, each address once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSnapshot {
    /// The service's name as registered.
    pub name: ServiceName,
    /// The registry's revision when the snapshot was made.
    pub revision: i64,
    /// The endpoints in the order of every list, on every replica.
    pub endpoints: Vec<Endpoint>,
    /// Made when it is first needed: of many services, clients select from few.
    lookup: Derived<OnceLock<Box<Lookup>>>,
}

impl Known {
    /// Returns whether the name means a service.
    #[must_use]
    pub fn is_present(&self) -> bool {
        matches!(self, Self::Present(_))
    }

    /// Returns the settings of the service, or those that a service of this name would
    /// have; `None` before anything has been read.
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
    /// Makes a snapshot. The endpoints must be sorted.
    #[must_use]
    pub fn new(name: ServiceName, revision: i64, endpoints: Vec<Endpoint>) -> Self {
        Self { name, revision, endpoints, lookup: Derived::default() }
    }

    /// Returns the indices of the endpoints that take calls and that a selector chooses,
    /// ascending. The first call indexes all endpoints; later calls look only at chosen
    /// ones.
    pub fn chosen<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = usize> + 'a {
        self.lookup().chosen(&self.endpoints, selector)
    }

    /// Returns how many endpoints [`Self::chosen`] looks at, at most, besides the work of
    /// [`Self::unindexed`].
    #[must_use]
    pub fn visits(&self, selector: &Selector) -> usize {
        self.lookup().visits(&self.endpoints, selector)
    }

    /// Returns how many endpoints must be indexed before a selector can be answered: 0
    /// once they are indexed.
    #[must_use]
    pub fn unindexed(&self, selector: &Selector) -> usize {
        if self.lookup().is_indexed(selector) { 0 } else { self.endpoints.len() }
    }

    fn lookup(&self) -> &Lookup {
        self.lookup.get_or_init(Box::default)
    }
}

/// How far the registry has been read, and whether it is stale.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistryStatus {
    /// Whether the registry has been read completely at least once, or a saved state is
    /// served.
    pub synced: bool,
    /// The registry's newest known revision.
    pub revision: i64,
    /// When the registry last answered.
    pub last_answer: Option<Instant>,
    /// Set while the registry is stale: since when, and why.
    pub stale: Option<(Instant, String)>,
    /// The number of keys read, rejected ones included.
    pub keys: usize,
    /// Set while a saved state is served: when it was saved.
    pub restored: Option<String>,
}

impl RegistryStatus {
    /// Returns what clients are served while the registry is stale, as text for people.
    #[must_use]
    pub fn served(&self) -> &'static str {
        match (self.synced, &self.restored) {
            (false, _) => "nothing has been read yet, so nothing is served",
            (true, Some(_)) => "serving the saved state",
            (true, None) => "serving what was last read",
        }
    }
}
