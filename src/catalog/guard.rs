//! The guard: decides which lost backends stay listed, and for how long.
//!
//! In: losses, answers of probes, returns, the time. Out: the endpoints that a service
//! lists beyond its registrations. Pure. A held backend leaves when probes find it dead
//! or its time is over. Probes never remove so many that less than the guarded part of
//! the last good list stays, because the balancer itself may be cut off. A probe never
//! brings a backend back that one removed: another process may have its address by then.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::Key;
use crate::settings::Settings;

use super::liveness::{HeldBackend, Liveness, LossReason, ProbeResult, Rules};

mod ends;
mod held_maps;
mod lost;
mod rules;
mod small_set;

use ends::Ends;
use held_maps::HeldMaps;
pub(super) use lost::LostBackends;
use small_set::SmallSet;

/// All lost backends.
#[derive(Debug)]
pub(super) struct Guard {
    settings: Arc<Settings>,
    services: BTreeMap<ServiceName, LostBackends>,
    /// The backends that each key registered when it was lost.
    keys: HashMap<Key, SmallSet<(ServiceName, BackendAddr)>>,
    /// The services that lost each address.
    addresses: HashMap<BackendAddr, LostAddress>,
    ends: Ends,
    /// Set while all backends here come from a saved state and the registry is unread:
    /// the time of that state. No backend leaves while it is set.
    restored: Option<Instant>,
    held_maps: HeldMaps,
}

/// Backends that a service lost together.
#[derive(Debug)]
pub(super) struct Losses {
    pub(super) since: Instant,
    /// The length of the service's list before the first loss, and when that was.
    pub(super) length_before: (usize, Instant),
    pub(super) all: Vec<Loss>,
}

/// A lost backend.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) key: Option<Key>,
    pub(super) endpoint: Endpoint,
    pub(super) why: LossReason,
}

/// The services that lost an address.
#[derive(Debug, Default)]
struct LostAddress {
    services: SmallSet<ServiceName>,
    /// How many of them still list it.
    listed: usize,
}

/// How many unanswered probes in a row make a backend dead. One lost packet can make a
/// connection attempt fail; three in a row are no accident.
const SILENT_MAX: u32 = 3;
/// How long a removed backend counts as missing. A backend that leaves within a lease's
/// usual time after others leaves for the same reason.
const MISSING_FOR: Duration = Duration::from_secs(60);

