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

use super::{Loss, MOMENTS, SILENT_MAX, least};

/// The lost backends of a service.
#[derive(Debug)]
pub(in crate::catalog) struct Lost {
    rules: Rules,
    held_addresses: BTreeMap<BackendAddr, Suspect>,
    /// How many are still listed.
    listed: usize,
    /// How many of the listed ones took a connection at the newest probe.
    takes: usize,
    /// The listed backends that do not answer, in the order in which they leave.
    dead: BTreeSet<(Certainty, BackendAddr)>,
    /// The length of the list before each loss and when that was, with the number of
    /// losses that share it. Lengths include [`Self::left`] as it was at that time.
    bars: BTreeMap<(usize, Instant), usize>,
    /// How many backends left on purpose since the first loss.
    left: usize,
}

/// How certain it is that a backend is dead. The most certain comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    Refuses,
    Silent,
}

#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) key: Option<Key>,
    pub(super) endpoint: Endpoint,
    why: LossReason,
    since: Instant,
    bar: (usize, Instant),
    answer: Option<ProbeResult>,
    /// Unanswered probes in a row.
    silent: u32,
    /// Whether it is no longer listed. It then counts as missing for at most [`MOMENTS`].
    pub(super) gone: bool,
}

impl Lost {
    /// Makes the value for a service with these rules that has lost nothing.
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            held_addresses: BTreeMap::new(),
            listed: 0,
            takes: 0,
            dead: BTreeSet::new(),
            bars: BTreeMap::new(),
            left: 0,
        }
    }

    /// Returns the rules of the service.
    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// Sets the rules. Returns, for each suspect, when its time was over and when it is
    /// now.
    pub(super) fn set_rules(&mut self, rules: Rules) -> Vec<(BackendAddr, Instant, Instant)> {
        let before = std::mem::replace(&mut self.rules, rules);
        let ends = |(addr, suspect): (&BackendAddr, &Suspect)| {
            (*addr, suspect.end(before.keep), suspect.end(rules.keep))
        };
        self.held_addresses.iter().map(ends).collect()
    }

    /// Adds a lost backend that is not in here yet. `of` is the length of the list before
    /// the loss, and when that was.
    pub(super) fn insert(&mut self, loss: Loss, since: Instant, length_before: (usize, Instant)) {
        let Loss { key, endpoint, why } = loss;
        let bar = (length_before.0 + self.left, length_before.1);
        *self.bars.entry(bar).or_default() += 1;
        self.listed += 1;
        let addr = endpoint.addr;
        let (answer, silent, gone) = (None, 0, false);
        let suspect = Suspect { key, endpoint, why, since, bar, answer, silent, gone };
        self.held_addresses.insert(addr, suspect);
    }

    pub(super) fn remove(&mut self, addr: BackendAddr) -> Option<Suspect> {
        let suspect = self.held_addresses.remove(&addr)?;
        if let Some(losses) = self.bars.get_mut(&suspect.bar) {
            *losses -= 1;
            if *losses == 0 {
                self.bars.remove(&suspect.bar);
            }
        }
        if !suspect.gone {
            self.unlist(addr, &suspect);
        }
        Some(suspect)
    }

    /// Takes in the answer of a listed backend. Returns its new state if that is news.
    pub(super) fn probed(&mut self, addr: BackendAddr, answer: ProbeResult) -> Option<HeldBackend> {
        let suspect = self.held_addresses.get_mut(&addr).filter(|suspect| !suspect.gone)?;
        let before = (suspect.answer, suspect.certainty());
        suspect.silent = if answer == ProbeResult::Silent { suspect.silent + 1 } else { 0 };
        suspect.answer = Some(answer);
        let after = (suspect.answer, suspect.certainty());
        if before == after {
            return None;
        }
        self.takes -= usize::from(before.0 == Some(ProbeResult::Takes));
        self.takes += usize::from(answer == ProbeResult::Takes);
        before.1.map(|certainty| self.dead.remove(&(certainty, addr)));
        after.1.map(|certainty| self.dead.insert((certainty, addr)));
        Some(suspect.held())
    }

    /// Removes the next dead backend from the list and returns it, if more are listed
    /// than must be. A refusal is more certain than silence.
    pub(super) fn evict(&mut self, registered: usize) -> Option<&Suspect> {
        let (_, addr) = self.dead.first().copied()?;
        if registered + self.listed <= least(self.bar(), self.rules.share) {
            return None;
        }
        let mut suspect = self.held_addresses.remove(&addr)?;
        self.unlist(addr, &suspect);
        suspect.gone = true;
        Some(self.held_addresses.entry(addr).or_insert(suspect))
    }

    /// Returns the length of the list before the first recent loss, and when that was;
    /// `None` if all losses are too old to belong to a loss now.
    pub(super) fn length_before(&self, now: Instant) -> Option<(usize, Instant)> {
        let recent = |(_, begun): &&(usize, Instant)| *begun + self.rules.keep > now;
        let (length, begun) = self.bars.keys().rev().find(recent)?;
        Some((length.saturating_sub(self.left), *begun))
    }

    /// Notes that a backend left on purpose: it does not count as missing.
    pub(super) fn left(&mut self) {
        self.left += 1;
    }

    /// Restarts the time of the listed backends.
    pub(super) fn renew(&mut self, now: Instant) {
        for suspect in self.held_addresses.values_mut().filter(|suspect| !suspect.gone) {
            suspect.since = now;
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (BackendAddr, &Suspect)> {
        self.held_addresses.iter().map(|(addr, suspect)| (*addr, suspect))
    }

    /// Returns the backends that are still listed.
    pub(in crate::catalog) fn listed(&self) -> impl Iterator<Item = &Endpoint> {
        let listed = self.held_addresses.values().filter(|suspect| !suspect.gone);
        listed.map(|suspect| &suspect.endpoint)
    }

    pub(in crate::catalog) fn endpoint(&self, addr: BackendAddr) -> Option<&Endpoint> {
        self.held_addresses.get(&addr).map(|suspect| &suspect.endpoint)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held_addresses.is_empty()
    }

    pub(in crate::catalog) fn held(&self) -> usize {
        self.listed
    }

    /// Returns how many listed backends took a connection at the newest probe.
    pub(in crate::catalog) fn takes(&self) -> usize {
        self.takes
    }

    /// Returns the listed backends that do not answer.
    pub(in crate::catalog) fn dead(&self) -> impl ExactSizeIterator<Item = BackendAddr> {
        self.dead.iter().map(|(_, addr)| *addr)
    }

    fn bar(&self) -> Option<usize> {
        self.bars.last_key_value().map(|((length, _), _)| length.saturating_sub(self.left))
    }

    fn unlist(&mut self, addr: BackendAddr, suspect: &Suspect) {
        self.listed -= 1;
        self.takes -= usize::from(suspect.answer == Some(ProbeResult::Takes));
        suspect.certainty().map(|certainty| self.dead.remove(&(certainty, addr)));
    }
}

impl Suspect {
    /// Returns when its time is over.
    pub(super) fn end(&self, keep: Duration) -> Instant {
        self.since + if self.gone { keep.min(MOMENTS) } else { keep }
    }

    /// Returns when its time is over if it is listed.
    pub(super) fn listed_end(&self, keep: Duration) -> Instant {
        self.since + keep
    }

    /// Returns when its service began to lose backends in this incident.
    pub(super) fn begun(&self) -> Instant {
        self.bar.1
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
