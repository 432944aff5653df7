//! Computes the value that a service would have with other settings.
//!
//! In: a service as it is, the settings, the table of zones, the held backends, the time.
//! Out: a [`Preview`]: the value that follows when the settings are applied, and what only
//! the time after that can tell. Pure. It changes nothing and follows nothing.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::facts::cell_count::Span;
use crate::facts::panic::{self, Panic};
use crate::model::Endpoint;
use crate::settings::{LoadKind, ServiceSettings, ShedMode, ZoneTable};

use super::{
    CellSizes, Health, Liveness, Newcomers, Service, ServiceSnapshot, Zones, cell_tracker,
    load_tracker,
};

/// Settings that may be applied, and the moment at which they would be.
#[derive(Debug)]
pub struct Proposal<'a> {
    /// The settings of the service.
    pub settings: Arc<ServiceSettings>,
    /// The zones of clients' addresses.
    pub zones: &'a Arc<ZoneTable>,
    /// The held and guarded backends of all services.
    pub liveness: &'a Liveness,
    /// Whether held backends may leave now: they do not while the registry is stale.
    pub may_expire: bool,
    /// The time of timers.
    pub now: Instant,
    /// The time since 1970.
    pub wall: Duration,
}

/// A service with other settings.
#[derive(Debug)]
pub struct Preview {
    /// The service; `None`: it would have no backend.
    pub service: Option<Service>,
    /// What is unknown until the settings are applied.
    pub unknown: Vec<Unknown>,
}

/// A fact that is unknown until settings are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The health of backends, by checks that begin then.
    Health,
    /// Which backends join after that, and start slowly.
    Joining,
    /// The shares of backends that start now, by another window.
    Starting,
    /// The load of backends, by reports that begin then.
    Load,
    /// How many calls the clients of each zone make.
    Demand,
    /// The cell of each client.
    Cells,
    /// Whether the service is overloaded.
    Overload,
    /// Which guarded backends leave.
    Guard,
    /// Which backends without a lease refuse connections.
    Unleased,
}

/// Returns the service with the proposed settings.
#[must_use]
pub fn preview(service: &Service, proposal: &Proposal<'_>) -> Preview {
    let (old, new) = (&service.settings, &proposal.settings);
    let mut unknown = Vec::new();
    let snapshot = unexpired(service, proposal);
    let health = health(service, &snapshot.endpoints, new, &mut unknown);
    let newcomers = newcomers(service, new, &mut unknown);
    let goes_on = load_tracker::are_asked_alike(old, new);
    let zones = Zones::next(service.facts.zones.as_ref(), new, proposal.zones);
    let cells = cells(service, &snapshot.endpoints, zones.as_deref(), proposal);
    let sheds = new.shed.mode != ShedMode::Off;
    let guarded = proposal.liveness.guarded.contains(&service.name);
    let probing = |settings: &ServiceSettings| !settings.probe_unleased.is_zero();
    let notes = [
        (new.load.kind != LoadKind::Off && !goes_on, Unknown::Load),
        (zones.is_some() && service.facts.zones.is_none(), Unknown::Demand),
        (cells.is_some() && cells != service.facts.cells, Unknown::Cells),
        (sheds && (old.shed != new.shed || !goes_on), Unknown::Overload),
        (guarded && old.guard != new.guard, Unknown::Guard),
        (probing(old) != probing(new), Unknown::Unleased),
    ];
    unknown.extend(notes.into_iter().filter_map(|(is, note)| is.then_some(note)));
    let mut facts = service.facts.clone();
    facts.newcomers = newcomers;
    facts.health = health;
    facts.load = facts.load.filter(|_| goes_on);
    facts.ramp_share = new.split.ramp().map(|ramp| ramp.share(millis(proposal.wall)));
    facts.zones = zones;
    facts.cells = cells;
    facts.overload_shed = facts.overload_shed.filter(|_| sheds);
    let service = (!snapshot.endpoints.is_empty()).then(|| {
        let new = Service::new(service.version, snapshot, new.clone());
        new.with_marks(service.marks.clone()).with_facts(facts)
    });
    Preview { service, unknown }
}

