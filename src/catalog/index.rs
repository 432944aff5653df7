//! The index: which key registers which backends, and which keys make up a service.
//!
//! In: registry events, resolved host names, answers of probes, the time. Out: the
//! services that they affect, and on request a service's snapshot. Pure. An equal value
//! affects nothing, so a registrant that writes the same value every second causes no
//! push. Backends whose registrations were lost go to the guard.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

// These maps hash faster than std's, and a large registry is mostly look-ups.
use hashbrown::{HashMap, HashSet};

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::{Cause, Change, Entry, Event, Key, Reading, Registration, Rejected, Remark};
use crate::settings::Settings;

use super::affected::Affected;
use super::departures::{Departure, Departures};
use super::down::DownDetector;
use super::guard::{Guard, Loss, Losses, LostBackends};
use super::host_names::HostNames;
use super::liveness::{Liveness, LossReason, ProbeResult, Rules};
use super::{Restored, ServiceSnapshot};

mod hosts;
mod loss;
mod members;
mod origins;
mod registrants;
mod replace;
mod settings;
mod sweep;

use loss::LossBatch;
use members::Members;

/// The content of the registry, by key and by service.
#[derive(Debug)]
pub(super) struct Index {
    settings: Arc<Settings>,
    entries: HashMap<Key, KeyContent>,
    /// The whole values of keys of which a part is left out, because they may not register it.
    forbidden: HashMap<Key, Reading>,
    services: HashMap<ServiceName, Members>,
    /// Host names in use: what they resolved to, and which services use them.
    hosts: HostNames,
    guard: Guard,
    down: DownDetector,
    /// The length of each service's newest snapshot.
    listed: HashMap<ServiceName, usize>,
    pub(super) departures: Departures,
    /// How many snapshots were made.
    pub(super) snapshots: u64,
}

/// The registrations of a key. There may be a million, so it holds no spare capacity,
/// and little room for fields that hardly any key uses.
#[derive(Debug, Default)]
struct KeyContent {
    registrations: Box<[Registration]>,
    problem: Option<Box<KeyProblem>>,
    leased: bool,
}

/// Why the newest value of a key was rejected, or what is odd about it.
#[derive(Debug, PartialEq, Eq)]
enum KeyProblem {
    Rejected(Rejected),
    Remarks(Vec<Remark>),
}

impl Index {
    pub(super) fn new(settings: impl Into<Arc<Settings>>) -> Self {
        let settings = settings.into();
        Self {
            settings: settings.clone(),
            entries: HashMap::new(),
            forbidden: HashMap::new(),
            services: HashMap::new(),
            hosts: HostNames::default(),
            guard: Guard::new(settings),
            down: DownDetector::default(),
            listed: HashMap::new(),
            departures: Departures::default(),
            snapshots: 0,
        }
    }

    /// Applies a registry event and adds what it affects to `affected`.
    pub(super) fn apply(&mut self, event: Event, now: Instant, affected: &mut Affected) {
        match event {
            Event::Reset { all, went_back, .. } => self.reset(all, went_back, now, affected),
            Event::Apply { changes, .. } => {
                let swept = self.swept(&changes);
                let mut batch = LossBatch::new(now);
                for change in changes {
                    match change {
                        Change::Delete(key, Cause::InDoubt) => {
                            self.lose(&key, LossReason::LeaseLost, &mut batch, affected);
                        }
                        Change::Delete(key, Cause::Swept) if swept.contains(&key) => {
                            self.lose(&key, LossReason::Swept, &mut batch, affected);
                        }
                        Change::Delete(key, _) => {
                            self.hand_over(&mut batch, affected);
                            self.deregister(&key, affected);
                        }
                        Change::Put(entry) => {
                            self.hand_over(&mut batch, affected);
                            self.put(entry, affected);
                        }
                    }
                }
                self.hand_over(&mut batch, affected);
            }
            Event::Stale { .. } => {}
        }
    }

    /// Serves a saved state until the registry is read.
    pub(super) fn restore(&mut self, restored: Restored, now: Instant, affected: &mut Affected) {
        let since = now.checked_sub(restored.age).unwrap_or(now);
        self.guard.restore(since);
        for (service, endpoints) in restored.services {
            let of = (endpoints.len(), since);
            let loss = |endpoint| Loss { key: None, endpoint, why: LossReason::Missing };
            let all = endpoints.into_iter().map(loss).collect();
            // All are held: no time is over before the registry is read.
            let _ = self.guard.lose(Losses { since, length_before: of, all }, &service, now);
            affected.services.insert(service);
        }
    }

    /// Applies the answer of a probe. It affects a service only if its list changes.
    pub(super) fn probed(
        &mut self,
        addr: BackendAddr,
        answer: ProbeResult,
        affected: &mut Affected,
    ) {
        for service in self.guard.probed(addr, answer) {
            self.evict(&service, affected);
        }
        affected.services.extend(self.down.probed(addr, answer));
    }

