//! Marks: what an operator decides about single backends, kept in etcd.
//!
//! In: [`Mark`]s, each with the service and the backends it is about. Out: the [`Drains`]
//! of a service, by its canonical name, and the mark that drains a backend. Pure: the
//! source (`source.rs`) follows etcd and knows which marks are over.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{BackendAddr, Endpoint, ServiceName};

mod desk;
mod key;
mod moment;
pub mod source;
mod value;

pub use desk::{Desk, ENDED_FOR};
pub use key::{Backends, BackendsError, Kind, MarkKey, Scope, prefix};
pub use moment::{LONGEST, Moment};
pub use value::{TEXT_MAX, Value};

/// An operator's decision, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it decides about whom.
    pub key: MarkKey,
    /// Who, why, and until when.
    pub value: Value,
}

/// The marks in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    everywhere: Option<Arc<Drains>>,
    services: BTreeMap<String, Arc<Drains>>,
}

/// What marks say of one service's backends. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    own: Option<Arc<Drains>>,
    everywhere: Option<Arc<Drains>>,
}

/// Drain marks, by what they name. Finding the mark of a backend costs the same however
/// many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drains {
    addresses: BTreeMap<BackendAddr, Arc<Mark>>,
    hosts: BTreeMap<IpAddr, Arc<Mark>>,
    ids: BTreeMap<String, Arc<Mark>>,
    /// By key of the backends' metadata, then by value.
    metadata: BTreeMap<String, BTreeMap<String, Arc<Mark>>>,
}

/// The services whose backends two sets of marks differ about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differing {
    /// Any service may be among them.
    All,
    /// These, by canonical name.
    Some(Vec<String>),
}

/// The decision with who made it, why and until when, for people.
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
    /// The drain marks among these.
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

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Mark>> {
        self.everywhere.iter().chain(self.services.values()).flat_map(|drains| drains.all())
    }

    /// The marks about a service's backends, by the service's canonical name.
    #[must_use]
    pub fn of(&self, canonical: &str) -> Drained {
        let own = self.services.get(canonical).cloned();
        Drained { own, everywhere: self.everywhere.clone() }
    }

    /// The marks about a service's backends.
    #[must_use]
    pub fn of_service(&self, service: &ServiceName) -> Drained {
        // Asked for each service that changes.
        match self.services.is_empty() {
            true => Drained { own: None, everywhere: self.everywhere.clone() },
            false => self.of(&service.canonical()),
        }
    }

    /// The services about whose backends the other marks differ.
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
    /// The mark that drains a backend. One of the service's own marks comes before one of
    /// all services.
    #[must_use]
    pub fn mark(&self, endpoint: &Endpoint) -> Option<&Arc<Mark>> {
        let all = [&self.own, &self.everywhere];
        all.into_iter().flatten().find_map(|drains| drains.mark(endpoint))
    }

    /// Whether there is no mark.
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

    /// The most specific mark about a backend.
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
