//! Which key registers what, and which service is made of which keys.
//!
//! In: registry events, resolved host names, answers of probes, the time. Out:
//! the services they touch, and on request a service's snapshot. Pure; what is
//! equal touches nothing, so a registrant that writes the same again every
//! second costs nobody a push. What goes in doubt goes to the guard.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem;
use std::net::IpAddr;
use std::time::Instant;

// With a hash that is quicker than std's: a large registry is all look-ups.
use hashbrown::HashMap;

use crate::model::{BackendAddr, Endpoint, Host, ServiceName};
use crate::registry::{Cause, Change, Entry, Event, Key, Reading, Registration, Rejected, Remark};

use super::doubts::{Answer, Doubt, Doubts, Rules};
use super::guard::{Guard, Loss, least};
use super::host_names::HostNames;
use super::touched::Touched;
use super::unleased::Unleased;
use super::unresolved::{self, Unresolved};
use super::{Resolved, Restored, ServiceSnapshot};

/// The content of the registry, by key and by service.
#[derive(Debug)]
pub(super) struct Index {
    rules: Rules,
    entries: HashMap<Key, Meaning>,
    services: HashMap<ServiceName, BTreeSet<Key>>,
    /// Host names in use: what they resolved to, and which services use them.
    hosts: HostNames,
    guard: Guard,
    unleased: Unleased,
    /// How long each service's newest snapshot is.
    listed: HashMap<ServiceName, usize>,
    /// Whether doubts may differ from those shown last.
    doubted: bool,
}

/// What a key registers, and why its newest value could not be read.
#[derive(Debug, Default)]
struct Meaning {
    registrations: Vec<Registration>,
    rejected: Option<Rejected>,
    remarks: Vec<Remark>,
    leased: bool,
}