    /// Drops the held backends of the services with a canonical name, if their loss began
    /// at `before` or earlier.
    pub(super) fn release(&mut self, canonical: &str, before: Instant, affected: &mut Affected) {
        for service in self.guard.services(canonical) {
            if !self.guard.release(&service, before).is_empty() {
                affected.services.insert(service);
            }
        }
    }

    /// Ends the time of held backends that is over by now. While the registry is stale no
    /// backend's time is over, because a held backend may have registered again long ago.
    pub(super) fn expire(&mut self, now: Instant, fresh: bool, affected: &mut Affected) {
        let over = if fresh { self.guard.expire(now) } else { Vec::new() };
        for (service, listed) in over {
            match listed {
                Some(endpoint) => {
                    self.departures.add(&service, Departure::Expired, &endpoint.id);
                    affected.service(&service);
                }
                // It no longer counts as missing, so other backends may be removed.
                None => self.evict(&service, affected),
            }
        }
    }

    /// Returns when something will be due.
    pub(super) fn due(&self, fresh: bool) -> Option<Instant> {
        self.guard.due().filter(|_| fresh)
    }

    /// Returns a service's snapshot; `None` if it has no backend that can be used.
    pub(super) fn snapshot(
        &mut self,
        name: &ServiceName,
        revision: i64,
    ) -> Option<ServiceSnapshot> {
        self.snapshots += 1;
        self.evict(name, &mut Affected::default());
        let mut endpoints = self.registered(name);
        self.down.remove_down(name, &mut endpoints);
        let registered = endpoints.len();
        endpoints.extend(self.guard.list(name).cloned());
        if endpoints.len() > registered {
            endpoints.sort_unstable();
        }
        if endpoints.is_empty() {
            self.listed.remove(name);
            return None;
        }
        self.listed.insert(name.clone(), endpoints.len());
        Some(ServiceSnapshot::new(name.clone(), revision, endpoints))
    }

    /// Returns the liveness, and the services in which it changed; `None` if nothing has
    /// changed since the last call.
    pub(super) fn liveness(&mut self) -> Option<(Liveness, BTreeSet<ServiceName>)> {
        let (addresses_changed, down) = self.down.take_changed();
        let mut services = self.guard.take_changed();
        if !addresses_changed && services.is_empty() {
            return None;
        }
        services.extend(down);
        let mut liveness = Liveness::default();
        self.guard.copy_into(&mut liveness);
        self.down.copy_into(&mut liveness);
        Some((liveness, services))
    }

    /// Returns the lost backends of a service.
    pub(super) fn lost(&self, service: &ServiceName) -> Option<&LostBackends> {
        self.guard.lost(service)
    }

    /// Returns the endpoints of a service that are down.
    pub(super) fn down(&self, service: &ServiceName) -> &[Endpoint] {
        self.down.endpoints(service)
    }

    /// Returns the length of a service's newest snapshot.
    pub(super) fn listed(&self, service: &ServiceName) -> usize {
        self.listed.get(service).copied().unwrap_or(0)
    }

    pub(super) fn rejection(&self, key: &Key) -> Option<&Rejected> {
        self.entries.get(key)?.rejected()
    }

    pub(super) fn remarks(&self, key: &Key) -> &[Remark] {
        self.entries.get(key).map_or(&[], KeyContent::remarks)
    }

    pub(super) fn keys(&self) -> usize {
        self.entries.len()
    }

    /// Returns the registered endpoints of a service, sorted, each address once.
    fn registered(&self, name: &ServiceName) -> Vec<Endpoint> {
        let Some(members) = self.services.get(name) else { return Vec::new() };
        let mut endpoints = Vec::with_capacity(members.len());
        for content in members.keys.iter().filter_map(|key| self.entries.get(key)) {
            for registration in content.registrations.iter().filter(|one| one.service == *name) {
                self.each_endpoint(registration, |endpoint| endpoints.push(endpoint));
            }
        }
        endpoints.sort_unstable();
        if endpoints.len() > members.len() {
            let mut seen = HashSet::with_capacity(endpoints.len());
            endpoints.retain(|endpoint| seen.insert(endpoint.addr));
        }
        endpoints
    }

