//! Follows the backends that joined, or came and went, a short time ago.
//!
//! In: a service's endpoints before and after a change, its settings, the time. Out: its
//! [`Newcomers`], and when they change next without an input. Pure. A service whose
//! settings ask for neither slow start nor a delay costs nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::facts::factor::Factor;
use crate::facts::flapping::{self, Flaps};
use crate::facts::slow_start::{SlowStart, Starter};
use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::settings::ServiceSettings;

use super::due_times::DueTimes;

/// The backends of a service that are starting or delayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Newcomers {
    /// The factor of the weight of each backend in slow start. All are below 1.
    pub starting: BTreeMap<BackendAddr, Factor>,
    /// The backends that are not listed, because they came and went too often, and until
    /// when.
    pub delayed: BTreeMap<BackendAddr, Instant>,
}

/// The newcomers of all services, followed by the catalog's writer.
#[derive(Debug)]
pub(super) struct NewcomerTracker {
    services: BTreeMap<ServiceName, Recent>,
    /// When the newcomers of each service change next, so that a turn of the catalog's task
    /// costs the same however many services have newcomers.
    due: DueTimes<u64>,
    wall: fn() -> Duration,
    /// The wall clock at a moment of the monotonic clock. It is read again only while no
    /// newcomer is followed, so setting the clock moves no step.
    read: Option<(Instant, u64)>,
}

/// A service with newcomers. Times are in milliseconds of the wall clock.
#[derive(Debug, Default)]
struct Recent {
    /// When each starting backend joined.
    joined: BTreeMap<BackendAddr, u64>,
    /// When backends left and returned.
    flaps: BTreeMap<BackendAddr, Flaps>,
    newcomers: Newcomers,
    /// When the newcomers change next. The tracker has it too.
    due: Option<u64>,
}

/// How a service changed.
pub(super) struct Change<'a> {
    pub(super) before: &'a [Endpoint],
    pub(super) after: &'a [Endpoint],
    /// Whether new endpoints count as joining. They do not when the registry is read for the
    /// first time: then they count as listed before.
    pub(super) join: bool,
}

/// How often remembered removals that no longer count are dropped.
const FORGET_EVERY: u64 = 60_000;

impl NewcomerTracker {
    /// Makes a tracker. `wall` returns the time since 1970, at whose multiples all replicas
    /// take their steps.
    pub(super) fn new(wall: fn() -> Duration) -> Self {
        Self { services: BTreeMap::new(), due: DueTimes::default(), wall, read: None }
    }

    /// Returns whether [`Self::update`] must be called for a service.
    pub(super) fn follows(&self, service: &ServiceName, settings: &ServiceSettings) -> bool {
        wants(settings) || self.services.contains_key(service)
    }

    /// Lets backends of a service start slowly although they were registered all the time,
    /// from the next [`Self::update`] on.
    pub(super) fn rejoin(
        &mut self,
        service: &ServiceName,
        backends: impl IntoIterator<Item = BackendAddr>,
        now: Instant,
    ) {
        for addr in backends {
            let millis = self.millis(now);
            let recent = self.services.entry(service.clone()).or_default();
            recent.joined.insert(addr, millis);
        }
    }

    /// Applies a change of a service. Returns its newcomers; `None` if it has none.
    pub(super) fn update(
        &mut self,
        service: &ServiceName,
        change: &Change<'_>,
        settings: &ServiceSettings,
        now: Instant,
    ) -> Option<Arc<Newcomers>> {
        if let Some(due) = self.services.get(service).and_then(|recent| recent.due) {
            self.due.remove(service, due);
        }
        if !wants(settings) {
            self.services.remove(service);
            return None;
        }
        let millis = self.millis(now);
        let recent = self.services.entry(service.clone()).or_default();
        recent.take_in(change, settings, millis);
        recent.renew(change.after, settings, millis, now);
        let newcomers =
            (recent.newcomers != Newcomers::default()).then(|| Arc::new(recent.newcomers.clone()));
        if let Some(due) = recent.due {
            self.due.add(service, due);
        }
        if recent.is_over() {
            self.services.remove(service);
        }
        newcomers
    }

    /// Returns the services whose newcomers change at this moment.
    pub(super) fn ready(&mut self, now: Instant) -> BTreeSet<ServiceName> {
        let Some(read) = self.read else { return BTreeSet::new() };
        let now = at(read, now);
        // Each service is returned once, because a large one may then have to wait.
        iter::from_fn(|| self.due.pop(now)).collect()
    }

    /// Returns every service that is followed.
    pub(super) fn services(&self) -> BTreeSet<ServiceName> {
        self.services.keys().cloned().collect()
    }

    /// Returns when the newcomers of any service change next.
    pub(super) fn due(&self) -> Option<Instant> {
        let (instant, begun) = self.read?;
        let due = self.due.first()?;
        Some(instant + Duration::from_millis(due.saturating_sub(begun)))
    }

    fn millis(&mut self, now: Instant) -> u64 {
        if self.services.is_empty() {
            self.read = None;
        }
        let wall = self.wall;
        let read = self.read.get_or_insert_with(|| (now, millis(wall())));
        at(*read, now)
    }
}

