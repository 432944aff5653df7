//! The lost backends of one service, and how many of them must stay listed.
//!
//! In: losses, answers of probes, returns. Out: the backends that stay listed and those
//! that leave. Pure. A change costs the logarithm of the number of lost backends, because
//! counts and orders are kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::catalog::liveness::{HeldBackend, LossReason, ProbeResult, Rules};
use crate::model::{BackendAddr, Endpoint};
use crate::registry::Key;

use super::{Loss, MISSING_FOR, SILENT_MAX, guarded_min};

/// The lost backends of a service.
#[derive(Debug)]
pub(in crate::catalog) struct LostBackends {
    rules: Rules,
    held_addresses: BTreeMap<BackendAddr, LostBackend>,
    /// How many are still listed.
    listed: usize,
    /// How many of the listed ones took a connection at the newest probe.
    answering: usize,
    /// The listed backends that do not answer, in the order in which they leave.
    dead: BTreeSet<(Certainty, BackendAddr)>,
    /// The length of the list before each loss and when that was, with the number of
    /// losses that share it. Lengths include [`Self::deregistered`] as it was at that time.
    list_lengths: BTreeMap<(usize, Instant), usize>,
    /// How many backends deregistered since the first loss.
    deregistered: usize,
}

/// How certain it is that a backend is dead. The most certain comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    Refuses,
    Silent,
}

#[derive(Debug)]
pub(super) struct LostBackend {
    pub(super) key: Option<Key>,
    pub(super) endpoint: Endpoint,
    why: LossReason,
    since: Instant,
    list_length: (usize, Instant),
    answer: Option<ProbeResult>,
    /// Unanswered probes in a row.
    silent: u32,
    /// Whether it is no longer listed. It then counts as missing for at most [`MISSING_FOR`].
    pub(super) unlisted: bool,
}

