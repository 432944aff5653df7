//! Backends whose registrations went in doubt: who stays listed, how long.
//!
//! In: losses, answers of probes, returns, the time. Out: the endpoints that a
//! service keeps beyond its registrations. Pure. A backend goes when it stops
//! answering or its time is over, but never so many that too small a share of
//! the last good list is left: it may be us who are cut off. What went by a
//! probe does not come back by one: another may have its address by then.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use imbl::{OrdMap, OrdSet};

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::Key;
use crate::settings::Settings;

use super::doubts::{Answer, Doubt, Doubts, Held, Rules};

mod lost;
mod rules;

pub(super) use lost::Lost;

/// All that is in doubt.
#[derive(Debug)]
pub(super) struct Guard {
    settings: Arc<Settings>,
    services: BTreeMap<ServiceName, Lost>,
    /// Which backends a key registered when it went.
    keys: HashMap<Key, BTreeSet<(ServiceName, BackendAddr)>>,
    /// Whom the answer of an address concerns.
    addresses: HashMap<BackendAddr, Concerned>,
    /// Whose time is over when.
    ends: BTreeSet<(Instant, ServiceName, BackendAddr)>,
    /// Set while all here comes from a saved state and the registry is unread:
    /// when the state was true. Nothing goes until then.
    restored: Option<Instant>,
    shown: Shown,
}

/// What was lost.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) key: Option<Key>,
    pub(super) endpoint: Endpoint,
    pub(super) since: Instant,
    pub(super) why: Doubt,
    /// How long its service's list was before anything was lost, and when
    /// that was.
    pub(super) of: (usize, Instant),
}

/// The services that lost an address.
#[derive(Debug, Default)]
struct Concerned {
    services: BTreeSet<ServiceName>,
    /// How many of them list it still.
    listed: usize,
}

/// The same for others, kept up to date: to gather it anew would cost as much
/// as all that is in doubt, with each answer of a probe.
#[derive(Debug, Clone, Default)]
struct Shown {
    held: OrdMap<ServiceName, OrdMap<BackendAddr, Held>>,
    guarded: OrdSet<ServiceName>,
    suspects: OrdSet<BackendAddr>,
    held_len: usize,
    /// The services in which any of this changed since it was asked for last.
    changed: BTreeSet<ServiceName>,
}

/// A packet may be lost, and with it an attempt to connect; three in a row are
/// no accident.
const SILENT_MAX: u32 = 3;
/// For how long one that went counts as missing. What goes within a lease's
/// usual time after others went for the same reason.
const MOMENTS: Duration = Duration::from_secs(60);

