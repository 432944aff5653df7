//! Logs what happens to each service's backends: one line for each service and matter,
//! with the exact count and a few names.
//!
//! In: the services that changed, the index, the time. Out: log lines. A service has at
//! most one line on a matter in [`PAUSE`], however many backends and changes there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::ServiceName;

use super::departures::{Departed, Departure, NAMES_MAX};
use super::index::Index;

/// The matter of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    /// Registrations are lost, and backends that answer stay listed.
    HeldBackend,
    /// Backends that do not answer stay listed.
    Guarded,
    /// Backends without a lease refuse connections and are not listed.
    Down,
    /// Backends left the lists.
    Left(Departure),
}

/// The logged and the pending line of one service and matter.
#[derive(Debug, Default)]
struct Line {
    /// The count that was logged last.
    told: usize,
    at: Option<Instant>,
    due: Option<Instant>,
    /// The backends that left since then.
    departed: Departed,
}

/// The lines of all services.
#[derive(Debug, Default)]
pub(super) struct Teller {
    lines: BTreeMap<(ServiceName, Matter), Line>,
    due: BTreeSet<(Instant, ServiceName, Matter)>,
}

/// The matters that describe a state, not an event.
const STATES: [Matter; 3] = [Matter::HeldBackend, Matter::Guarded, Matter::Down];
/// The pause between two lines of a service on one matter.
const PAUSE: Duration = Duration::from_secs(10);
/// Departures within this time after the first share one line with it: a thousand
/// backends are probed within two seconds.
const GATHER: Duration = Duration::from_secs(1);

impl Teller {
    /// Notes what changed and logs the lines that are due.
    pub(super) fn tell(
        &mut self,
        changed: BTreeSet<ServiceName>,
        departures: BTreeMap<(ServiceName, Departure), Departed>,
        index: &Index,
        now: Instant,
    ) {
        for service in changed {
            for matter in STATES {
                self.state(&service, matter, index, now);
            }
        }
        for ((service, why), Departed { count, names }) in departures {
            let line = self.lines.entry((service.clone(), Matter::Left(why))).or_default();
            line.departed.add(count, &names);
            if line.departed.count == count {
                let due = line.at.map_or(now, |at| at + PAUSE).max(now + GATHER);
                self.schedule(service, Matter::Left(why), Some(due));
            }
        }
        while let Some((due, ..)) = self.due.first()
            && *due <= now
            && let Some((_, service, matter)) = self.due.pop_first()
        {
            self.line(service, matter, index, now);
        }
    }

    /// Returns when the next line is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, ..)| *due)
    }

    fn state(&mut self, service: &ServiceName, matter: Matter, index: &Index, now: Instant) {
        let line = self.lines.get(&(service.clone(), matter));
        let (told, at) = line.map_or((0, None), |line| (line.told, line.at));
        let count = count(index, service, matter, told);
        if count != told {
            let due = at.map_or(now, |at| (at + PAUSE).max(now));
            self.schedule(service.clone(), matter, Some(due));
        } else if line.is_some() {
            // Once the pause is over, there is nothing to remember.
            let forget = at.filter(|_| told == 0).map(|at| at + PAUSE);
            self.schedule(service.clone(), matter, forget);
        }
    }

    fn schedule(&mut self, service: ServiceName, matter: Matter, due: Option<Instant>) {
        let line = self.lines.entry((service.clone(), matter)).or_default();
        if let Some(old) = std::mem::replace(&mut line.due, due) {
            self.due.remove(&(old, service.clone(), matter));
        }
        self.due.extend(due.map(|due| (due, service, matter)));
    }

    /// Logs a line if there is news, or else forgets the matter.
    fn line(&mut self, service: ServiceName, matter: Matter, index: &Index, now: Instant) {
        let key = (service, matter);
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.due = None;
        let count = count(index, &key.0, matter, line.told);
        let departed = std::mem::take(&mut line.departed);
        if count == line.told && departed.count == 0 {
            if count == 0 {
                self.lines.remove(&key);
            }
            return;
        }
        (line.told, line.at) = (count, Some(now));
        let service = &key.0;
        match matter {
            Matter::HeldBackend => held(service, count, index),
            Matter::Guarded => guarded(service, count, index),
            Matter::Down => down(service, count, index),
            Matter::Left(why) => left(service, why, &departed, index.listed(service)),
        }
        if count == 0 {
            self.schedule(key.0, matter, Some(now + PAUSE));
        }
    }
}

/// Returns how many backends of a service a state concerns. `told` is the count in the
/// last line.
fn count(index: &Index, service: &ServiceName, matter: Matter, told: usize) -> usize {
    let lost = index.lost(service);
    match matter {
        // Waits for a first answer: most backends are about to deregister or to return.
        Matter::HeldBackend => {
            lost.filter(|lost| lost.takes() > 0 || told > 0).map_or(0, |lost| lost.held())
        }
        Matter::Guarded => lost.map_or(0, |lost| lost.dead().len()),
        Matter::Down => index.down(service).len(),
        Matter::Left(_) => 0,
    }
}

fn held(service: &ServiceName, held: usize, index: &Index) {
    let Some(lost) = index.lost(service).filter(|_| held > 0) else {
        return tracing::info!(%service, "no backend is held any more");
    };
    let answering = lost.takes();
    let names: Vec<_> = lost.listed().take(NAMES_MAX).map(|endpoint| &*endpoint.id).collect();
    tracing::warn!(%service, held, answering, ?names, "registrations are lost: keeping backends that answer");
}

fn guarded(service: &ServiceName, dead: usize, index: &Index) {
    let Some(lost) = index.lost(service).filter(|_| dead > 0) else {
        return tracing::info!(%service, "no backend is guarded any more");
    };
    let held = lost.held();
    let some = lost.dead().take(NAMES_MAX).filter_map(|addr| lost.endpoint(addr));
    let names: Vec<_> = some.map(|endpoint| &*endpoint.id).collect();
    tracing::warn!(%service, held, dead, ?names, "too much of a service is lost: keeping backends that do not answer");
}

fn down(service: &ServiceName, down: usize, index: &Index) {
    if down == 0 {
        return tracing::info!(%service, "no backend is down any more");
    }
    let some = index.down(service).iter().take(NAMES_MAX);
    let names: Vec<_> = some.map(|endpoint| &*endpoint.id).collect();
    tracing::warn!(%service, down, ?names, "backends without a lease refuse connections: leaving them out");
}

fn left(service: &ServiceName, why: Departure, departed: &Departed, listed: usize) {
    let Departed { count: backends, names } = departed;
    let names: Vec<&str> = names.iter().map(Arc::as_ref).collect();
    // At least two backends, and a fifth of the service.
    let mass = *backends > 1 && backends * 4 >= listed;
    match why {
        Departure::Deregistered if mass => {
            tracing::info!(%service, backends, listed, ?names, "a large part of a service deregistered");
        }
        Departure::Deregistered => {
            tracing::debug!(%service, backends, listed, ?names, "backends deregistered");
        }
        Departure::Lost => {
            tracing::warn!(%service, backends, listed, ?names, "registrations are lost: backends removed at once");
        }
        Departure::Dead => {
            tracing::info!(%service, backends, listed, ?names, "registrations are lost and probes fail: backends removed");
        }
        Departure::Expired => {
            tracing::warn!(%service, backends, listed, ?names, "registrations are lost for longer than --keep-lost: backends removed");
        }
    }
}

#[cfg(test)]
mod tests;