impl LostBackends {
    /// Makes the value for a service with these rules that has lost nothing.
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            held_addresses: BTreeMap::new(),
            listed: 0,
            answering: 0,
            dead: BTreeSet::new(),
            list_lengths: BTreeMap::new(),
            deregistered: 0,
        }
    }

    /// Returns the rules of the service.
    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// Sets the rules. Returns the former end and the new end of each lost backend.
    pub(super) fn set_rules(&mut self, rules: Rules) -> Vec<(BackendAddr, Instant, Instant)> {
        let before = std::mem::replace(&mut self.rules, rules);
        let ends = |(addr, backend): (&BackendAddr, &LostBackend)| {
            (*addr, backend.end(before.keep_lost), backend.end(rules.keep_lost))
        };
        self.held_addresses.iter().map(ends).collect()
    }

    /// Adds lost backends that are not in here yet. `length_before` is the length of the
    /// list before the first loss, and the time of that loss.
    pub(super) fn extend(
        &mut self,
        all: Vec<Loss>,
        since: Instant,
        length_before: (usize, Instant),
    ) {
        if all.is_empty() {
            return;
        }
        let list_length = (length_before.0 + self.deregistered, length_before.1);
        *self.list_lengths.entry(list_length).or_default() += all.len();
        self.listed += all.len();
        let (answer, silent, unlisted) = (None, 0, false);
        let backend = |Loss { key, endpoint, why }| {
            let addr = endpoint.addr;
            let lost =
                LostBackend { key, endpoint, why, since, list_length, answer, silent, unlisted };
            (addr, lost)
        };
        let all = all.into_iter().map(backend);
        match self.held_addresses.is_empty() {
            // A map that is made of all elements at once is made quickly.
            true => self.held_addresses = all.collect(),
            false => self.held_addresses.extend(all),
        }
    }

    pub(super) fn remove(&mut self, addr: BackendAddr) -> Option<LostBackend> {
        let backend = self.held_addresses.remove(&addr)?;
        if let Some(losses) = self.list_lengths.get_mut(&backend.list_length) {
            *losses -= 1;
            if *losses == 0 {
                self.list_lengths.remove(&backend.list_length);
            }
        }
        if !backend.unlisted {
            self.unlist(addr, &backend);
        }
        Some(backend)
    }

    /// Applies the answer of a listed backend. Returns its new state if it changed.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: ProbeResult) -> Option<HeldBackend> {
        let backend = self.held_addresses.get_mut(&addr).filter(|backend| !backend.unlisted)?;
        let before = (backend.answer, backend.certainty());
        backend.silent = if answer == ProbeResult::Silent { backend.silent + 1 } else { 0 };
        backend.answer = Some(answer);
        let after = (backend.answer, backend.certainty());
        if before == after {
            return None;
        }
        self.answering -= usize::from(before.0 == Some(ProbeResult::Takes));
        self.answering += usize::from(answer == ProbeResult::Takes);
        before.1.map(|certainty| self.dead.remove(&(certainty, addr)));
        after.1.map(|certainty| self.dead.insert((certainty, addr)));
        Some(backend.held())
    }

    /// Removes the next dead backend from the list and returns it, if more are listed
    /// than must be. A refusal is more certain than silence.
    pub(super) fn evict(&mut self, registered: usize) -> Option<&LostBackend> {
        let (_, addr) = self.dead.first().copied()?;
        if registered + self.listed <= guarded_min(self.longest_list(), self.rules.guard) {
            return None;
        }
        let mut backend = self.held_addresses.remove(&addr)?;
        self.unlist(addr, &backend);
        backend.unlisted = true;
        Some(self.held_addresses.entry(addr).or_insert(backend))
    }

    /// Returns the length of the list before the first recent loss, and when that was;
    /// `None` if all losses are too old to belong to a loss now.
    pub(super) fn length_before(&self, now: Instant) -> Option<(usize, Instant)> {
        let recent = |(_, begun): &&(usize, Instant)| *begun + self.rules.keep_lost > now;
        let (length, begun) = self.list_lengths.keys().rev().find(recent)?;
        Some((length.saturating_sub(self.deregistered), *begun))
    }

    /// Records that a backend deregistered: it does not count as missing.
    pub(super) fn note_deregistered(&mut self) {
        self.deregistered += 1;
    }

    /// Restarts the time of the listed backends.
    pub(super) fn renew(&mut self, now: Instant) {
        for backend in self.held_addresses.values_mut().filter(|backend| !backend.unlisted) {
            backend.since = now;
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (BackendAddr, &LostBackend)> {
        self.held_addresses.iter().map(|(addr, backend)| (*addr, backend))
    }

    /// Returns the backends that are still listed.
    pub(in crate::catalog) fn listed(&self) -> impl Iterator<Item = &Endpoint> {
        let listed = self.held_addresses.values().filter(|backend| !backend.unlisted);
        listed.map(|backend| &backend.endpoint)
    }

    pub(in crate::catalog) fn endpoint(&self, addr: BackendAddr) -> Option<&Endpoint> {
        self.held_addresses.get(&addr).map(|backend| &backend.endpoint)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held_addresses.is_empty()
    }

    pub(in crate::catalog) fn held(&self) -> usize {
        self.listed
    }

    /// Returns how many listed backends took a connection at the newest probe.
    pub(in crate::catalog) fn answering(&self) -> usize {
        self.answering
    }

    /// Returns the listed backends that do not answer.
    pub(in crate::catalog) fn dead(&self) -> impl ExactSizeIterator<Item = BackendAddr> {
        self.dead.iter().map(|(_, addr)| *addr)
    }

    fn longest_list(&self) -> Option<usize> {
        self.list_lengths
            .last_key_value()
            .map(|((length, _), _)| length.saturating_sub(self.deregistered))
    }

    fn unlist(&mut self, addr: BackendAddr, backend: &LostBackend) {
        self.listed -= 1;
        self.answering -= usize::from(backend.answer == Some(ProbeResult::Takes));
        backend.certainty().map(|certainty| self.dead.remove(&(certainty, addr)));
    }
}

impl LostBackend {
    /// Returns when its time is over.
    pub(super) fn end(&self, keep: Duration) -> Instant {
        self.since + if self.unlisted { keep.min(MISSING_FOR) } else { keep }
    }

    /// Returns when its time is over if it is listed.
    pub(super) fn listed_end(&self, keep: Duration) -> Instant {
        self.since + keep
    }

    /// Returns when its service began to lose backends in this incident.
    pub(super) fn begun(&self) -> Instant {
        self.list_length.1
    }

    pub(super) fn held(&self) -> HeldBackend {
        HeldBackend { since: self.since, why: self.why, answer: self.answer }
    }

    fn certainty(&self) -> Option<Certainty> {
        match self.answer {
            None | Some(ProbeResult::Takes) => None,
            Some(ProbeResult::Refuses) => Some(Certainty::Refuses),
            Some(ProbeResult::Silent) => (self.silent >= SILENT_MAX).then_some(Certainty::Silent),
        }
    }
}