impl Recent {
    fn take_in(&mut self, change: &Change<'_>, settings: &ServiceSettings, now: u64) {
        let (left, joined) = differences(change.before, change.after);
        for addr in &left {
            self.joined.remove(addr);
            self.flaps.entry(*addr).or_default().left(now);
        }
        for addr in joined.iter().filter(|_| change.join) {
            if let Some(flaps) = self.flaps.get_mut(addr) {
                flaps.returned(now, millis(settings.flap_delay));
            }
            self.joined.insert(*addr, now);
        }
        if settings.flap_delay.is_zero() {
            self.flaps.clear();
            self.joined.values_mut().for_each(|joined| *joined = now.min(*joined));
        }
    }

    /// Computes the newcomers at this moment, and the time of their next change.
    fn renew(&mut self, all: &[Endpoint], settings: &ServiceSettings, millis: u64, now: Instant) {
        self.flaps.retain(|_, flaps| !flaps.is_forgotten(millis));
        let mut due = (!self.flaps.is_empty()).then_some(millis + FORGET_EVERY);
        let delayed = self.delay(all, millis, now);
        for until in delayed.keys().filter_map(|addr| self.flaps.get(addr)?.until(millis)) {
            due = due.into_iter().chain([until]).min();
        }
        let mut starting = BTreeMap::new();
        if let Some(slow) = SlowStart::new(self::millis(settings.slow_start)) {
            self.joined.retain(|_, joined| slow.factor(*joined, millis) != Factor::ONE);
            if !self.joined.is_empty() {
                let listed = all.iter().filter(|one| !delayed.contains_key(&one.addr));
                let listed: Vec<_> = listed.collect();
                let joined = |one: &Endpoint| self.joined.get(&one.addr).copied();
                let starters: Vec<_> = listed
                    .iter()
                    .map(|one| Starter { weight: weight(one), joined: joined(one) })
                    .collect();
                let factors = listed.iter().zip(slow.factors(&starters, millis));
                let below = factors.filter(|(_, factor)| *factor != Factor::ONE);
                starting.extend(below.map(|(one, factor)| (one.addr, factor)));
                due = due.into_iter().chain(slow.next(&starters, millis)).min();
            }
        } else {
            self.joined.clear();
        }
        self.newcomers = Newcomers { starting, delayed };
        self.due = due;
    }

    /// Returns the delayed backends. A backend that was once listed stays listed, even if
    /// fewer backends flap later.
    fn delay(
        &mut self,
        all: &[Endpoint],
        millis: u64,
        now: Instant,
    ) -> BTreeMap<BackendAddr, Instant> {
        let mut delayed = BTreeMap::new();
        if self.flaps.is_empty() {
            return delayed;
        }
        let until: Vec<_> = all
            .iter()
            .map(|one| self.flaps.get(&one.addr).and_then(|flaps| flaps.until(millis)))
            .collect();
        let wish: Vec<_> =
            all.iter().zip(&until).map(|(one, until)| (weight(one), until.is_some())).collect();
        let granted = flapping::delayed(&wish);
        for ((one, until), granted) in all.iter().zip(until).zip(granted) {
            let Some(until) = until else { continue };
            if granted {
                // Its slow start begins when it is listed.
                self.joined.insert(one.addr, until);
                // The end is the same value while nothing changes.
                let end = self.newcomers.delayed.get(&one.addr).copied();
                let end = end.unwrap_or(now + Duration::from_millis(until - millis));
                delayed.insert(one.addr, end);
            } else {
                self.flaps.entry(one.addr).or_default().list();
                self.joined.entry(one.addr).and_modify(|joined| *joined = millis.min(*joined));
            }
        }
        delayed
    }

    /// Returns whether no newcomer and no removal is followed.
    fn is_over(&self) -> bool {
        self.joined.is_empty() && self.flaps.is_empty()
    }
}

/// Returns the addresses that only `before` has, and those that only `after` has. Both are
/// sorted by id and address, so equal parts are only walked.
fn differences(
    before: &[Endpoint],
    after: &[Endpoint],
) -> (HashSet<BackendAddr>, HashSet<BackendAddr>) {
    let (mut left, mut joined) = (HashSet::new(), HashSet::new());
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    let key = |one: &&Endpoint| (one.id.clone(), one.addr);
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a.id == b.id && a.addr == b.addr => {
                old.next();
                new.next();
            }
            (Some(a), b) if b.is_none_or(|b| key(a) < key(b)) => {
                left.extend(old.next().map(|one| one.addr));
            }
            _ => joined.extend(new.next().map(|one| one.addr)),
        }
    }
    // An address under another name is the same backend.
    let both: Vec<_> = left.intersection(&joined).copied().collect();
    for addr in both {
        left.remove(&addr);
        joined.remove(&addr);
    }
    (left, joined)
}

/// Returns the weight with which a backend counts: none if it takes no calls.
fn weight(endpoint: &Endpoint) -> u32 {
    if endpoint.takes_calls() { endpoint.weight.0 } else { 0 }
}

fn wants(settings: &ServiceSettings) -> bool {
    !settings.slow_start.is_zero() || !settings.flap_delay.is_zero()
}

fn at((instant, begun): (Instant, u64), now: Instant) -> u64 {
    begun + millis(now.saturating_duration_since(instant))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
