//! Marks: an operator's decisions about single backends and about clients, kept in etcd.
//!
//! In: [`Mark`]s. Out: what they say about one service (by its canonical name): which
//! backends are drained, and what its clients are told; and the services that a changed
//! mark affects. Pure: the source (`source.rs`) follows etcd and knows which marks are in
//! force.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{BackendAddr, Class, Endpoint, Selector, ServiceName};

mod for_clients;
mod key;
pub mod report;
pub mod source;
mod timestamp;
mod value;
mod writer;

pub use for_clients::ForClients;
pub use key::{Backends, BackendsError, Clients, Kind, MarkKey, Scope, prefix};
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
    everywhere: Option<Arc<OfScope>>,
    services: BTreeMap<String, Arc<OfScope>>,
}

/// The marks about one service. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceMarks {
    own: Option<Arc<OfScope>>,
    everywhere: Option<Arc<OfScope>>,
}

/// The marks that name one service, or all services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfScope {
    drains: Drains,
    clients: ForClients,
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
        let Value { by, why, set, until, .. } = &self.value;
        write!(f, "{}", self.key)?;
        if self.key.kind() == Kind::Shed {
            write!(f, ", {} % of the calls", self.value.percent())?;
        }
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
    /// Indexes the marks among `marks` that last.
    #[must_use]
    pub fn new(marks: impl IntoIterator<Item = Arc<Mark>>) -> Self {
        let mut everywhere = None;
        let mut services: BTreeMap<String, OfScope> = BTreeMap::new();
        for mark in marks {
            let scope = match &mark.key {
                MarkKey::Drain(scope, _) | MarkKey::Shed(scope, _) | MarkKey::Fallback(scope) => {
                    scope
                }
                MarkKey::Release(_) => continue,
            };
            let of_scope = match scope {
                Scope::Everywhere => everywhere.get_or_insert_with(OfScope::default),
                Scope::Service(canonical) => services.entry(canonical.clone()).or_default(),
            };
            match mark.key {
                MarkKey::Drain(..) => of_scope.drains.insert(mark),
                _ => of_scope.clients.insert(mark),
            }
        }
        let shared = |(canonical, of_scope)| (canonical, Arc::new(of_scope));
        Self {
            everywhere: everywhere.map(Arc::new),
            services: services.into_iter().map(shared).collect(),
        }
    }

    /// Returns all marks.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Mark>> {
        let scopes = self.everywhere.iter().chain(self.services.values());
        scopes.flat_map(|one| one.drains.all().chain(one.clients.all()))
    }

    /// Returns the marks about a service, by its canonical name.
    #[must_use]
    pub fn for_canonical(&self, canonical: &str) -> ServiceMarks {
        let own = self.services.get(canonical).cloned();
        ServiceMarks { own, everywhere: self.everywhere.clone() }
    }

    /// Returns the marks about a service.
    #[must_use]
    pub fn for_service(&self, service: &ServiceName) -> ServiceMarks {
        // This is called for each service that changes, so it computes the
        // canonical name only if it is needed.
        match self.services.is_empty() {
            true => ServiceMarks { own: None, everywhere: self.everywhere.clone() },
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

impl ServiceMarks {
    /// Returns the mark that drains a backend. A mark of the service itself takes
    /// precedence over a mark of all services.
    #[must_use]
    pub fn drain(&self, endpoint: &Endpoint) -> Option<&Arc<Mark>> {
        self.scopes().find_map(|one| one.drains.mark(endpoint))
    }

    /// Returns the mark by which clients of a class drop the most calls.
    #[must_use]
    pub fn shed(&self, class: &Class) -> Option<&Arc<Mark>> {
        let marks = self.scopes().filter_map(|one| one.clients.shed(class));
        // The service's own mark comes first, and the first of equal ones counts.
        marks.reduce(
            |first, other| {
                if other.value.percent() > first.value.percent() { other } else { first }
            },
        )
    }

    /// Returns the largest part of their calls that any clients drop, in percent.
    #[must_use]
    pub fn most_shed(&self) -> u32 {
        let sheds = self.scopes().flat_map(|one| one.clients.sheds());
        sheds.map(|mark| mark.value.percent()).max().unwrap_or(0)
    }

    /// Returns the labels that marks name to shed calls of clients.
    pub fn shed_selectors(&self) -> impl Iterator<Item = &Selector> {
        let sheds = self.scopes().flat_map(|one| one.clients.sheds());
        sheds.filter_map(|mark| match &mark.key {
            MarkKey::Shed(_, Clients::Selecting(selector)) => Some(selector),
            _ => None,
        })
    }

    /// Returns the mark by which all clients use the addresses from DNS.
    #[must_use]
    pub fn fallback(&self) -> Option<&Arc<Mark>> {
        self.scopes().find_map(|one| one.clients.fallback())
    }

    /// Returns whether no mark drains a backend.
    #[must_use]
    pub fn drains_nothing(&self) -> bool {
        self.scopes().all(|one| one.drains.is_empty())
    }

    fn scopes(&self) -> impl Iterator<Item = &OfScope> {
        [&self.own, &self.everywhere].into_iter().flatten().map(|one| &**one)
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
