//! Marks: an operator's decisions about single backends, kept in etcd.
//!
//! In: [`Mark`]s, each for a service and backends. Out: the mark that drains a backend
//! of a service (by the service's canonical name), and the services that a changed mark
//! affects. Pure: the source (`source.rs`) follows etcd and knows which marks are in
//! force.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{BackendAddr, Endpoint, ServiceName};

mod key;
pub mod report;
pub mod source;
mod timestamp;
mod value;
mod writer;

pub use key::{Backends, BackendsError, Kind, MarkKey, Scope, prefix};
pub use timestamp::{LASTS_MAX, Timestamp};
pub use value::{TEXT_MAX, Value};
pub use writer::{ENDED_FOR, MarkWriter};

/// An operator's decision, with its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The decision, and the service and backends that it is about.
    pub key: MarkKey,
    /// The author, the reason, and the end.
    pub value: Value,
}

/// The marks in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    everywhere: Option<Arc<Drains>>,
    services: BTreeMap<String, Arc<Drains>>,
}

/// The marks about one service's backends. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    own: Option<Arc<Drains>>,
    everywhere: Option<Arc<Drains>>,
}

/// Drain marks, indexed by what they name. The cost of finding a backend's mark does
/// not depend on their number, except for the number of metadata keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drains {
    addresses: BTreeMap<BackendAddr, Arc<Mark>>,
    hosts: BTreeMap<IpAddr, Arc<Mark>>,
    ids: BTreeMap<String, Arc<Mark>>,
    /// By the key of the backends' metadata, then by its value.
    metadata: BTreeMap<String, BTreeMap<String, Arc<Mark>>>,
}

/// The services for which two sets of marks differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differing {
    /// Any service may be affected.
    All,
    /// These services, by canonical name.
    Some(Vec<String>),
}

/// The decision with its author, reason, beginning and end, for people.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value { by, why, set, until } = &self.value;
        write!(f, "{}", self.key)?;
        match by.as_str() {
            "" => {}
            by => write!(f, ", by {by}")?,
        }
        set.iter().try_for_each(|set| write!(f, ", since {set}"))?;
        until.iter().try_for_each(|until| write!(f, ", until {until}"))?;
        match why.as_str() {
            "" => Ok(()),
            why => write!(f, ": {why}"),
        }
    }
}

impl Marks {
    /// Indexes the drain marks among `marks`.
    #[must_use]
    pub fn new(marks: impl IntoIterator<Item = Arc<Mark>>) -> Self {
        let mut everywhere = Drains::default();
        let mut services: BTreeMap<String, Drains> = BTreeMap::new();
        for mark in marks {
            let MarkKey::Drain(scope, _) = &mark.key else { continue };
            match scope {
                Scope::Everywhere => everywhere.insert(mark),
                Scope::Service(canonical) => {
                    services.entry(canonical.clone()).or_default().insert(mark);
                }
            }
        }
        let shared = |(canonical, drains)| (canonical, Arc::new(drains));
        Self {
            everywhere: (!everywhere.is_empty()).then(|| Arc::new(everywhere)),
            services: services.into_iter().map(shared).collect(),
        }
    }

    /// Returns all marks.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Mark>> {
        self.everywhere.iter().chain(self.services.values()).flat_map(|drains| drains.all())
    }

    /// Returns the marks about a service's backends, by the service's canonical name.
    #[must_use]
    pub fn for_canonical(&self, canonical: &str) -> Drained {
        let own = self.services.get(canonical).cloned();
        Drained { own, everywhere: self.everywhere.clone() }
    }

    /// Returns the marks about a service's backends.
    #[must_use]
    pub fn for_service(&self, service: &ServiceName) -> Drained {
        // This is called for each service that changes, so it computes the
        // canonical name only if it is needed.
        match self.services.is_empty() {
            true => Drained { own: None, everywhere: self.everywhere.clone() },
            false => self.for_canonical(&service.canonical()),
        }
    }

    /// Returns the services for which `other` differs from these marks.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Differing {
        if self.everywhere != other.everywhere {
            return Differing::All;
        }
        let differs =
            |canonical: &&String| self.services.get(*canonical) != other.services.get(*canonical);
        let added =
            other.services.keys().filter(|canonical| !self.services.contains_key(*canonical));
        let all = self.services.keys().chain(added).filter(differs);
        Differing::Some(all.cloned().collect())
    }
}

impl Drained {
    /// Returns the mark that drains a backend. A mark of the service itself takes
    /// precedence over a mark of all services.
    #[must_use]
    pub fn mark(&self, endpoint: &Endpoint) -> Option<&Arc<Mark>> {
        let all = [&self.own, &self.everywhere];
        all.into_iter().flatten().find_map(|drains| drains.mark(endpoint))
    }

    /// Returns whether there is no mark.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.everywhere.is_none()
    }
}

impl Drains {
    fn insert(&mut self, mark: Arc<Mark>) {
        let MarkKey::Drain(_, backends) = &mark.key else { return };
        match backends.clone() {
            Backends::Address(addr) => drop(self.addresses.insert(addr, mark)),
            Backends::Host(ip) => drop(self.hosts.insert(ip, mark)),
            Backends::Id(id) => drop(self.ids.insert(id, mark)),
            Backends::Metadata(key, value) => {
                self.metadata.entry(key).or_default().insert(value, mark);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Mark>> {
        let metadata = self.metadata.values().flat_map(BTreeMap::values);
        let ids = self.ids.values().chain(metadata);
        self.addresses.values().chain(self.hosts.values()).chain(ids)
    }

    fn is_empty(&self) -> bool {
        let Self { addresses, hosts, ids, metadata } = self;
        addresses.is_empty() && hosts.is_empty() && ids.is_empty() && metadata.is_empty()
    }

    /// Returns the most specific mark about a backend.
    fn mark(&self, endpoint: &Endpoint) -> Option<&Arc<Mark>> {
        let Endpoint { id, addr, meta, .. } = endpoint;
        let by_address = self.addresses.get(addr).or_else(|| self.ids.get(&**id));
        by_address.or_else(|| self.hosts.get(&addr.ip())).or_else(|| {
            let metadata = self.metadata.iter();
            metadata.filter_map(|(key, values)| values.get(meta.get(key)?)).next()
        })
    }
}

#[cfg(test)]
mod tests;
