//! Which key registers what, and which service is made of which keys.
//!
//! In: registry events and resolved host names. Out: the services they touch,
//! and on request a service's snapshot. Pure; what is equal touches nothing,
//! so a registrant that writes the same again every second costs nobody a push.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem;
use std::net::IpAddr;

use crate::model::{BackendAddr, Endpoint, Host, ServiceName};
use crate::registry::{Change, Entry, Event, Key, Registration, Rejected};

use super::{Resolved, ServiceSnapshot};

/// The content of the registry, by key and by service.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Key, Meaning>,
    services: HashMap<ServiceName, BTreeSet<Key>>,
    /// Host names in use: what they resolved to, and which services use them.
    hosts: BTreeMap<String, HostUse>,
}

/// What a change touched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) services: BTreeSet<ServiceName>,
    /// Keys whose rejection is new, different or over.
    pub(super) rejections: BTreeSet<Key>,
    /// Whether the set of host names changed.
    pub(super) hosts: bool,
}

/// What a key registers, and why its newest value could not be read.
#[derive(Debug, Default)]
struct Meaning {
    registrations: Vec<Registration>,
    rejected: Option<Rejected>,
}

#[derive(Debug, Default)]
struct HostUse {
    addresses: Vec<IpAddr>,
    /// How often each service uses it.
    users: BTreeMap<ServiceName, usize>,
}

impl Index {
    /// Takes a registry event in and adds what it touched.
    pub(super) fn apply(&mut self, event: Event, touched: &mut Touched) {
        match event {
            Event::Reset { all, .. } => self.reset(all, touched),
            Event::Apply { changes, .. } => {
                for change in changes {
                    match change {
                        Change::Put(Entry { key, meaning }) => self.put(key, meaning, touched),
                        Change::Delete(key) => self.remove(&key, touched),
                    }
                }
            }
            Event::Stale { .. } => {}
        }
    }

    /// Takes in what a host name resolves to.
    pub(super) fn resolved(&mut self, resolved: Resolved, touched: &mut Touched) {
        let Some(host) = self.hosts.get_mut(&resolved.host) else { return };
        let mut addresses = resolved.addresses;
        addresses.sort_unstable();
        addresses.dedup();
        if host.addresses != addresses {
            host.addresses = addresses;
            touched.services.extend(host.users.keys().cloned());
        }
    }

    /// The service as it is now; `None` when nothing that can be used
    /// registers it.
    pub(super) fn snapshot(&self, name: &ServiceName, revision: i64) -> Option<ServiceSnapshot> {
        let keys = self.services.get(name)?;
        let registrations = keys
            .iter()
            .filter_map(|key| self.entries.get(key))
            .flat_map(|meaning| &meaning.registrations)
            .filter(|registration| registration.service == *name);
        let mut endpoints: Vec<_> =
            registrations.flat_map(|registration| self.endpoints(registration)).collect();
        endpoints.sort_unstable();
        let mut seen = HashSet::with_capacity(endpoints.len());
        endpoints.retain(|endpoint| seen.insert(endpoint.addr));
        (!endpoints.is_empty()).then(|| ServiceSnapshot { name: name.clone(), revision, endpoints })
    }

    pub(super) fn rejection(&self, key: &Key) -> Option<&Rejected> {
        self.entries.get(key)?.rejected.as_ref()
    }

    pub(super) fn host_names(&self) -> BTreeSet<String> {
        self.hosts.keys().cloned().collect()
    }

    pub(super) fn keys(&self) -> usize {
        self.entries.len()
    }

    /// A difference, not a new beginning: what stays the same is not touched.
    fn reset(&mut self, all: Vec<Entry>, touched: &mut Touched) {
        let kept: HashSet<Key> = all.iter().map(|entry| entry.key.clone()).collect();
        let gone: Vec<Key> =
            self.entries.keys().filter(|key| !kept.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key, touched));
        all.into_iter().for_each(|Entry { key, meaning }| self.put(key, meaning, touched));
    }

    /// A value that cannot be read leaves what its key registered before: a
    /// registrant's slip must not take a working backend away.
    fn put(
        &mut self,
        key: Key,
        meaning: Result<Vec<Registration>, Rejected>,
        touched: &mut Touched,
    ) {
        let old = self.entries.remove(&key).unwrap_or_default();
        let new = match meaning {
            Ok(registrations) => Meaning { registrations, rejected: None },
            Err(rejected) => {
                Meaning { registrations: old.registrations.clone(), rejected: Some(rejected) }
            }
        };
        if old.registrations != new.registrations {
            // Held before the old ones are let go, so that a host name that both
            // use keeps its addresses.
            new.registrations.iter().for_each(|come| self.hold(come, touched));
            old.registrations.iter().for_each(|gone| self.unlink(&key, gone, touched));
            new.registrations.iter().for_each(|come| self.link(&key, come, touched));
        }
        if old.rejected != new.rejected {
            touched.rejections.insert(key.clone());
        }
        self.entries.insert(key, new);
    }

    fn remove(&mut self, key: &Key, touched: &mut Touched) {
        let Some(old) = self.entries.remove(key) else { return };
        old.registrations.iter().for_each(|gone| self.unlink(key, gone, touched));
        if old.rejected.is_some() {
            touched.rejections.insert(key.clone());
        }
    }

    fn link(&mut self, key: &Key, registration: &Registration, touched: &mut Touched) {
        let service = &registration.service;
        self.services.entry(service.clone()).or_default().insert(key.clone());
        touched.services.insert(service.clone());
    }

    /// Counts the use of a host name, where the address is one.
    fn hold(&mut self, registration: &Registration, touched: &mut Touched) {
        let service = &registration.service;
        if let Host::Name(name) = &registration.address.host {
            let host = self.hosts.entry(name.clone()).or_insert_with(|| {
                touched.hosts = true;
                HostUse::default()
            });
            *host.users.entry(service.clone()).or_default() += 1;
        }
    }

    fn unlink(&mut self, key: &Key, registration: &Registration, touched: &mut Touched) {
        let service = &registration.service;
        if let Some(keys) = self.services.get_mut(service) {
            keys.remove(key);
            if keys.is_empty() {
                self.services.remove(service);
            }
        }
        touched.services.insert(service.clone());
        let Host::Name(name) = &registration.address.host else { return };
        let Some(host) = self.hosts.get_mut(name) else { return };
        if let Some(uses) = host.users.get_mut(service) {
            *uses -= 1;
            if *uses == 0 {
                host.users.remove(service);
            }
        }
        if host.users.is_empty() {
            self.hosts.remove(name);
            touched.hosts = true;
        }
    }

    /// One for an address; one for each address that a host name has.
    fn endpoints(&self, registration: &Registration) -> Vec<Endpoint> {
        let endpoint = |addr| Endpoint {
            id: registration.id.clone(),
            addr,
            weight: registration.weight,
            meta: registration.meta.clone(),
        };
        let port = registration.address.port();
        match &registration.address.host {
            Host::Ip(_) => registration.address.addr().map(endpoint).into_iter().collect(),
            Host::Name(name) => {
                let addresses = self.hosts.get(name).map_or(&[][..], |host| &host.addresses);
                let usable = |&ip: &IpAddr| BackendAddr::new(ip, port).ok();
                addresses.iter().filter_map(usable).map(endpoint).collect()
            }
        }
    }
}

impl Touched {
    /// What was touched so far; nothing is, from here on.
    pub(super) fn take(&mut self) -> Self {
        mem::take(self)
    }
}

#[cfg(test)]
mod tests;