impl Guard {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            services: BTreeMap::new(),
            keys: HashMap::new(),
            addresses: HashMap::new(),
            ends: BTreeSet::new(),
            restored: None,
            shown: Shown::default(),
        }
    }

    /// Takes over a backend whose registration is gone, in doubt. Returns
    /// whether it stays listed.
    pub(super) fn lose(&mut self, loss: Loss, service: &ServiceName, now: Instant) -> bool {
        let known = self.services.get(service).map(Lost::rules);
        let rules = known.unwrap_or_else(|| self.rules(service));
        let end = loss.since + rules.keep;
        if end <= now && self.restored.is_none() {
            return false;
        }
        let addr = loss.endpoint.addr;
        self.forget(service, addr);
        if let Some(key) = &loss.key {
            self.keys.entry_ref(key).or_default().insert((service.clone(), addr));
        }
        let concerned = self.addresses.entry(addr).or_default();
        concerned.services.insert(service.clone());
        concerned.listed += 1;
        if self.restored.is_none() {
            self.ends.insert((end, service.clone(), addr));
            let Loss { since, why, .. } = loss;
            self.shown.show(service, addr, Held { since, why, answer: None });
        }
        let lost = self.services.entry(service.clone());
        lost.or_insert_with(|| Lost::new(rules)).insert(addr, loss);
        true
    }

    /// The key is back, or it was deleted on purpose: nothing it registered is
    /// in doubt any more. Returns the services that concerns, and who was listed.
    pub(super) fn settle_key(&mut self, key: &Key) -> Vec<(ServiceName, Option<Endpoint>)> {
        // Nearly always; and to look for one of 100,000 keys takes its time.
        if self.keys.is_empty() {
            return Vec::new();
        }
        let all = self.keys.remove(key).into_iter().flatten();
        all.map(|(service, addr)| {
            let endpoint = self.forget(&service, addr);
            (service, endpoint)
        })
        .collect()
    }

    /// The address is registered for the service, under whatever key.
    pub(super) fn settle_address(&mut self, service: &ServiceName, addr: BackendAddr) {
        if !self.addresses.is_empty() && self.addresses.contains_key(&addr) {
            self.forget(service, addr);
        }
    }

    /// The services of backends that a key registered when it went.
    pub(super) fn services_of(&self, key: &Key) -> impl Iterator<Item = &ServiceName> {
        self.keys.get(key).into_iter().flatten().map(|(service, _)| service)
    }

    /// How long the list was before anything of a service was lost, and when
    /// that was; nothing, if nothing was. What goes on for too long is no
    /// incident, but how things are.
    pub(super) fn of(&self, service: &ServiceName, now: Instant) -> Option<(usize, Instant)> {
        self.services.get(service)?.of(now)
    }

    /// A backend left its service on purpose: it is not missed.
    pub(super) fn left(&mut self, service: &ServiceName) {
        if let Some(lost) = self.services.get_mut(service) {
            lost.left();
        }
    }

    /// Takes in what a probe came to. Returns the services that know something
    /// new of the address.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: Answer) -> Vec<ServiceName> {
        if self.restored.is_some() {
            return Vec::new();
        }
        let mut concerned = Vec::new();
        for service in self.addresses.get(&addr).into_iter().flat_map(|known| &known.services) {
            let lost = self.services.get_mut(service);
            if let Some(held) = lost.and_then(|lost| lost.probed(addr, answer)) {
                self.shown.update(service, addr, held);
                concerned.push(service.clone());
            }
        }
        concerned
    }

    /// Lets those go that do not answer, as far as they may, while so many of
    /// the service are registered. Returns who went.
    pub(super) fn evict(&mut self, service: &ServiceName, registered: usize) -> Vec<Endpoint> {
        let Some(lost) = self.services.get_mut(service) else { return Vec::new() };
        let keep = lost.rules().keep;
        let mut went = Vec::new();
        while let Some((addr, loss)) = lost.evict(registered) {
            went.push(loss.endpoint.clone());
            self.ends.remove(&(loss.since + keep, service.clone(), addr));
            self.ends.insert((loss.since + keep.min(MOMENTS), service.clone(), addr));
            self.shown.hide(service, addr, self.addresses.get_mut(&addr));
        }
        self.shown.guard(service, lost.dead().len() > 0);
        went
    }

    /// Ends the doubts whose time is over. Returns who was listed, and the
    /// services in which others may be missed less now.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<(ServiceName, Option<Endpoint>)> {
        let mut over = Vec::new();
        while let Some((end, ..)) = self.ends.first()
            && *end <= now
            && let Some((_, service, addr)) = self.ends.pop_first()
        {
            over.push((service.clone(), self.forget(&service, addr)));
        }
        over
    }

    /// The registry is read anew: whoever is in doubt may have registered and
    /// been lost again since it was last heard, so their time begins now.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.restored.is_some() {
            return;
        }
        self.ends.clear();
        self.services.values_mut().for_each(|lost| lost.renew(now));
        self.begin_anew();
    }

    /// When the next one's time is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.first().map(|(end, ..)| *end)
    }

    /// The services of a canonical name that lost something.
    pub(super) fn services(&self, canonical: &str) -> Vec<ServiceName> {
        let all = self.services.keys();
        all.filter(|service| service.canonical() == canonical).cloned().collect()
    }

    /// The operator knows better: what a service lost goes, as far as the loss began
    /// before. Returns who was listed.
    pub(super) fn release(&mut self, service: &ServiceName, before: Instant) -> Vec<Endpoint> {
        let lost = self.services.get(service).into_iter().flat_map(Lost::all);
        let begun = |suspect: &lost::Suspect| suspect.loss.of.1 <= before;
        let all: Vec<_> =
            lost.filter(|(_, suspect)| begun(suspect)).map(|(addr, _)| addr).collect();
        all.into_iter().filter_map(|addr| self.forget(service, addr)).collect()
    }

    /// From here on what is lost comes from a saved state that was true then.
    pub(super) fn restore(&mut self, then: Instant) {
        self.restored = Some(then);
    }

    /// The registry has been read: what was restored and is not in it is in
    /// doubt since the state was saved. Says which services that concerns.
    pub(super) fn begin(&mut self) -> Vec<ServiceName> {
        if self.restored.take().is_none() {
            return Vec::new();
        }
        self.begin_anew();
        self.services.keys().cloned().collect()
    }

    /// What a service lists beyond what is registered for it.
    pub(super) fn list(&self, service: &ServiceName) -> impl Iterator<Item = &Endpoint> {
        self.services.get(service).into_iter().flat_map(Lost::listed)
    }

    /// What a service lost.
    pub(super) fn lost(&self, service: &ServiceName) -> Option<&Lost> {
        self.services.get(service).filter(|_| self.restored.is_none())
    }

    /// The services in which something that is shown has changed since this was
    /// asked for last.
    pub(super) fn changed(&mut self) -> BTreeSet<ServiceName> {
        mem::take(&mut self.shown.changed)
    }

    /// Sets what is to be shown and probed. Costs little, however much it is.
    pub(super) fn show(&self, doubts: &mut Doubts) {
        doubts.held = self.shown.held.clone();
        doubts.guarded = self.shown.guarded.clone();
        doubts.suspects = self.shown.suspects.clone();
        doubts.held_len = self.shown.held_len;
    }

    /// Gathers whose time is over when, and what is shown.
    fn begin_anew(&mut self) {
        let Shown { guarded, changed, .. } = mem::take(&mut self.shown);
        self.shown = Shown { guarded, changed, ..Shown::default() };
        for (service, lost) in &self.services {
            for (addr, suspect) in lost.all() {
                self.ends.insert((suspect.end(lost.rules().keep), service.clone(), addr));
                if !suspect.gone {
                    self.shown.show(service, addr, suspect.held());
                }
            }
        }
    }

    /// Returns it, if it was listed.
    fn forget(&mut self, service: &ServiceName, addr: BackendAddr) -> Option<Endpoint> {
        let lost = self.services.get_mut(service)?;
        let suspect = lost.remove(addr)?;
        let end = suspect.end(lost.rules().keep);
        self.shown.guard(service, lost.dead().len() > 0);
        if lost.is_empty() {
            self.services.remove(service);
        }
        self.ends.remove(&(end, service.clone(), addr));
        if !suspect.gone {
            self.shown.hide(service, addr, self.addresses.get_mut(&addr));
        }
        if let Some(concerned) = self.addresses.get_mut(&addr) {
            concerned.services.remove(service);
            if concerned.services.is_empty() {
                self.addresses.remove(&addr);
            }
        }
        if let Some(key) = suspect.loss.key
            && let Some(registered) = self.keys.get_mut(&key)
        {
            registered.remove(&(service.clone(), addr));
            if registered.is_empty() {
                self.keys.remove(&key);
            }
        }
        (!suspect.gone).then_some(suspect.loss.endpoint)
    }
}

