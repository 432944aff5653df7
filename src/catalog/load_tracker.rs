//! Follows the load that backends report, and decides when it changes their shares.
//!
//! In: services with their settings, reports of backends, the time. Out: the
//! [`LoadFactors`] of a service, the backends to ask, and when something changes next
//! without an input. Pure. A service whose settings do not ask for it costs nothing, and a
//! report costs a few look-ups. Shares are computed once an interval, and published only if
//! they differ enough (`facts/capacity.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::facts::capacity::{self, Estimate, Member, Report};
use crate::facts::factor::Factor;
use crate::facts::overload::Capacity;
use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::settings::{HealthTls, LoadKind, LoadSettings, ServiceSettings};

use super::due_times::DueTimes;
use super::load::{LoadFactors, LoadTarget, LoadTargets};
use super::target_users::TargetUsers;

/// The load of all services, followed by the catalog's writer.
#[derive(Debug, Default)]
pub(super) struct LoadTracker {
    services: BTreeMap<ServiceName, Followed>,
    /// The services that each backend reports for.
    users: TargetUsers<LoadTarget>,
    targets: LoadTargets,
    targets_changed: bool,
    /// How many backends of each service do not report, where there are any.
    silent: BTreeMap<ServiceName, usize>,
    silent_changed: bool,
    /// When the shares of each service are computed next.
    due: DueTimes<Instant>,
    /// The moment at which milliseconds begin.
    begun: Option<Instant>,
}

/// A service whose backends report. Times are in milliseconds.
#[derive(Debug)]
struct Followed {
    /// Everything of a target but its address.
    target: LoadTarget,
    /// Whether backends are asked; if not, they register their load.
    asks: bool,
    backends: BTreeMap<BackendAddr, Backend>,
    /// When factors were published last.
    published: Option<u64>,
    /// How many backends did not report at the last computation.
    silent: usize,
    /// The usual time between two reports of a backend: servers may report more rarely than
    /// they are asked to.
    period: f64,
    due: Instant,
}

/// A backend that reports.
#[derive(Debug)]
struct Backend {
    /// Its weight without its load; 0: it takes no calls.
    weight: u32,
    estimate: Estimate,
    factor: Factor,
    /// The utilisation by its newest report, and when it came.
    newest: Option<(Instant, f64)>,
    /// Whether it did not report, or stopped, when it was asked last.
    silent: bool,
    /// The report that it registers.
    registered: Option<Report>,
}

/// The part of a new gap between two reports in the mean gap.
const GAP_GAIN: f64 = 0.2;
/// Older reports say nothing about the load now.
const FRESH: Duration = Duration::from_secs(180);
/// A longer gap between two reports, in milliseconds, is an outage and no rate.
const GAP_MAX: u64 = 180_000;

impl LoadTracker {
    /// Returns whether [`Self::update`] must be called for a service.
    pub(super) fn follows(&self, service: &ServiceName, settings: &ServiceSettings) -> bool {
        settings.load.kind != LoadKind::Off || self.services.contains_key(service)
    }

    /// Applies a change of a service or of its settings. Returns its factors; `None` if all
    /// are 1.
    pub(super) fn update(
        &mut self,
        service: &ServiceName,
        endpoints: &[Endpoint],
        settings: &ServiceSettings,
        now: Instant,
    ) -> Option<Arc<LoadFactors>> {
        let Some(first) = endpoints.first() else {
            self.unfollow(service);
            return None;
        };
        let target = target(settings, first.addr);
        let asks = settings.load.kind == LoadKind::Orca;
        let same = |one: &Followed| (Some(target_of(&one.target, first.addr)), one.asks);
        let former = self.services.get(service).map(same);
        if former.is_some_and(|former| former != (target.clone(), asks)) {
            self.unfollow(service);
        }
        let target = target?;
        let millis = self.millis(now);
        if !self.services.contains_key(service) {
            let due = now + target.interval;
            self.due.add(service, due);
            let followed = Followed {
                period: target.interval.as_millis() as f64,
                target: target.clone(),
                asks,
                backends: BTreeMap::new(),
                published: None,
                silent: 0,
                due,
            };
            self.services.insert(service.clone(), followed);
        }
        let followed = self.services.get_mut(service)?;
        let mut former = mem::take(&mut followed.backends);
        let mut joined = Vec::new();
        for endpoint in endpoints {
            let weight = if endpoint.takes_calls() { endpoint.weight.0 } else { 0 };
            let known = former.remove(&endpoint.addr);
            let known = known.unwrap_or_else(|| {
                joined.push(endpoint.addr);
                Backend::new(weight, millis)
            });
            let registered = registered(endpoint).filter(|_| !asks);
            followed.backends.insert(endpoint.addr, Backend { weight, registered, ..known });
        }
        let factors = followed.factors();
        if asks {
            joined.into_iter().for_each(|addr| self.want(service, target_of(&target, addr)));
        }
        former.into_keys().for_each(|addr| self.unwant(service, &target_of(&target, addr)));
        factors
    }