impl Index {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: HashMap::new(),
            services: HashMap::new(),
            hosts: HostNames::default(),
            guard: Guard::new(rules),
            unleased: Unleased::default(),
            listed: HashMap::new(),
            doubted: false,
        }
    }

    /// Takes a registry event in and adds what it touched.
    pub(super) fn apply(&mut self, event: Event, now: Instant, touched: &mut Touched) {
        match event {
            Event::Reset { all, .. } => self.reset(all, now, touched),
            Event::Apply { changes, .. } => {
                let swept = self.swept(&changes);
                for change in changes {
                    match change {
                        Change::Put(entry) => self.put(entry, touched),
                        Change::Delete(key, Cause::InDoubt) => {
                            self.lose(&key, Doubt::LeaseLost, now, touched);
                        }
                        Change::Delete(key, Cause::Swept) if swept.contains(&key) => {
                            self.lose(&key, Doubt::Swept, now, touched);
                        }
                        Change::Delete(key, _) => self.take_back(&key, touched),
                    }
                }
            }
            Event::Stale { .. } => {}
        }
    }

    /// Serves what was saved, until the registry is read.
    pub(super) fn restore(&mut self, restored: Restored, now: Instant, touched: &mut Touched) {
        let since = now.checked_sub(restored.age).unwrap_or(now);
        self.guard.restore(since);
        for (service, endpoints) in restored.services {
            let of = (endpoints.len(), since);
            for endpoint in endpoints {
                let loss = Loss { key: None, endpoint, since, why: Doubt::Missing, of };
                self.guard.lose(loss, &service, now);
            }
            touched.services.insert(service);
        }
    }

    /// Takes in what a probe came to.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: Answer, touched: &mut Touched) {
        let held = self.guard.probed(addr, answer);
        self.doubted |= !held.is_empty();
        touched.services.extend(held);
        touched.services.extend(self.unleased.probed(addr, answer));
    }

    /// The operator's word that what a service holds is to go.
    pub(super) fn release(&mut self, service: ServiceName, touched: &mut Touched) {
        if self.guard.release(&service) {
            self.doubted = true;
            touched.services.insert(service);
        }
    }

    /// Does what is due by now. While the registry is not heard nobody's time is
    /// over: who is in doubt may have registered again long ago.
    pub(super) fn pass(&mut self, now: Instant, heard: bool, touched: &mut Touched) {
        let over = if heard { self.guard.pass(now) } else { Vec::new() };
        self.doubted |= !over.is_empty();
        touched.services.extend(over);
        let every = self.rules.probe_unleased;
        if !every.is_zero() && self.unleased.is_due(now) {
            let all = self.entries.values().filter(|meaning| !meaning.leased);
            let all = all.flat_map(|meaning| &meaning.registrations);
            let all = all.flat_map(|one| {
                self.endpoints(one).into_iter().map(|e| (e.addr, one.service.clone()))
            });
            let all = all.collect();
            self.doubted |= self.unleased.renew(all, now + every);
        }
    }

    /// When something will be due.
    pub(super) fn due(&self, heard: bool) -> Option<Instant> {
        let guard = self.guard.due().filter(|_| heard);
        guard.into_iter().chain(self.unleased.due()).min()
    }

    /// Takes in what a host name resolves to.
    pub(super) fn resolved(&mut self, resolved: Resolved, touched: &mut Touched) {
        self.hosts.resolved(resolved, touched);
    }

    /// The service as it is now; `None` when it has no backend that can be
    /// used.
    pub(super) fn snapshot(
        &mut self,
        name: &ServiceName,
        revision: i64,
    ) -> Option<ServiceSnapshot> {
        let mut endpoints = self.registered(name);
        let addresses: HashSet<_> = endpoints.iter().map(|endpoint| endpoint.addr).collect();
        let kept = self.guard.list(name, &addresses);
        self.doubted |= self.unleased.set_aside(name, &mut endpoints);
        if !kept.is_empty() {
            endpoints.extend(kept);
            endpoints.sort_unstable();
        }
        if endpoints.is_empty() {
            self.listed.remove(name);
            return None;
        }
        self.listed.insert(name.clone(), endpoints.len());
        Some(ServiceSnapshot::new(name.clone(), revision, endpoints))
    }

    /// What is in doubt, if that may have changed since it was asked for last.
    pub(super) fn doubts(&mut self) -> Option<Doubts> {
        if !mem::take(&mut self.doubted) {
            return None;
        }
        let mut doubts = Doubts::default();
        self.guard.show(&mut doubts);
        self.unleased.show(&mut doubts);
        Some(doubts)
    }

    pub(super) fn rejection(&self, key: &Key) -> Option<&Rejected> {
        self.entries.get(key)?.rejected.as_ref()
    }

    pub(super) fn remarks(&self, key: &Key) -> &[Remark] {
        self.entries.get(key).map_or(&[], |meaning| &meaning.remarks)
    }

    pub(super) fn host_names(&self) -> BTreeSet<String> {
        self.hosts.names()
    }

    /// The backends whose host names do not resolve, sorted; not more than can
    /// be shown.
    pub(super) fn unresolved(&self) -> Vec<Unresolved> {
        let mut all = Vec::new();
        for odd in self.hosts.odd() {
            for (service, key) in odd.users() {
                let registered = self.entries.get(key).map(|meaning| &meaning.registrations);
                let named =
                    |one: &&Registration| one.address.host == Host::Name(odd.host.to_owned());
                let one = registered.into_iter().flatten().find(named);
                all.extend(one.map(|one| Unresolved::new(service, key, one, &odd)));
            }
            if all.len() >= unresolved::SHOWN_MAX {
                break;
            }
        }
        all.truncate(unresolved::SHOWN_MAX);
        all.sort_unstable();
        all
    }

    pub(super) fn keys(&self) -> usize {
        self.entries.len()
    }

    /// What registers a service, sorted, each address once.
    fn registered(&self, name: &ServiceName) -> Vec<Endpoint> {
        let keys = self.services.get(name).into_iter().flatten();
        let mut endpoints: Vec<_> = keys
            .filter_map(|key| self.entries.get(key))
            .flat_map(|meaning| &meaning.registrations)
            .filter(|registration| registration.service == *name)
            .flat_map(|registration| self.endpoints(registration))
            .collect();
        endpoints.sort_unstable();
        let mut seen = HashSet::with_capacity(endpoints.len());
        endpoints.retain(|endpoint| seen.insert(endpoint.addr));
        endpoints
    }

    /// A difference, not a new beginning: what stays the same is not touched.
    fn reset(&mut self, all: Vec<Entry>, now: Instant, touched: &mut Touched) {
        self.guard.renew(now);
        if !self.entries.is_empty() {
            let kept: HashSet<&Key> = all.iter().map(|entry| &entry.key).collect();
            let gone = self.entries.keys().filter(|key| !kept.contains(key));
            let gone: Vec<Key> = gone.cloned().collect();
            gone.iter().for_each(|key| self.lose(key, Doubt::Missing, now, touched));
        }
        self.entries.reserve(all.len().saturating_sub(self.entries.len()));
        all.into_iter().for_each(|entry| self.put(entry, touched));
        self.doubted = true;
        touched.services.extend(self.guard.begin());
    }

    /// A value that cannot be read leaves what its key registered before: a
    /// registrant's slip must not take a working backend away.
    fn put(&mut self, Entry { key, meaning, leased }: Entry, touched: &mut Touched) {
        self.settle(&key, touched);
        let old = self.entries.remove(&key).unwrap_or_default();
        let new = match meaning {
            Ok(Reading { registrations, remarks }) => {
                Meaning { registrations, remarks, rejected: None, leased }
            }
            Err(rejected) => {
                let (registrations, rejected) = (old.registrations.clone(), Some(rejected));
                Meaning { registrations, remarks: Vec::new(), rejected, leased }
            }
        };
        if old.registrations != new.registrations {
            // Held before the old ones are let go, so that a host name that both
            // use keeps its addresses.
            new.registrations.iter().for_each(|come| self.hosts.hold(&key, come, touched));
            old.registrations.iter().for_each(|gone| self.unlink(&key, gone, touched));
            new.registrations.iter().for_each(|come| self.link(&key, come, touched));
        }
        if old.rejected != new.rejected || old.remarks != new.remarks {
            touched.rejections.insert(key.clone());
        }
        self.entries.insert(key, new);
    }

    /// The key is gone on purpose, now or when it was lost.
    fn take_back(&mut self, key: &Key, touched: &mut Touched) {
        for service in self.settle(key, touched) {
            self.guard.left(&service);
        }
        let registrations = self.entries.get(key).map(|meaning| &meaning.registrations);
        registrations.into_iter().flatten().for_each(|gone| self.guard.left(&gone.service));
        self.remove(key, touched);
    }

    /// The key is gone and nobody knows why.
    fn lose(&mut self, key: &Key, why: Doubt, now: Instant, touched: &mut Touched) {
        let registrations = self.entries.get(key).map(|meaning| &meaning.registrations);
        for registration in registrations.into_iter().flatten() {
            let service = &registration.service;
            let keys = || self.services.get(service).map_or(0, BTreeSet::len);
            let listed = self.listed.get(service).copied().unwrap_or_else(keys);
            let of = (listed, now).max(self.guard.of(service, now).unwrap_or((0, now)));
            for endpoint in self.endpoints(registration) {
                let loss = Loss { key: Some(key.clone()), endpoint, since: now, why, of };
                self.guard.lose(loss, service, now);
                self.doubted = true;
            }
        }
        self.remove(key, touched);
    }

    /// Ends the doubt about a key. Says whom that concerns.
    fn settle(&mut self, key: &Key, touched: &mut Touched) -> Vec<ServiceName> {
        let settled = self.guard.settle_key(key);
        self.doubted |= !settled.is_empty();
        let services: Vec<_> = settled.into_iter().map(|(service, _)| service).collect();
        touched.services.extend(services.iter().cloned());
        services
    }

    /// Of keys swept away in one stroke, those of services of which too little
    /// would be left registered.
    fn swept(&self, changes: &[Change]) -> HashSet<Key> {
        let mut services: BTreeMap<&ServiceName, (usize, Vec<&Key>)> = BTreeMap::new();
        for change in changes {
            let Change::Delete(key, cause) = change else { continue };
            let registered = self.entries.get(key).map(|meaning| &meaning.registrations);
            let names = registered.into_iter().flatten().map(|one| (&one.service, 1));
            let lost = self.guard.services_of(key).map(|service| (service, 0));
            for (service, leaves) in names.chain(lost) {
                let (leaving, keys) = services.entry(service).or_default();
                *leaving += leaves;
                keys.extend((*cause == Cause::Swept).then_some(key));
            }
        }
        let share = self.rules.share;
        let too_few = |service: &ServiceName, leaving| {
            let registered = self.services.get(service).map_or(0, BTreeSet::len);
            // Nobody takes a whole service back by deleting others with it.
            let least = least(self.listed.get(service).copied(), share).max(1);
            share > 0 && registered.saturating_sub(leaving) < least
        };
        let kept =
            services.into_iter().filter(|(service, (leaving, _))| too_few(service, *leaving));
        kept.flat_map(|(_, (_, keys))| keys).cloned().collect()
    }

    fn remove(&mut self, key: &Key, touched: &mut Touched) {
        let Some(old) = self.entries.remove(key) else { return };
        old.registrations.iter().for_each(|gone| self.unlink(key, gone, touched));
        if old.rejected.is_some() || !old.remarks.is_empty() {
            touched.rejections.insert(key.clone());
        }
    }

    fn link(&mut self, key: &Key, registration: &Registration, touched: &mut Touched) {
        let service = &registration.service;
        self.services.entry_ref(service).or_default().insert(key.clone());
        touched.service(service);
    }

    fn unlink(&mut self, key: &Key, registration: &Registration, touched: &mut Touched) {
        let service = &registration.service;
        if let Some(keys) = self.services.get_mut(service) {
            keys.remove(key);
            if keys.is_empty() {
                self.services.remove(service);
            }
        }
        touched.service(service);
        self.hosts.let_go(key, registration, touched);
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
                let addresses = self.hosts.addresses(name);
                let usable = |&ip: &IpAddr| BackendAddr::new(ip, port).ok();
                addresses.iter().filter_map(usable).map(endpoint).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
