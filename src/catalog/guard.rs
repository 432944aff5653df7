//! Backends whose registrations went in doubt: who stays listed, how long.
//!
//! In: losses, answers of probes, returns, the time. Out: the endpoints that a
//! service keeps beyond its registrations. Pure. A backend goes when it stops
//! answering or its time is over, but never so many that too small a share of
//! the last good list is left: it may be us who are cut off. What went by a
//! probe does not come back by one: another may have its address by then.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::registry::Key;

use super::doubts::{Answer, Doubt, Doubts, Held, Rules};

/// All that is in doubt.
#[derive(Debug)]
pub(super) struct Guard {
    rules: Rules,
    services: BTreeMap<ServiceName, BTreeMap<BackendAddr, Suspect>>,
    /// Which backends a key registered when it went.
    keys: HashMap<Key, Vec<(ServiceName, BackendAddr)>>,
    /// Whom the answer of an address concerns.
    addresses: BTreeMap<BackendAddr, BTreeSet<ServiceName>>,
    /// Whose time is over when.
    ends: BTreeSet<(Instant, ServiceName, BackendAddr)>,
    /// Set while all here comes from a saved state and the registry is unread:
    /// when the state was true. Nothing goes until then.
    restored: Option<Instant>,
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

#[derive(Debug)]
struct Suspect {
    loss: Loss,
    answer: Option<Answer>,
    /// Probes in a row that nothing came back to.
    silent: u32,
    /// No longer listed; remembered for [`MOMENTS`] as a part of what was lost.
    gone: bool,
}

/// A packet may be lost, and with it an attempt to connect; three in a row are
/// no accident.
const SILENT_MAX: u32 = 3;
/// For how long one that went counts as missing. What goes within a lease's
/// usual time after others went for the same reason.
const MOMENTS: Duration = Duration::from_secs(60);

impl Guard {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            services: BTreeMap::new(),
            keys: HashMap::new(),
            addresses: BTreeMap::new(),
            ends: BTreeSet::new(),
            restored: None,
        }
    }

    /// Takes over a backend whose registration is gone, in doubt.
    pub(super) fn lose(&mut self, loss: Loss, service: &ServiceName, now: Instant) {
        let end = loss.since + self.rules.keep;
        if end <= now && self.restored.is_none() {
            return;
        }
        let addr = loss.endpoint.addr;
        self.forget(service, addr);
        if let Some(key) = &loss.key {
            self.keys.entry(key.clone()).or_default().push((service.clone(), addr));
        }
        self.addresses.entry(addr).or_default().insert(service.clone());
        if self.restored.is_none() {
            self.ends.insert((end, service.clone(), addr));
        }
        let suspect = Suspect { loss, answer: None, silent: 0, gone: false };
        self.services.entry(service.clone()).or_default().insert(addr, suspect);
    }

    /// The key is back, or it was deleted on purpose: nothing it registered is
    /// in doubt any more. Says which services that concerns.
    pub(super) fn settle_key(&mut self, key: &Key) -> Vec<(ServiceName, BackendAddr)> {
        // Nearly always; and to look for one of 100,000 keys takes its time.
        if self.keys.is_empty() {
            return Vec::new();
        }
        let all = self.keys.remove(key).unwrap_or_default();
        all.iter().for_each(|(service, addr)| self.forget(service, *addr));
        all
    }

    /// The services of backends that a key registered when it went.
    pub(super) fn services_of(&self, key: &Key) -> impl Iterator<Item = &ServiceName> {
        self.keys.get(key).into_iter().flatten().map(|(service, _)| service)
    }

    /// How long the list was before anything of a service was lost, and when
    /// that was; nothing, if nothing was. What goes on for too long is no
    /// incident, but how things are.
    pub(super) fn of(&self, service: &ServiceName, now: Instant) -> Option<(usize, Instant)> {
        let all = self.services.get(service)?.values().map(|suspect| suspect.loss.of);
        all.filter(|(_, begun)| *begun + self.rules.keep > now).max()
    }

    /// A backend left its service on purpose: it is not missed.
    pub(super) fn left(&mut self, service: &ServiceName) {
        for suspect in self.services.get_mut(service).into_iter().flat_map(BTreeMap::values_mut) {
            suspect.loss.of.0 = suspect.loss.of.0.saturating_sub(1);
        }
    }

    /// Takes in what a probe came to. Says which services that concerns.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: Answer) -> Vec<ServiceName> {
        if self.restored.is_some() {
            return Vec::new();
        }
        let mut concerned = Vec::new();
        for service in self.addresses.get(&addr).into_iter().flatten() {
            let suspect = self.services.get_mut(service).and_then(|all| all.get_mut(&addr));
            let Some(suspect) = suspect.filter(|suspect| !suspect.gone) else { continue };
            suspect.silent = if answer == Answer::Silent { suspect.silent + 1 } else { 0 };
            suspect.answer = Some(answer);
            concerned.push(service.clone());
        }
        concerned
    }

    /// Lets those go whose time is over. Says which services that concerns.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<ServiceName> {
        let mut concerned = Vec::new();
        while let Some((end, ..)) = self.ends.first()
            && *end <= now
            && let Some((_, service, addr)) = self.ends.pop_first()
        {
            self.forget(&service, addr);
            concerned.push(service);
        }
        concerned
    }

    /// The registry is read anew: whoever is in doubt may have registered and
    /// been lost again since it was last heard, so their time begins now.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.restored.is_some() {
            return;
        }
        self.ends.clear();
        for (service, all) in &mut self.services {
            for (addr, suspect) in all {
                if !suspect.gone {
                    suspect.loss.since = now;
                }
                self.ends.insert((suspect.end(self.rules.keep), service.clone(), *addr));
            }
        }
    }

    /// When the next one's time is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.first().map(|(end, ..)| *end)
    }

    /// The operator knows better: all of a service goes.
    pub(super) fn release(&mut self, service: &ServiceName) -> bool {
        let all: Vec<_> =
            self.services.get(service).into_iter().flat_map(BTreeMap::keys).copied().collect();
        all.iter().for_each(|addr| self.forget(service, *addr));
        !all.is_empty()
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
        for (service, all) in &self.services {
            let ends = all.iter().map(|(addr, suspect)| {
                (suspect.loss.since + self.rules.keep, service.clone(), *addr)
            });
            self.ends.extend(ends);
        }
        self.services.keys().cloned().collect()
    }

    /// What a service lists beyond what is registered for it, which ends the
    /// doubt of those that are.
    pub(super) fn list(
        &mut self,
        service: &ServiceName,
        registered: &HashSet<BackendAddr>,
    ) -> Vec<Endpoint> {
        let Some(all) = self.services.get(service) else { return Vec::new() };
        let back: Vec<_> = all.keys().filter(|addr| registered.contains(addr)).copied().collect();
        back.into_iter().for_each(|addr| self.forget(service, addr));
        let Some(all) = self.services.get(service) else { return Vec::new() };
        let least = least(all.values().map(|suspect| suspect.loss.of.0).max(), self.rules.share);
        let keep = self.rules.keep;
        let Some(all) = self.services.get_mut(service) else { return Vec::new() };
        let mut listed = registered.len() + all.values().filter(|suspect| !suspect.gone).count();
        // A refusal is more certain than silence, so it goes first.
        for answer in [Answer::Refuses, Answer::Silent] {
            let listed_still = all.iter_mut().filter(|(_, suspect)| !suspect.gone);
            for (addr, suspect) in listed_still {
                if listed > least && suspect.answer == Some(answer) && suspect.is_dead() {
                    suspect.gone = true;
                    listed -= 1;
                    let since = suspect.loss.since;
                    self.ends.remove(&(since + keep, service.clone(), *addr));
                    self.ends.insert((since + keep.min(MOMENTS), service.clone(), *addr));
                }
            }
        }
        let listed = all.values().filter(|suspect| !suspect.gone);
        listed.map(|suspect| suspect.loss.endpoint.clone()).collect()
    }

    /// Adds what is to be shown and probed.
    pub(super) fn show(&self, doubts: &mut Doubts) {
        if self.restored.is_some() {
            return;
        }
        for (service, all) in &self.services {
            let listed = || all.iter().filter(|(_, suspect)| !suspect.gone);
            let held = |(addr, suspect): (&BackendAddr, &Suspect)| {
                let Loss { since, why, .. } = suspect.loss;
                (*addr, Held { since, why, answer: suspect.answer })
            };
            if listed().any(|(_, suspect)| suspect.is_dead()) {
                doubts.guarded.insert(service.clone());
            }
            doubts.suspects.extend(listed().map(|(addr, _)| *addr));
            let held: BTreeMap<_, _> = listed().map(held).collect();
            if !held.is_empty() {
                doubts.held.insert(service.clone(), held);
            }
        }
    }

    fn forget(&mut self, service: &ServiceName, addr: BackendAddr) {
        let Some(all) = self.services.get_mut(service) else { return };
        let Some(suspect) = all.remove(&addr) else { return };
        let (end, loss) = (suspect.end(self.rules.keep), suspect.loss);
        if all.is_empty() {
            self.services.remove(service);
        }
        self.ends.remove(&(end, service.clone(), addr));
        if let Some(users) = self.addresses.get_mut(&addr) {
            users.remove(service);
            if users.is_empty() {
                self.addresses.remove(&addr);
            }
        }
        if let Some(key) = loss.key
            && let Some(mut registered) = self.keys.remove(&key)
        {
            registered.retain(|(other, at)| (other, *at) != (service, addr));
            if !registered.is_empty() {
                self.keys.insert(key, registered);
            }
        }
    }
}

impl Suspect {
    /// When its time is over.
    fn end(&self, keep: Duration) -> Instant {
        self.loss.since + if self.gone { keep.min(MOMENTS) } else { keep }
    }

    fn is_dead(&self) -> bool {
        match self.answer {
            None | Some(Answer::Takes) => false,
            Some(Answer::Refuses) => true,
            Some(Answer::Silent) => self.silent >= SILENT_MAX,
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