    /// Applies the report of a backend. It changes no share before the next computation.
    pub(super) fn reported(&mut self, target: &LoadTarget, report: Report, at: Instant) {
        let now = self.millis(at);
        for service in self.users.of(target) {
            let Some(followed) = self.services.get_mut(service) else { continue };
            let Some(backend) = followed.backends.get_mut(&target.addr) else { continue };
            if let Some(last) = backend.estimate.reported()
                && now.saturating_sub(last) < GAP_MAX
            {
                let gap = now.saturating_sub(last) as f64;
                followed.period += GAP_GAIN * (gap - followed.period);
            }
            backend.estimate.add(report, 0.0, now);
            backend.newest = Some((at, report.utilisation));
            backend.silent = false;
        }
    }

    /// Notes that a backend did not report, or stopped.
    pub(super) fn failed(&mut self, target: &LoadTarget) {
        for service in self.users.of(target) {
            let followed = self.services.get_mut(service);
            if let Some(backend) = followed.and_then(|one| one.backends.get_mut(&target.addr)) {
                backend.silent = true;
            }
        }
    }

    /// Returns the capacity of a service's backends, by their estimates; `None` if backends of
    /// less than half of the weight report.
    pub(super) fn capacity(&self, service: &ServiceName, now: Instant) -> Option<Capacity> {
        let all = self.services.get(service)?.backends.values().filter(|one| one.weight > 0);
        let weight: f64 = all.clone().map(|one| f64::from(one.weight)).sum();
        let mut known = Capacity::default();
        let (mut backends, mut newest) = (0.0, None);
        for one in all {
            let (Some(calls), Some((at, utilisation))) = (one.estimate.capacity(), one.newest)
            else {
                continue;
            };
            if now.saturating_duration_since(at) > FRESH || !utilisation.is_finite() {
                continue;
            }
            known.calls += calls;
            known.served += one.estimate.calls();
            known.weight += f64::from(one.weight);
            known.utilisation += utilisation;
            backends += 1.0;
            newest = newest.max(Some(at));
        }
        let age = now.saturating_duration_since(newest?).as_millis();
        if 2.0 * known.weight < weight {
            return None;
        }
        // Backends that do not report count as the others.
        let scale = weight / known.weight;
        Some(Capacity {
            calls: known.calls * scale,
            weight,
            served: known.served * scale,
            utilisation: known.utilisation / backends,
            age: u64::try_from(age).unwrap_or(u64::MAX),
        })
    }

    /// Computes the shares that are due. Returns the services that must be published again.
    pub(super) fn ready(&mut self, now: Instant) -> BTreeSet<ServiceName> {
        let millis = self.millis(now);
        let mut changed = BTreeSet::new();
        while let Some(service) = self.due.pop(now) {
            let Some(followed) = self.services.get_mut(&service) else { continue };
            followed.due = now + followed.target.interval;
            self.due.add(&service, followed.due);
            let silent = followed.backends.values().filter(|one| one.silent).count();
            if mem::replace(&mut followed.silent, silent) != silent {
                self.silent.insert(service.clone(), silent);
                self.silent_changed = true;
            }
            followed.read_registered(now, millis);
            if followed.compute(millis) {
                changed.insert(service);
            }
        }
        changed
    }

