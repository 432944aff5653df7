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

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::Key;
use crate::settings::Settings;

use super::doubts::{Answer, Doubt, Doubts, Held, Rules};

mod ends;
mod few;
mod lost;
mod rules;
mod shown;

use ends::Ends;
use few::Few;
pub(super) use lost::Lost;
use shown::Shown;

/// All that is in doubt.
#[derive(Debug)]
pub(super) struct Guard {
    settings: Arc<Settings>,
    services: BTreeMap<ServiceName, Lost>,
    /// Which backends a key registered when it went.
    keys: HashMap<Key, Few<(ServiceName, BackendAddr)>>,
    /// Whom the answer of an address concerns.
    addresses: HashMap<BackendAddr, Concerned>,
    ends: Ends,
    /// Set while all here comes from a saved state and the registry is unread:
    /// when the state was true. Nothing goes until then.
    restored: Option<Instant>,
    shown: Shown,
}

/// Backends that a service lost together.
#[derive(Debug)]
pub(super) struct Losses {
    pub(super) since: Instant,
    /// How long the service's list was before anything was lost, and when that was.
    pub(super) of: (usize, Instant),
    pub(super) all: Vec<Loss>,
}

/// A backend that was lost.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) key: Option<Key>,
    pub(super) endpoint: Endpoint,
    pub(super) why: Doubt,
}

/// The services that lost an address.
#[derive(Debug, Default)]
struct Concerned {
    services: Few<ServiceName>,
    /// How many of them list it still.
    listed: usize,
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
            ends: Ends::default(),
            restored: None,
            shown: Shown::default(),
        }
    }

    /// Takes over backends of a service whose registrations are gone, in doubt.
    ///
    /// # Errors
    /// Returns the backends if they do not stay listed.
    pub(super) fn lose(
        &mut self,
        losses: Losses,
        service: &ServiceName,
        now: Instant,
    ) -> Result<(), Losses> {
        let known = self.services.get(service).map(Lost::rules);
        let rules = known.unwrap_or_else(|| self.rules(service));
        let end = losses.since + rules.keep;
        if end <= now && self.restored.is_none() {
            return Err(losses);
        }
        let Losses { since, of, mut all } = losses;
        // In the order in which all of this is kept, neighbours find each other in the
        // cache. Of two with one address the later counts.
        all.sort_by_key(|loss| loss.endpoint.addr);
        all.dedup_by(|later, earlier| {
            let same = later.endpoint.addr == earlier.endpoint.addr;
            if same {
                mem::swap(later, earlier);
            }
            same
        });
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
            let held =
                |loss: &Loss| (loss.endpoint.addr, Held { since, why: loss.why, answer: None });
            self.shown.extend(service, all.iter().map(held));
        }
        let lost = self.services.entry(service.clone()).or_insert_with(|| Lost::new(rules));
        all.into_iter().for_each(|loss| lost.insert(loss, since, of));
        Ok(())
    }

    /// The key is back, or it was deleted on purpose: nothing it registered is
    /// in doubt any more. Returns the services that concerns, and who was listed.
    pub(super) fn settle_key(&mut self, key: &Key) -> Vec<(ServiceName, Option<Endpoint>)> {
        // Nearly always; and to look for one of 100,000 keys takes its time.
        if self.keys.is_empty() {
            return Vec::new();
        }
        let Some(all) = self.keys.remove(key) else { return Vec::new() };
        all.iter().map(|(service, addr)| (service.clone(), self.forget(service, *addr))).collect()
    }

    /// The address is registered for the service, under whatever key.
    pub(super) fn settle_address(&mut self, service: &ServiceName, addr: BackendAddr) {
        if !self.addresses.is_empty() && self.addresses.contains_key(&addr) {
            self.forget(service, addr);
        }
    }

    /// The services of backends that a key registered when it went.
    pub(super) fn services_of(&self, key: &Key) -> impl Iterator<Item = &ServiceName> {
        self.keys.get(key).into_iter().flat_map(Few::iter).map(|(service, _)| service)
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
        for service in self.addresses.get(&addr).into_iter().flat_map(|all| all.services.iter()) {
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
        while let Some(suspect) = lost.evict(registered) {
            let addr = suspect.endpoint.addr;
            self.ends.replace((suspect.listed_end(keep), suspect.end(keep)), service, addr);
            let elsewhere = self.addresses.get_mut(&addr).is_some_and(Concerned::unlist);
            self.shown.hide(service, addr, elsewhere);
            went.push(suspect.endpoint.clone());
        }
        self.shown.guard(service, lost.dead().len() > 0);
        went
    }

    /// Ends the doubts whose time is over. Returns who was listed, and the
    /// services in which others may be missed less now.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<(ServiceName, Option<Endpoint>)> {
        let mut over = Vec::new();
        while let Some((service, addr)) = self.ends.pop(now) {
            let listed = self.forget(&service, addr);
            over.push((service, listed));
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
        self.ends.first()
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
        let all: Vec<_> =
            lost.filter(|(_, suspect)| suspect.begun() <= before).map(|(addr, _)| addr).collect();
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
        self.shown.changed()
    }

    /// Sets what is to be shown and probed. Costs little, however much it is.
    pub(super) fn show(&self, doubts: &mut Doubts) {
        self.shown.show(doubts);
    }

    /// Gathers whose time is over when, and what is shown.
    fn begin_anew(&mut self) {
        self.shown.clear();
        for (service, lost) in &self.services {
            for (addr, suspect) in lost.all() {
                self.ends.extend(suspect.end(lost.rules().keep), service, [addr]);
            }
            if lost.held() > 0 {
                let listed = lost.all().filter(|(_, suspect)| !suspect.gone);
                self.shown.extend(service, listed.map(|(addr, suspect)| (addr, suspect.held())));
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
        self.ends.remove(end, service, addr);
        if let Some(concerned) = self.addresses.get_mut(&addr) {
            if !suspect.gone {
                self.shown.hide(service, addr, concerned.unlist());
            }
            concerned.services.remove(service);
            if concerned.services.is_empty() {
                self.addresses.remove(&addr);
            }
        }
        if let Some(key) = suspect.key
            && let Some(registered) = self.keys.get_mut(&key)
        {
            registered.remove(&(service.clone(), addr));
            if registered.is_empty() {
                self.keys.remove(&key);
            }
        }
        (!suspect.gone).then_some(suspect.endpoint)
    }
}

impl Concerned {
    /// One service lists the address no more. Returns whether another still does.
    fn unlist(&mut self) -> bool {
        self.listed -= 1;
        self.listed > 0
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
