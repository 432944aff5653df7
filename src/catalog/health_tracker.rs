//! Follows the health of backends, and which services are in panic.
//!
//! In: services with their settings, answers of health checks, the sums of what clients
//! report, the time. Out: the [`Health`] of a service, the backends to check, and when
//! something changes next without an input. Pure. A service whose settings ask for no
//! checks costs nothing. An answer that changes nothing costs a few look-ups, however many
//! backends there are.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::facts::reported::Reported;
use crate::load::ServiceCalls;
use crate::marks::ServiceMarks;
use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::settings::{HealthKind, ServiceSettings};

use super::due_times::DueTimes;
use super::health::{Health, HealthAnswer, HealthTarget, HealthTargets};

use super::target_users::TargetUsers;

mod followed;

use followed::{Followed, Time};

/// The health of all services, followed by the catalog's writer.
#[derive(Debug, Default)]
pub(super) struct HealthTracker {
    services: BTreeMap<ServiceName, Followed>,
    /// The services that each check is for.
    users: TargetUsers<HealthTarget>,
    targets: HealthTargets,
    targets_changed: bool,
    /// When the health of each service changes next, so that a turn of the catalog's task
    /// costs the same however many services are followed.
    due: DueTimes<Instant>,
    /// The services whose health changed since the last call of [`Self::take_changed`].
    changed: BTreeSet<ServiceName>,
    /// The moment at which milliseconds begin.
    begun: Option<Instant>,
}

impl HealthTracker {
    /// Returns whether [`Self::update`] must be called for a service.
    pub(super) fn follows(&self, service: &ServiceName, settings: &ServiceSettings) -> bool {
        settings.health.kind != HealthKind::Off || self.services.contains_key(service)
    }

    /// Applies a change of a service or of its settings or marks. Returns its health; `None`
    /// if every backend counts as healthy.
    pub(super) fn update(
        &mut self,
        service: &ServiceName,
        endpoints: &[Endpoint],
        marks: &ServiceMarks,
        settings: &Arc<ServiceSettings>,
        now: Instant,
    ) -> Option<Arc<Health>> {
        let check = settings.health.check().filter(|_| !endpoints.is_empty());
        let former = self.services.get(service).map(|followed| followed.check.clone());
        if former.is_some() && former.as_deref() != check.as_ref() {
            self.unfollow(service);
        }
        let check = check?;
        let now = Time { instant: now, millis: self.millis(now) };
        if !self.services.contains_key(service) {
            let followed = Followed::new(Arc::new(check), settings.clone(), now.millis);
            self.services.insert(service.clone(), followed);
        }
        let followed = self.services.get_mut(service)?;
        followed.settings = settings.clone();
        let addresses = endpoints.iter().map(|endpoint| endpoint.addr).collect();
        let before = mem::replace(&mut followed.addresses, addresses);
        let check = followed.check.clone();
        let target = |addr: &BackendAddr| HealthTarget { addr: *addr, check: check.clone() };
        let left: Vec<_> = before.difference(&followed.addresses).map(target).collect();
        let joined: Vec<_> = followed.addresses.difference(&before).map(target).collect();
        for target in &left {
            followed.forget(target.addr);
        }
        let old = followed.due;
        let changed = followed.decide(endpoints, marks, now);
        let (due, health) = (followed.due, followed.health.clone());
        left.iter().for_each(|target| self.unwant(service, target));
        joined.into_iter().for_each(|target| self.want(service, target));
        if old != due {
            if let Some(old) = old {
                self.due.remove(service, old);
            }
            if let Some(due) = due {
                self.due.add(service, due);
            }
        }
        if changed {
            self.changed.insert(service.clone());
        }
        self.note_question(service, now.millis);
        (health != Health::default()).then(|| Arc::new(health))
    }

    /// Applies the answer of a backend. Returns the services that must be published again.
    pub(super) fn answered(
        &mut self,
        target: &HealthTarget,
        answer: HealthAnswer,
        now: Instant,
    ) -> BTreeSet<ServiceName> {
        let now = self.millis(now);
        let mut affected = BTreeSet::new();
        let mut troubled = Vec::new();
        for service in self.users.of(target) {
            let Some(followed) = self.services.get_mut(service) else { continue };
            if answer.is_healthy() && !followed.is_troubled(target.addr) {
                continue;
            }
            if followed.record(target.addr, answer, now) {
                affected.insert(service.clone());
            }
            troubled.push(service.clone());
        }
        troubled.iter().for_each(|service| self.note_question(service, now));
        affected
    }