    /// Returns when the shares of any service are computed next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first()
    }

    /// Returns every service that is followed.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Returns the backends to ask, if they changed since the last call.
    pub(super) fn take_targets(&mut self) -> Option<LoadTargets> {
        mem::take(&mut self.targets_changed).then(|| self.targets.clone())
    }

    /// Returns how many backends of each service do not report, if that changed since the
    /// last call. A service whose backends all report again comes once more, with 0.
    pub(super) fn take_silent(&mut self) -> Option<BTreeMap<ServiceName, usize>> {
        if !mem::take(&mut self.silent_changed) {
            return None;
        }
        let all = self.silent.clone();
        self.silent.retain(|_, silent| *silent > 0);
        Some(all)
    }

    fn unfollow(&mut self, service: &ServiceName) {
        let Some(followed) = self.services.remove(service) else { return };
        if followed.silent > 0 {
            self.silent.insert(service.clone(), 0);
            self.silent_changed = true;
        }
        self.due.remove(service, followed.due);
        for addr in followed.backends.into_keys() {
            self.unwant(service, &target_of(&followed.target, addr));
        }
    }

    fn want(&mut self, service: &ServiceName, target: LoadTarget) {
        if self.users.add(&target, service) {
            self.targets.insert(target);
            self.targets_changed = true;
        }
    }

    fn unwant(&mut self, service: &ServiceName, target: &LoadTarget) {
        if self.users.remove(target, service) {
            self.targets.remove(target);
            self.targets_changed = true;
        }
    }

    fn millis(&mut self, now: Instant) -> u64 {
        let begun = *self.begun.get_or_insert(now);
        let passed = now.saturating_duration_since(begun).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

impl Backend {
    /// Makes a backend that joins at this time, in milliseconds.
    fn new(weight: u32, now: u64) -> Self {
        Self {
            weight,
            estimate: Estimate::new(now),
            factor: Factor::ONE,
            newest: None,
            silent: false,
            registered: None,
        }
    }
}

impl Followed {
    /// Adds the reports that backends register. A report counts for as long as it is
    /// registered.
    fn read_registered(&mut self, now: Instant, millis: u64) {
        for backend in self.backends.values_mut() {
            let Some(report) = backend.registered else { continue };
            backend.estimate.add(report, 0.0, millis);
            backend.newest = Some((now, report.utilisation));
        }
    }

    /// Computes the factors. Returns whether they are to be published.
    fn compute(&mut self, now: u64) -> bool {
        let interval = self.target.interval.as_millis() as f64;
        let period = self.period.max(interval) as u64;
        let takes_calls = |(_, backend): &(_, &mut Backend)| backend.weight > 0;
        let mut backends: Vec<_> = self.backends.iter_mut().filter(takes_calls).collect();
        let members: Vec<_> = backends
            .iter()
            .map(|(_, backend)| Member {
                weight: backend.weight,
                published: backend.factor,
                estimate: Some(&backend.estimate),
            })
            .collect();
        let Some(factors) = capacity::publish(&members, self.published, period, now) else {
            return false;
        };
        self.published = Some(now);
        for ((_, backend), factor) in backends.iter_mut().zip(factors) {
            backend.factor = factor;
        }
        true
    }

    fn factors(&self) -> Option<Arc<LoadFactors>> {
        let changed = self.backends.iter().filter(|(_, backend)| backend.factor != Factor::ONE);
        let factors: BTreeMap<_, _> = changed.map(|(addr, one)| (*addr, one.factor)).collect();
        (!factors.is_empty()).then(|| Arc::new(LoadFactors(factors)))
    }
}

/// Returns the target that the settings ask for.
fn target(settings: &ServiceSettings, addr: BackendAddr) -> Option<LoadTarget> {
    let health = &settings.health;
    let tls = (health.tls == HealthTls::On).then(|| health.tls_of_check());
    match settings.load.kind {
        LoadKind::Off => None,
        LoadKind::Orca | LoadKind::Metadata => {
            Some(LoadTarget { addr, interval: settings.load.interval, tls })
        }
    }
}

/// Returns whether backends are asked for their load by other settings as they are by these, so
/// that what is known of it stays.
pub(super) fn are_asked_alike(one: &ServiceSettings, other: &ServiceSettings) -> bool {
    let ask = |settings: &ServiceSettings| {
        let LoadSettings { kind, interval } = settings.load;
        let tls = &settings.health.tls;
        let tls = (*tls == HealthTls::On).then(|| settings.health.tls_of_check());
        (kind != LoadKind::Off).then_some((kind, interval, tls))
    };
    ask(one) == ask(other)
}

/// Returns the load that a backend registers; `None` without calls or without utilisation.
fn registered(endpoint: &Endpoint) -> Option<Report> {
    let number = |key: &str| endpoint.meta.get(key)?.parse::<f64>().ok();
    let counts = |number: &f64| number.is_finite() && *number > 0.0;
    let (calls, utilisation) = (number("rps").filter(counts)?, number("utilization"));
    Some(Report { calls, utilisation: utilisation.filter(counts)? })
}

/// Returns the same target for another backend.
fn target_of(target: &LoadTarget, addr: BackendAddr) -> LoadTarget {
    LoadTarget { addr, ..target.clone() }
}

#[cfg(test)]
mod tests;
