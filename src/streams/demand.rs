//! The demand of the clients of services with zones, and when it is worth new lists.
//!
//! In: streams that join and leave, and their reports. Out: the demand of each service by
//! zone, and the services whose demand may be published. A stream of a service without zones
//! costs nothing here. A report takes only the lock of its own zone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::facts::demand::{ClientRate, Demand, ZoneClients};
use crate::model::ServiceName;
use crate::telemetry::ZoneDemand;

/// The clients of all services with zones.
#[derive(Default)]
pub struct Demands(Mutex<HashMap<ServiceName, ServiceDemand>>);

/// One stream's part of the demand. It ends when this is dropped.
pub(crate) struct Member {
    service: ServiceName,
    zone: Option<Arc<str>>,
    clients: Arc<Mutex<ZoneClients>>,
    rate: ClientRate,
}

struct ServiceDemand {
    zones: BTreeMap<Option<Arc<str>>, Arc<Mutex<ZoneClients>>>,
    /// The zones at the last look.
    known: BTreeSet<Option<Arc<str>>>,
    due: Instant,
    pause: Duration,
}

/// The first look at the demand of a service, and of one whose clients are in other zones
/// than before. Each further look comes twice as late.
const FIRST: Duration = Duration::from_secs(1);
/// The longest time between two looks, which is that between two reports.
const LONGEST: Duration = Duration::from_secs(10);

impl Demands {
    /// Counts one more stream. Its client reports at this interval.
    pub(crate) fn join(
        &self,
        service: &ServiceName,
        zone: Option<&Arc<str>>,
        report_interval: Duration,
    ) -> Member {
        let (now, zone) = (clock::now(), zone.cloned());
        let mut services = self.lock();
        let zones =
            &mut services.entry(service.clone()).or_insert_with(|| ServiceDemand::new(now)).zones;
        let clients = zones
            .entry(zone.clone())
            .or_insert_with(|| Arc::new(Mutex::new(ZoneClients::new(report_interval, now))))
            .clone();
        let rate = lock(&clients).join(now);
        Member { service: service.clone(), zone, clients, rate }
    }

    /// Returns the demand of the services at which it is time to look.
    pub(crate) fn due(&self, now: Instant) -> Vec<(ServiceName, Demand)> {
        let mut services = self.lock();
        services.retain(|_, service| {
            service.zones.retain(|_, clients| lock(clients).clients() > 0);
            !service.zones.is_empty()
        });
        let due = services.iter_mut().filter_map(|(name, service)| {
            service.is_due(now).then(|| (name.clone(), service.demand(now)))
        });
        due.collect()
    }

    /// Returns the clients of a service by zone; `None` if there are none.
    pub(crate) fn of(&self, service: &ServiceName) -> Option<ZoneDemand> {
        let services = self.lock();
        let service = services.get(service)?;
        let clients = |(zone, clients): (&Option<Arc<str>>, &Arc<Mutex<ZoneClients>>)| {
            (zone.clone(), lock(clients).clients())
        };
        let clients = service.zones.iter().map(clients).filter(|one| one.1 > 0);
        let clients: Vec<_> = clients.collect();
        let demand = || service.demand(clock::now());
        (!clients.is_empty()).then(|| ZoneDemand { clients, demand: demand() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceName, ServiceDemand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServiceDemand {
    fn new(now: Instant) -> Self {
        Self { zones: BTreeMap::new(), known: BTreeSet::new(), due: now, pause: FIRST }
    }

    fn demand(&self, now: Instant) -> Demand {
        let zone = |(zone, clients): (&Option<Arc<str>>, &Arc<Mutex<ZoneClients>>)| {
            (zone.clone(), *lock(clients))
        };
        Demand::of(&self.zones.iter().map(zone).collect::<Vec<_>>(), now)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.known.len() != self.zones.len() || !self.zones.keys().eq(&self.known) {
            self.known = self.zones.keys().cloned().collect();
            (self.due, self.pause) = (now, FIRST);
        }
        let is_due = self.due <= now;
        if is_due {
            self.due = now + self.pause;
            self.pause = LONGEST.min(2 * self.pause);
        }
        is_due
    }
}

impl Member {
    /// Returns whether the stream counts for this zone of this service.
    pub(crate) fn is_of(&self, service: &ServiceName, zone: Option<&Arc<str>>) -> bool {
        self.service == *service && self.zone.as_ref() == zone
    }

    /// Counts the calls that the client has started since its last report.
    pub(crate) fn report(&mut self, started: u64) {
        lock(&self.clients).report(&mut self.rate, started, clock::now());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        lock(&self.clients).leave(self.rate, clock::now());
    }
}

fn lock(clients: &Mutex<ZoneClients>) -> MutexGuard<'_, ZoneClients> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_comes_later_each_time_until_clients_are_in_another_zone() {
        let demands = Demands::default();
        let service = ServiceName::new("hello").unwrap();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let join = |zone: &Arc<str>| demands.join(&service, Some(zone), Duration::from_secs(10));
        let start = clock::now() + FIRST;
        let looks = |from: u64, to: u64| -> Vec<u64> {
            let at = |second: &u64| start + Duration::from_secs(*second);
            (from..to).filter(|second| !demands.due(at(second)).is_empty()).collect()
        };
        let first = join(&a);
        assert!(first.is_of(&service, Some(&a)) && !first.is_of(&service, None));
        assert_eq!(looks(0, 50), [0, 1, 3, 7, 15, 25, 35, 45]);
        let second = join(&b);
        assert_eq!(looks(100, 110), [100, 101, 103, 107]);
        assert_eq!(demands.of(&service).unwrap().clients, [(Some(a.clone()), 1), (Some(b), 1)]);
        drop(first);
        assert_eq!(looks(110, 112), [110, 111]);
        assert_eq!(demands.due(start + Duration::from_secs(113))[0].1.zones.len(), 1);
        drop(second);
        assert_eq!(looks(120, 200), [0; 0]);
        assert_eq!(demands.of(&service), None);
    }
}
