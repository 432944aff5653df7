//! Logs what happens to each service's backends: one line for each service and subject,
//! with the exact count and a few names.
//!
//! In: the services that changed, the index, their health, the time. Out: log lines. A
//! service has at most one line on a subject in [`PAUSE`], however many backends and changes
//! there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{BackendAddr, ServiceName};

use super::departures::{Departed, Departure, NAMES_MAX};
use super::health::{Health, HealthAnswer};
use super::health_tracker::HealthTracker;
use super::index::Index;

/// The subject of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LogSubject {
    /// Registrations are lost, and backends that answer stay listed.
    Held,
    /// Backends that do not answer stay listed.
    Guarded,
    /// Backends without a lease refuse connections and are not listed.
    Down,
    /// Health checks fail, and the backends are not listed.
    Unhealthy,
    /// Backends cannot be reached, and clients report answered calls.
    Unconfirmed,
    /// Too little of a service is healthy, so unhealthy backends are listed.
    Panic,
    /// Backends left the lists.
    Left(Departure),
}

/// The logged and the pending line of one service and subject.
#[derive(Debug, Default)]
struct Line {
    /// The count that was logged last.
    logged: usize,
    at: Option<Instant>,
    due: Option<Instant>,
    /// The backends that left since then.
    departed: Departed,
}

/// The lines of all services.
#[derive(Debug, Default)]
pub(super) struct BackendLog {
    lines: BTreeMap<(ServiceName, LogSubject), Line>,
    due: BTreeSet<(Instant, ServiceName, LogSubject)>,
}

/// The state that the lines describe.
#[derive(Clone, Copy)]
pub(super) struct State<'a> {
    pub(super) index: &'a Index,
    pub(super) health: &'a HealthTracker,
}

/// The subjects that describe a state, not an event.
const STATES: [LogSubject; 6] = [
    LogSubject::Held,
    LogSubject::Guarded,
    LogSubject::Down,
    LogSubject::Unhealthy,
    LogSubject::Unconfirmed,
    LogSubject::Panic,
];
/// The pause between two lines of a service on one subject.
const PAUSE: Duration = Duration::from_secs(10);
/// Departures within this time after the first share one line with it: a thousand
/// backends are probed within two seconds.
const GATHER: Duration = Duration::from_secs(1);

impl BackendLog {
    /// Records the changes and logs the lines that are due.
    pub(super) fn update(
        &mut self,
        changed: BTreeSet<ServiceName>,
        departures: BTreeMap<(ServiceName, Departure), Departed>,
        state: State<'_>,
        now: Instant,
    ) {
        for service in changed {
            for subject in STATES {
                self.state(&service, subject, state, now);
            }
        }
        for ((service, why), Departed { count, names }) in departures {
            let line = self.lines.entry((service.clone(), LogSubject::Left(why))).or_default();
            line.departed.add(count, &names);
            if line.departed.count == count {
                let due = line.at.map_or(now, |at| at + PAUSE).max(now + GATHER);
                self.schedule(service, LogSubject::Left(why), Some(due));
            }
        }
        while let Some((due, ..)) = self.due.first()
            && *due <= now
            && let Some((_, service, subject)) = self.due.pop_first()
        {
            self.line(service, subject, state, now);
        }
    }