impl Shown {
    fn show(&mut self, service: &ServiceName, addr: BackendAddr, held: Held) {
        self.suspects.insert(addr);
        self.update(service, addr, held);
        self.held_len += 1;
    }

    fn update(&mut self, service: &ServiceName, addr: BackendAddr, held: Held) {
        match self.held.get_mut(service) {
            Some(all) => drop(all.insert(addr, held)),
            None => drop(self.held.insert(service.clone(), OrdMap::unit(addr, held))),
        }
        self.note(service);
    }

    /// It is not listed any more; and how many services list its address.
    fn hide(
        &mut self,
        service: &ServiceName,
        addr: BackendAddr,
        concerned: Option<&mut Concerned>,
    ) {
        if let Some(concerned) = concerned {
            concerned.listed -= 1;
            if concerned.listed == 0 {
                self.suspects.remove(&addr);
            }
        }
        let Some(all) = self.held.get_mut(service) else { return };
        self.held_len -= usize::from(all.remove(&addr).is_some());
        if all.is_empty() {
            self.held.remove(service);
        }
        self.note(service);
    }

    fn guard(&mut self, service: &ServiceName, is: bool) {
        if is != self.guarded.contains(service) {
            match is {
                true => drop(self.guarded.insert(service.clone())),
                false => drop(self.guarded.remove(service)),
            }
            self.note(service);
        }
    }

    fn note(&mut self, service: &ServiceName) {
        if !self.changed.contains(service) {
            self.changed.insert(service.clone());
        }
    }
}

/// How many of a list must stay, whatever probes say. The loss of a service's
/// only backend is no mass loss: a refusal is believed.
pub(super) fn least(of: Option<usize>, share: u32) -> usize {
    match of.unwrap_or(0) {
        0 | 1 => 0,
        of => (of * share as usize).div_ceil(100),
    }
}

#[cfg(test)]
mod tests;