/// Returns the backends without those whose `keep-lost` would be over at once.
fn unexpired(service: &Service, proposal: &Proposal<'_>) -> Arc<ServiceSnapshot> {
    let held = proposal.liveness.held.get(&service.name).filter(|_| proposal.may_expire);
    let keep = proposal.settings.keep_lost;
    let is_over = |one: &Endpoint| {
        let since = held.and_then(|held| held.get(&one.addr)).map(|held| held.since);
        since.is_some_and(|since| proposal.now.saturating_duration_since(since) >= keep)
    };
    if held.is_none() || !service.endpoints.iter().any(is_over) {
        return service.snapshot.clone();
    }
    let left = service.endpoints.iter().filter(|one| !is_over(one)).cloned().collect();
    Arc::new(ServiceSnapshot::new(service.name.clone(), service.revision, left))
}

/// Returns the health by the answers so far, and whether the service would be in panic once
/// that has settled.
fn health(
    service: &Service,
    endpoints: &[Endpoint],
    settings: &ServiceSettings,
    unknown: &mut Vec<Unknown>,
) -> Option<Arc<Health>> {
    let check = settings.health.check()?;
    if service.settings.health.check() != Some(check) {
        unknown.push(Unknown::Health);
        return None;
    }
    let now = service.facts.health.as_deref()?;
    let weight = |one: &Endpoint| match one.takes_calls() && service.marks.drain(one).is_none() {
        true => u64::from(one.weight.0),
        false => 0,
    };
    let total = endpoints.iter().map(weight).sum::<u64>();
    let healthy = endpoints.iter().filter(|one| !now.unhealthy.contains_key(&one.addr));
    let healthy = healthy.map(weight).sum::<u64>();
    let interval = millis(settings.health.interval);
    let rules = panic::Rules { percent: settings.health.panic, interval };
    let mut panic = Panic::default();
    if now.panic {
        // As it is now: too little was healthy.
        panic.update(0, 1, rules, 0);
    }
    panic.update(healthy, total, rules, 0);
    let panic = panic.update(healthy, total, rules, u64::MAX);
    Some(Arc::new(Health { panic, ..now.clone() }))
}

/// Returns the backends that would start or be delayed.
fn newcomers(
    service: &Service,
    settings: &ServiceSettings,
    unknown: &mut Vec<Unknown>,
) -> Option<Arc<Newcomers>> {
    let old = &service.settings;
    let now = service.facts.newcomers.as_deref().cloned().unwrap_or_default();
    let (slow, delays) = (!settings.slow_start.is_zero(), !settings.flap_delay.is_zero());
    let starts = !now.starting.is_empty() || (!delays && !now.delayed.is_empty());
    if slow && settings.slow_start != old.slow_start {
        unknown.push(if starts { Unknown::Starting } else { Unknown::Joining });
    } else if slow && !delays && !now.delayed.is_empty() {
        unknown.push(Unknown::Starting);
    }
    let starting = if slow { now.starting } else { Default::default() };
    let delayed = if delays { now.delayed } else { Default::default() };
    let new = Newcomers { starting, delayed };
    (new != Newcomers::default()).then(|| Arc::new(new))
}

/// Returns the sizes of the cells. They stay as long as nothing that divides the service
/// changes.
fn cells(
    service: &Service,
    endpoints: &[Endpoint],
    zones: Option<&Zones>,
    proposal: &Proposal<'_>,
) -> Option<Arc<CellSizes>> {
    let (old, new) = (&service.settings, &proposal.settings);
    let same = old.subset == new.subset
        && old.zones == new.zones
        && old.split.select == new.split.select
        && service.facts.zones.as_deref().map(|zones| &zones.table) == zones.map(|one| &one.table)
        && service.endpoints.len() == endpoints.len();
    match same {
        true => service.facts.cells.clone(),
        false => cell_tracker::divide(endpoints, new, zones, Span::of(proposal.wall).0),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Health => {
                "health: checks begin anew, and every backend counts as healthy until they fail"
            }
            Self::Joining => "slow-start: it begins with the backends that join from then on",
            Self::Starting => {
                "slow-start: backends that start now get the shares of the new window"
            }
            Self::Load => "load: backends have their registered shares until reports come",
            Self::Demand => {
                "zones: how many calls the clients of each zone make is measured from then on"
            }
            Self::Cells => {
                "subset: each client gets a part of the backends, and which is decided then"
            }
            Self::Overload => "shed: whether the service is overloaded is measured from then on",
            Self::Guard => "guard: backends that do not answer may leave or stay by the new guard",
            Self::Unleased => {
                "probe-unleased: which backends without a lease answer is found from then on"
            }
        })
    }
}

#[cfg(test)]
mod tests;