    /// Returns when the next line is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, ..)| *due)
    }

    fn state(
        &mut self,
        service: &ServiceName,
        subject: LogSubject,
        state: State<'_>,
        now: Instant,
    ) {
        let line = self.lines.get(&(service.clone(), subject));
        let (logged, at) = line.map_or((0, None), |line| (line.logged, line.at));
        let count = count(state, service, subject, logged);
        if count != logged {
            let due = at.map_or(now, |at| (at + PAUSE).max(now));
            self.schedule(service.clone(), subject, Some(due));
        } else if line.is_some() {
            // Once the pause is over, there is nothing to remember.
            let forget = at.filter(|_| logged == 0).map(|at| at + PAUSE);
            self.schedule(service.clone(), subject, forget);
        }
    }

    fn schedule(&mut self, service: ServiceName, subject: LogSubject, due: Option<Instant>) {
        let line = self.lines.entry((service.clone(), subject)).or_default();
        if let Some(old) = std::mem::replace(&mut line.due, due) {
            self.due.remove(&(old, service.clone(), subject));
        }
        self.due.extend(due.map(|due| (due, service, subject)));
    }

    /// Logs a line if the count changed, or else forgets the subject.
    fn line(&mut self, service: ServiceName, subject: LogSubject, state: State<'_>, now: Instant) {
        let key = (service, subject);
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.due = None;
        let count = count(state, &key.0, subject, line.logged);
        let departed = std::mem::take(&mut line.departed);
        if count == line.logged && departed.count == 0 {
            if count == 0 {
                self.lines.remove(&key);
            }
            return;
        }
        (line.logged, line.at) = (count, Some(now));
        let (service, index) = (&key.0, state.index);
        match subject {
            LogSubject::Held => held(service, count, index),
            LogSubject::Guarded => guarded(service, count, index),
            LogSubject::Down => down(service, count, index),
            LogSubject::Unhealthy => unhealthy(service, count, state.health),
            LogSubject::Unconfirmed => unconfirmed(service, count, state.health),
            LogSubject::Panic => panic(service, count, state.health),
            LogSubject::Left(why) => left(service, why, &departed, index.listed(service)),
        }
        if count == 0 {
            self.schedule(key.0, subject, Some(now + PAUSE));
        }
    }
}

/// Returns how many backends of a service a state concerns. `logged` is the count in the
/// last line.
fn count(
    State { index, health }: State<'_>,
    service: &ServiceName,
    subject: LogSubject,
    logged: usize,
) -> usize {
    let lost = index.lost(service);
    let observed = health.is_observed(service);
    let health = |of: fn(&Health) -> usize| health.health(service).map_or(0, of);
    match subject {
        // Waits for a first answer: most backends are about to deregister or to return.
        LogSubject::Held => {
            lost.filter(|lost| lost.answering() > 0 || logged > 0).map_or(0, |lost| lost.held())
        }
        LogSubject::Guarded => lost.map_or(0, |lost| lost.dead().len()),
        LogSubject::Down => index.down(service).len(),
        LogSubject::Unhealthy => health(|one| one.unhealthy.len()),
        LogSubject::Unconfirmed => health(|one| one.unconfirmed.len()),
        LogSubject::Panic if observed => 0,
        LogSubject::Panic => health(|one| if one.panic { one.unhealthy.len() } else { 0 }),
        LogSubject::Left(_) => 0,
    }
}

fn held(service: &ServiceName, held: usize, index: &Index) {
    let Some(lost) = index.lost(service).filter(|_| held > 0) else {
        return tracing::info!(%service, "no backend is held any more");
    };
    let answering = lost.answering();
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

fn unhealthy(service: &ServiceName, unhealthy: usize, health: &HealthTracker) {
    let Some(now) = health.health(service).filter(|_| unhealthy > 0) else {
        return tracing::info!(%service, "no backend is unhealthy any more");
    };
    let (names, why) = some_of(&now.unhealthy);
    if health.is_observed(service) {
        tracing::warn!(%service, unhealthy, ?names, why, "backends are unhealthy: health is only observed");
    } else {
        let panic = now.panic;
        tracing::warn!(%service, unhealthy, panic, ?names, why, "backends are unhealthy: leaving them out, except in panic");
    }
}

fn unconfirmed(service: &ServiceName, unconfirmed: usize, health: &HealthTracker) {
    let Some(now) = health.health(service).filter(|_| unconfirmed > 0) else {
        return tracing::info!(%service, "no backend is unconfirmed any more");
    };
    let (names, _) = some_of(&now.unconfirmed);
    tracing::warn!(%service, unconfirmed, ?names, "backends cannot be reached, but clients report answered calls: keeping them");
}

fn panic(service: &ServiceName, unhealthy: usize, health: &HealthTracker) {
    let Some(now) = health.health(service).filter(|_| unhealthy > 0) else {
        return tracing::info!(%service, "enough of a service is healthy again: panic is over");
    };
    let (names, why) = some_of(&now.unhealthy);
    tracing::warn!(%service, unhealthy, ?names, why, "too little of a service is healthy: panic, listing unhealthy backends too");
}

/// Returns the addresses of a few backends, and what the first of them answers.
fn some_of(all: &BTreeMap<BackendAddr, HealthAnswer>) -> (Vec<String>, &'static str) {
    let names = all.keys().take(NAMES_MAX).map(ToString::to_string).collect();
    (names, all.values().next().map_or("", |answer| answer.as_str()))
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