    /// Applies what the clients of services have reported since the start. Returns the
    /// services that must be published again.
    pub(super) fn reported(
        &mut self,
        reports: &[(ServiceName, ServiceCalls)],
        now: Instant,
    ) -> BTreeSet<ServiceName> {
        let now = self.millis(now);
        let mut affected = BTreeSet::new();
        for (service, calls) in reports {
            let Some(followed) = self.services.get_mut(service) else { continue };
            if followed.hear(calls, now) {
                affected.insert(service.clone());
            }
        }
        affected
    }

    /// Returns the backends of a service that were not listed for so long that they must
    /// start slowly, each once.
    pub(super) fn take_cold(&mut self, service: &ServiceName) -> BTreeSet<BackendAddr> {
        self.services.get_mut(service).map(|one| mem::take(&mut one.cold)).unwrap_or_default()
    }

    /// Returns the services whose health changes at this moment.
    pub(super) fn ready(&mut self, now: Instant) -> BTreeSet<ServiceName> {
        let ready: BTreeSet<_> = iter::from_fn(|| self.due.pop(now)).collect();
        for service in &ready {
            if let Some(followed) = self.services.get_mut(service) {
                followed.due = None;
            }
        }
        ready
    }

    /// Returns when the health of any service changes next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first()
    }

    /// Returns every service that is followed.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Returns the services with a backend that is not healthy.
    pub(super) fn unhealthy(&self) -> impl Iterator<Item = &ServiceName> {
        let some = |(_, followed): &(_, &Followed)| followed.health != Health::default();
        self.services.iter().filter(some).map(|(service, _)| service)
    }

    /// Returns the health of a service, if it is followed.
    pub(super) fn health(&self, service: &ServiceName) -> Option<&Health> {
        self.services.get(service).map(|followed| &followed.health)
    }

    /// Returns whether the health of a service changes no list.
    pub(super) fn is_observed(&self, service: &ServiceName) -> bool {
        let followed = self.services.get(service);
        followed.is_some_and(|one| one.settings.health.kind == HealthKind::Observe)
    }

    /// Returns the services whose health changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<ServiceName> {
        mem::take(&mut self.changed)
    }

    /// Returns the backends to check, if they changed since the last call.
    pub(super) fn take_targets(&mut self) -> Option<HealthTargets> {
        mem::take(&mut self.targets_changed).then(|| self.targets.clone())
    }

    fn unfollow(&mut self, service: &ServiceName) {
        let Some(followed) = self.services.remove(service) else { return };
        for addr in &followed.addresses {
            let target = HealthTarget { addr: *addr, check: followed.check.clone() };
            self.unwant(service, &target);
        }
        if let Some(due) = followed.due {
            self.due.remove(service, due);
        }
        self.targets_changed |= self.targets.in_question.remove(service).is_some();
        if followed.health != Health::default() {
            self.changed.insert(service.clone());
        }
    }

    fn want(&mut self, service: &ServiceName, target: HealthTarget) {
        if self.users.add(&target, service) {
            self.targets.all.insert(target);
            self.targets_changed = true;
        }
    }

    fn unwant(&mut self, service: &ServiceName, target: &HealthTarget) {
        if self.users.remove(target, service) {
            self.targets.all.remove(target);
            self.targets_changed = true;
        }
    }

    /// Notes whether the reports of a service's clients are needed.
    fn note_question(&mut self, service: &ServiceName, now: u64) {
        let Some(followed) = self.services.get_mut(service) else { return };
        let is_open = followed.is_in_question();
        let was_open = self.targets.in_question.contains(service);
        if is_open && !was_open {
            followed.reported = Reported::new(now);
            self.targets.in_question.insert(service.clone());
        } else if was_open && !is_open {
            self.targets.in_question.remove(service);
        }
        self.targets_changed |= is_open != was_open;
    }

    fn millis(&mut self, now: Instant) -> u64 {
        let begun = *self.begun.get_or_insert(now);
        millis(now.saturating_duration_since(begun))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