    /// Applies a complete reading as a difference: an unchanged key affects no service.
    fn reset(&mut self, all: Vec<Entry>, went_back: bool, now: Instant, affected: &mut Affected) {
        self.guard.renew(now);
        if !self.entries.is_empty() {
            let kept: HashSet<&Key> = all.iter().map(|entry| &entry.key).collect();
            let gone = self.entries.keys().filter(|key| !kept.contains(key));
            let mut gone: Vec<Key> = gone.cloned().collect();
            gone.sort_unstable();
            let mut batch = LossBatch::new(now);
            gone.iter().for_each(|key| self.lose(key, LossReason::Missing, &mut batch, affected));
            self.hand_over(&mut batch, affected);
        }
        self.entries.reserve(all.len().saturating_sub(self.entries.len()));
        for entry in all {
            let old = self.entries.get(&entry.key);
            // An unchanged key does not affect held backends.
            if old.is_some_and(|old| old.is_same(&entry)) {
                continue;
            }
            let former = if went_back { self.endpoints_of(&entry.key) } else { Vec::new() };
            let key = entry.key.clone();
            self.put(entry, affected);
            let mut batch = LossBatch::new(now);
            self.doubt(&key, former, LossReason::WentBack, &mut batch);
            self.hand_over(&mut batch, affected);
        }
        affected.services.extend(self.guard.note_registry_read(now));
    }

    /// Applies a key's newest value. If it is rejected, the key's older registrations stay:
    /// a registrant's mistake must not remove a working backend.
    fn put(&mut self, entry: Entry, affected: &mut Affected) {
        let Entry { key, decoded, leased } = self.permitted(entry);
        if self.replaces_held(&key, &decoded) {
            self.forget_held(&key, affected);
        }
        let old = self.entries.remove(&key).unwrap_or_default();
        let new = match decoded {
            Ok(Reading { mut registrations, remarks }) => {
                registrations.iter_mut().for_each(|one| self.share_name(one));
                let problem = (!remarks.is_empty()).then(|| Box::new(KeyProblem::Remarks(remarks)));
                KeyContent { registrations: registrations.into(), problem, leased }
            }
            Err(rejected) => {
                let problem = Some(Box::new(KeyProblem::Rejected(rejected)));
                let registrations = self.still_permitted(&key, &old);
                KeyContent { registrations, problem, leased }
            }
        };
        if old.registrations != new.registrations {
            let both = old.registrations.iter().chain(&new.registrations);
            both.for_each(|one| affected.service(&one.service));
            self.replace(&key, &old, &new, affected);
        } else if old.leased != new.leased {
            self.replace(&key, &old, &new, affected);
        }
        if old.problem != new.problem {
            affected.rejections.insert(key.clone());
        }
        self.entries.insert(key, new);
    }

    /// Makes a registration share the text of its service's name with all others.
    fn share_name(&self, registration: &mut Registration) {
        if let Some((name, _)) = self.services.get_key_value(&registration.service) {
            registration.service = name.clone();
        }
    }

    /// Removes a key that was deregistered, now or after it was lost.
    fn deregister(&mut self, key: &Key, affected: &mut Affected) {
        for (service, listed) in self.guard.forget_key(key) {
            self.guard.note_deregistered(&service);
            if let Some(endpoint) = listed {
                self.departures.add(&service, Departure::Deregistered, &endpoint.id);
            }
            affected.service(&service);
        }
        let Some(old) = self.entries.remove(key) else { return };
        let endpoints = self.endpoints(&old.registrations);
        self.uncount(key, &old, affected);
        for (service, endpoint) in endpoints {
            affected.service(&service);
            if !self.is_registered(&service, endpoint.addr) {
                self.guard.note_deregistered(&service);
                self.departures.add(&service, Departure::Deregistered, &endpoint.id);
            }
        }
    }

    /// Removes the held backends of a service that do not answer, as far as the guard
    /// allows.
    fn evict(&mut self, service: &ServiceName, affected: &mut Affected) {
        let registered = self.services.get(service).map_or(0, Members::len);
        for endpoint in self.guard.evict(service, registered) {
            self.departures.add(service, Departure::Dead, &endpoint.id);
            affected.service(service);
        }
    }

    /// Undoes the counts of a key that was removed.
    fn uncount(&mut self, key: &Key, old: &KeyContent, affected: &mut Affected) {
        self.forbidden.remove(key);
        self.replace(key, old, &KeyContent::default(), affected);
        if old.problem.is_some() {
            affected.rejections.insert(key.clone());
        }
    }
}

impl KeyContent {
    fn is_same(&self, entry: &Entry) -> bool {
        let same = entry.decoded.as_ref().is_ok_and(|new| {
            *new.registrations == *self.registrations && new.remarks == self.remarks()
        });
        same && self.rejected().is_none() && self.leased == entry.leased
    }

    fn rejected(&self) -> Option<&Rejected> {
        match self.problem.as_deref()? {
            KeyProblem::Rejected(rejected) => Some(rejected),
            KeyProblem::Remarks(_) => None,
        }
    }

    fn remarks(&self) -> &[Remark] {
        match self.problem.as_deref() {
            Some(KeyProblem::Remarks(remarks)) => remarks,
            Some(KeyProblem::Rejected(_)) | None => &[],
        }
    }
}

#[cfg(test)]
mod tests;