impl Guard {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            services: BTreeMap::new(),
            keys: HashMap::new(),
            addresses: HashMap::new(),
            ends: Ends::default(),
            restored: None,
            held_maps: HeldMaps::default(),
        }
    }

    /// Takes over backends of a service whose registrations were lost.
    ///
    /// # Errors
    /// Returns the backends if they do not stay listed.
    pub(super) fn lose(
        &mut self,
        losses: Losses,
        service: &ServiceName,
        now: Instant,
    ) -> Result<(), Losses> {
        let known = self.services.get(service).map(LostBackends::rules);
        let rules = known.unwrap_or_else(|| self.rules(service));
        let end = losses.since + rules.keep_lost;
        if end <= now && self.restored.is_none() {
            return Err(losses);
        }
        let Losses { since, length_before, mut all } = losses;
        // Sorted in the order of the maps below, so that neighbours share cache lines. Of
        // two backends with one address the later counts.
        all.sort_by_key(|loss| loss.endpoint.addr);
        all.dedup_by(|later, earlier| {
            let same = later.endpoint.addr == earlier.endpoint.addr;
            if same {
                mem::swap(later, earlier);
            }
            same
        });
        self.keys.reserve(all.len());
        self.addresses.reserve(all.len());
        for Loss { key, endpoint: Endpoint { addr, .. }, .. } in &all {
            if known.is_some() {
                self.forget(service, *addr);
            }
            if let Some(key) = key {
                self.keys.entry_ref(key).or_default().insert((service.clone(), *addr));
            }
            let concerned = self.addresses.entry(*addr).or_default();
            concerned.services.insert(service.clone());
            concerned.listed += 1;
        }
        if self.restored.is_none() {
            self.ends.extend(end, service, all.iter().map(|loss| loss.endpoint.addr));
            let held = |loss: &Loss| {
                (loss.endpoint.addr, HeldBackend { since, why: loss.why, answer: None })
            };
            self.held_maps.extend(service, all.iter().map(held));
        }
        let lost = self.services.entry(service.clone()).or_insert_with(|| LostBackends::new(rules));
        lost.extend(all, since, length_before);
        Ok(())
    }

    /// Forgets the backends of a key that exists again, or that was deregistered.
    /// Returns their services, each with the endpoint if it was still listed.
    pub(super) fn forget_key(&mut self, key: &Key) -> Vec<(ServiceName, Option<Endpoint>)> {
        // Nearly always empty, and looking up one of 100,000 keys takes time.
        if self.keys.is_empty() {
            return Vec::new();
        }
        let Some(all) = self.keys.remove(key) else { return Vec::new() };
        all.iter().map(|(service, addr)| (service.clone(), self.forget(service, *addr))).collect()
    }

    /// Forgets a backend whose address is registered for the service, under any key.
    pub(super) fn forget_address(&mut self, service: &ServiceName, addr: BackendAddr) {
        if !self.addresses.is_empty() && self.addresses.contains_key(&addr) {
            self.forget(service, addr);
        }
    }

    /// Returns the services of the backends that a key registered when it was lost.
    pub(super) fn services_of(&self, key: &Key) -> impl Iterator<Item = &ServiceName> {
        self.keys.get(key).into_iter().flat_map(SmallSet::iter).map(|(service, _)| service)
    }

    /// Returns the keys that were lost, sorted, each with one of its services.
    pub(super) fn lost_keys(&self) -> Vec<(Key, ServiceName)> {
        let all = self.keys.iter();
        let pairs =
            all.flat_map(|(key, all)| all.iter().map(|(name, _)| (key.clone(), name.clone())));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        pairs
    }

    /// Returns the length of a service's list before the first recent loss, and when that
    /// was; `None` if there was none. A loss that lasts too long is no incident but the
    /// normal state.
    pub(super) fn length_before(
        &self,
        service: &ServiceName,
        now: Instant,
    ) -> Option<(usize, Instant)> {
        self.services.get(service)?.length_before(now)
    }

    /// Records that a backend of a service deregistered: it does not count as missing.
    pub(super) fn note_deregistered(&mut self, service: &ServiceName) {
        if let Some(lost) = self.services.get_mut(service) {
            lost.note_deregistered();
        }
    }

    /// Applies the answer of a probe. Returns the services for which it is a change.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: ProbeResult) -> Vec<ServiceName> {
        if self.restored.is_some() {
            return Vec::new();
        }
        let mut concerned = Vec::new();
        for service in self.addresses.get(&addr).into_iter().flat_map(|all| all.services.iter()) {
            let lost = self.services.get_mut(service);
            if let Some(held) = lost.and_then(|lost| lost.probed(addr, answer)) {
                self.held_maps.update(service, addr, held);
                concerned.push(service.clone());
            }
        }
        concerned
    }

    /// Removes backends that do not answer from the list, as far as the guard allows
    /// while `registered` backends are registered. Returns the removed ones.
    pub(super) fn evict(&mut self, service: &ServiceName, registered: usize) -> Vec<Endpoint> {
        let Some(lost) = self.services.get_mut(service) else { return Vec::new() };
        let keep = lost.rules().keep_lost;
        let mut went = Vec::new();
        while let Some(backend) = lost.evict(registered) {
            let addr = backend.endpoint.addr;
            self.ends.replace((backend.listed_end(keep), backend.end(keep)), service, addr);
            let elsewhere = self.addresses.get_mut(&addr).is_some_and(LostAddress::unlist);
            self.held_maps.hide(service, addr, elsewhere);
            went.push(backend.endpoint.clone());
        }
        self.held_maps.guard(service, lost.dead().len() > 0);
        went
    }

    /// Forgets the backends whose time is over. Returns their services, each with the
    /// endpoint if it was still listed. Fewer backends of these services count as missing
    /// now.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(ServiceName, Option<Endpoint>)> {
        let mut over = Vec::new();
        while let Some((service, addr)) = self.ends.pop(now) {
            let listed = self.forget(&service, addr);
            over.push((service, listed));
        }
        over
    }

    /// Restarts the time of all held backends, because the registry is read again: they
    /// may have registered and been lost again since it last answered.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.restored.is_some() {
            return;
        }
        self.ends.clear();
        self.services.values_mut().for_each(|lost| lost.renew(now));
        self.rebuild();
    }

    /// Returns when the next backend's time is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.first()
    }

    /// Returns the services of a canonical name that have lost backends.
    pub(super) fn services(&self, canonical: &str) -> Vec<ServiceName> {
        let all = self.services.keys();
        all.filter(|service| service.canonical() == canonical).cloned().collect()
    }

    /// Forgets a service's lost backends on an operator's order, if their loss began at
    /// `before` or earlier. Returns the ones that were listed.
    pub(super) fn release(&mut self, service: &ServiceName, before: Instant) -> Vec<Endpoint> {
        let lost = self.services.get(service).into_iter().flat_map(LostBackends::all);
        let all: Vec<_> =
            lost.filter(|(_, backend)| backend.begun() <= before).map(|(addr, _)| addr).collect();
        all.into_iter().filter_map(|addr| self.forget(service, addr)).collect()
    }

    /// Sets when the saved state was true from which all further losses come.
    pub(super) fn restore(&mut self, then: Instant) {
        self.restored = Some(then);
    }

    /// Notes that the registry has been read. Restored backends that it lacks count as lost
    /// now: they may have been registered until a moment ago. Returns their services.
    pub(super) fn note_registry_read(&mut self, now: Instant) -> Vec<ServiceName> {
        if self.restored.take().is_none() {
            return Vec::new();
        }
        self.services.values_mut().for_each(|lost| lost.renew(now));
        self.rebuild();
        self.services.keys().cloned().collect()
    }

    /// Returns the endpoints that a service lists beyond its registrations.
    pub(super) fn list(&self, service: &ServiceName) -> impl Iterator<Item = &Endpoint> {
        self.services.get(service).into_iter().flat_map(LostBackends::listed)
    }

    /// Returns the lost backends of a service; `None` before the registry has been read.
    pub(super) fn lost(&self, service: &ServiceName) -> Option<&LostBackends> {
        self.services.get(service).filter(|_| self.restored.is_none())
    }

    /// Returns the services in which something that is shown has changed since the last
    /// call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<ServiceName> {
        self.held_maps.take_changed()
    }

    /// Writes the held backends and the addresses to probe into `liveness`. The cost does
    /// not depend on their number.
    pub(super) fn copy_into(&self, liveness: &mut Liveness) {
        self.held_maps.copy_into(liveness);
    }

    /// Computes each backend's end and the shown values again.
    fn rebuild(&mut self) {
        self.held_maps.clear();
        for (service, lost) in &self.services {
            for (addr, backend) in lost.all() {
                self.ends.extend(backend.end(lost.rules().keep_lost), service, [addr]);
            }
            if lost.held() > 0 {
                let listed = lost.all().filter(|(_, backend)| !backend.unlisted);
                self.held_maps
                    .extend(service, listed.map(|(addr, backend)| (addr, backend.held())));
            }
        }
    }

    /// Forgets a backend. Returns its endpoint if it was listed.
    fn forget(&mut self, service: &ServiceName, addr: BackendAddr) -> Option<Endpoint> {
        let lost = self.services.get_mut(service)?;
        let backend = lost.remove(addr)?;
        let end = backend.end(lost.rules().keep_lost);
        self.held_maps.guard(service, lost.dead().len() > 0);
        if lost.is_empty() {
            self.services.remove(service);
        }
        self.ends.remove(end, service, addr);
        if let Some(concerned) = self.addresses.get_mut(&addr) {
            if !backend.unlisted {
                self.held_maps.hide(service, addr, concerned.unlist());
            }
            concerned.services.remove(service);
            if concerned.services.is_empty() {
                self.addresses.remove(&addr);
            }
        }
        if let Some(key) = backend.key
            && let Some(registered) = self.keys.get_mut(&key)
        {
            registered.remove(&(service.clone(), addr));
            if registered.is_empty() {
                self.keys.remove(&key);
            }
        }
        (!backend.unlisted).then_some(backend.endpoint)
    }
}

impl LostAddress {
    /// Counts one service less that lists the address. Returns whether another service still
    /// lists it.
    fn unlist(&mut self) -> bool {
        self.listed -= 1;
        self.listed > 0
    }
}

/// Returns how many backends of a list must stay, whatever probes find. A list of one is
/// not guarded: the loss of a service's only backend is no mass loss.
pub(super) fn guarded_min(length: Option<usize>, share: u32) -> usize {
    match length.unwrap_or(0) {
        0 | 1 => 0,
        length => (length * share as usize).div_ceil(100),
    }
}

#[cfg(test)]
mod tests;
