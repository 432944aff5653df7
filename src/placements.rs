//! Which cells the clients of each large service use.
//!
//! In: streams of all protocols that join and leave, and their reports. Out: the subset of each
//! stream, and the services whose clients must get other cells. The state belongs to this replica. A stream of
//! a service without cells costs nothing here.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::Service;
use crate::clock;
use crate::facts::demand::per_second;
use crate::model::{ServiceName, Subset};
use crate::policy::cells::{Placement, Run};
use crate::policy::hash::{hash, pair};
use crate::policy::subset;
use crate::telemetry::CellClients;

/// The clients of all services with cells.
#[derive(Default)]
pub struct Placements(Mutex<HashMap<ServiceName, ByZone>>);

/// One stream's place. It ends when this is dropped.
pub(crate) struct CellMember {
    service: ServiceName,
    zone: Zone,
    clients: Arc<Mutex<Clients>>,
    id: u64,
}

type Zone = Option<Arc<str>>;
type ByZone = BTreeMap<Zone, Arc<Mutex<Clients>>>;

/// The clients of a service in one zone.
struct Clients {
    /// The value of the service that `weights` are of.
    version: u64,
    /// The listed weight of each cell.
    weights: Vec<u64>,
    placement: Placement,
    rates: BTreeMap<u64, Rate>,
    /// The next number for a client beyond [`NUMBERS`] of one address.
    next: u64,
    due: Instant,
    pause: Duration,
}

/// How many calls a client starts per second, smoothed.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// `None` before its first report.
    rate: Option<f64>,
    /// When it reported last, or joined.
    since: Instant,
}

/// The time over which rates are smoothed.
const SMOOTHED_OVER: Duration = Duration::from_secs(60);
/// A client that has been silent for longer makes no calls: C-core reports no second time that
/// there are none.
const SILENT: Duration = Duration::from_secs(60);
/// The least demand of a client, as a part of the mean: an idle client has connections too.
const IDLE: f64 = 0.05;
/// The first time that clients are placed anew. Each further time comes twice as late.
const FIRST: Duration = Duration::from_secs(10);
/// The longest time until clients are placed anew.
const LONGEST: Duration = Duration::from_secs(60);
/// How many clients of one address keep their cells when they connect again.
const NUMBERS: u64 = 64;

impl Placements {
    /// Places one more client of a service with cells.
    pub(crate) fn join(
        &self,
        service: &Service,
        zone: Option<&Arc<str>>,
        client: IpAddr,
    ) -> CellMember {
        let (now, zone) = (clock::now(), zone.cloned());
        let mut services = self.lock();
        let zones = services.entry(service.name.clone()).or_default();
        let new = || Arc::new(Mutex::new(Clients::new(now)));
        let clients = zones.entry(zone.clone()).or_insert_with(new).clone();
        // The lock of all services is held, so that no other thread removes these clients.
        let id = {
            let mut clients = lock(&clients);
            clients.update(service, zone.as_ref());
            clients.join(identity(&service.name, client), now)
        };
        CellMember { service: service.name.clone(), zone, clients, id }
    }

    /// Places clients anew where it is time to. Returns the services of which some client
    /// gets other cells.
    pub(crate) fn rebalance(&self, now: Instant) -> Vec<ServiceName> {
        let mut services = self.lock();
        services.retain(|_, zones| {
            zones.retain(|_, clients| !lock(clients).rates.is_empty());
            !zones.is_empty()
        });
        let all: Vec<_> = services
            .iter()
            .map(|(service, zones)| (service.clone(), zones.values().cloned().collect::<Vec<_>>()))
            .collect();
        drop(services);
        let moves = |(_, zones): &(ServiceName, Vec<Arc<Mutex<Clients>>>)| {
            zones.iter().filter(|clients| lock(clients).rebalance(now)).count() > 0
        };
        all.into_iter().filter(moves).map(|(service, _)| service).collect()
    }

    /// Returns how the clients of a service are placed, by zone; empty if it has no cells.
    pub(crate) fn of(&self, service: &ServiceName) -> Vec<CellClients> {
        let services = self.lock();
        let zones = services.get(service).into_iter().flatten();
        let shown = |(zone, clients): (&Zone, &Arc<Mutex<Clients>>)| {
            let clients = lock(clients);
            let bits = clients.placement.bits();
            CellClients {
                zone: zone.clone(),
                cells: 1 << bits,
                clients: clients.rates.len(),
                wide: clients.placement.runs().filter(|one| one.1.level > 0).count(),
                hottest: clients.placement.hottest(&clients.weights),
            }
        };
        zones.map(shown).filter(|shown| shown.clients > 0).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceName, ByZone>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CellMember {
    /// Returns whether the stream counts for this zone of this service.
    pub(crate) fn is_of(&self, service: &ServiceName, zone: Option<&Arc<str>>) -> bool {
        self.service == *service && self.zone.as_ref() == zone
    }

    /// Returns the subset of the service's backends that the stream uses; `None`: all.
    pub(crate) fn subset(&self, service: &Service) -> Option<Subset> {
        let mut clients = lock(&self.clients);
        clients.update(service, self.zone.as_ref());
        clients.placement.run(self.id)?.subset(clients.placement.bits())
    }

    /// Counts the calls that the client has started since its last report.
    pub(crate) fn report(&self, started: u64) {
        lock(&self.clients).report(self.id, started, clock::now());
    }

    /// Forgets the client's calls, because it reports no more: it counts as the mean client.
    pub(crate) fn forget(&self) {
        lock(&self.clients).forget(self.id, clock::now());
    }
}

impl Drop for CellMember {
    fn drop(&mut self) {
        lock(&self.clients).leave(self.id);
    }
}

impl Clients {
    fn new(now: Instant) -> Self {
        Self {
            version: 0,
            weights: vec![0],
            placement: Placement::new(0),
            rates: BTreeMap::new(),
            next: 0,
            due: now + FIRST,
            pause: FIRST,
        }
    }

    /// Applies a newer value of the service.
    fn update(&mut self, service: &Service, zone: Option<&Arc<str>>) {
        if service.version <= self.version {
            return;
        }
        self.version = service.version;
        let Some(cells) = subset::cells(service) else { return };
        let (bits, weights) = cells.weights(zone);
        if bits != self.placement.bits() {
            self.placement.resize(bits, &weights);
        } else if weights != self.weights {
            self.placement.reweigh(&weights);
        }
        self.weights = weights;
    }

    fn join(&mut self, identity: u64, now: Instant) -> u64 {
        let mut free = (0..NUMBERS).map(|n| pair(identity, n));
        let id = free.find(|id| !self.rates.contains_key(id)).unwrap_or_else(|| {
            self.next += 1;
            pair(identity, NUMBERS + self.next)
        });
        self.rates.insert(id, Rate { rate: None, since: now });
        self.placement.join(id, None, &self.weights);
        id
    }

    fn leave(&mut self, id: u64) {
        self.rates.remove(&id);
        self.placement.leave(id, &self.weights);
    }

    fn report(&mut self, id: u64, started: u64, now: Instant) {
        let Some(client) = self.rates.get_mut(&id) else { return };
        let time = now.saturating_duration_since(client.since);
        let rate = per_second(started, time);
        let kept = (-time.as_secs_f64() / SMOOTHED_OVER.as_secs_f64()).exp();
        let smoothed = client.rate.map_or(rate, |old| old * kept + (1.0 - kept) * rate);
        *client = Rate { rate: Some(smoothed), since: now };
    }

    fn forget(&mut self, id: u64, now: Instant) {
        if let Some(client) = self.rates.get_mut(&id) {
            *client = Rate { rate: None, since: now };
        }
    }

    /// Places the clients anew, if it is time to. Returns whether any gets other cells.
    fn rebalance(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.pause = LONGEST.min(2 * self.pause);
        self.due = now + self.pause;
        self.measure(now);
        let before: Vec<(u64, Run)> = self.placement.runs().collect();
        self.placement.rebalance(&self.weights);
        !self.placement.runs().eq(before)
    }

    /// Tells the placement the demand of each client.
    fn measure(&mut self, now: Instant) {
        let rate = |client: &Rate| {
            let silent = now.saturating_duration_since(client.since).saturating_sub(SILENT);
            let kept = (-silent.as_secs_f64() / SMOOTHED_OVER.as_secs_f64()).exp();
            client.rate.map(|rate| rate * kept)
        };
        let rates: Vec<(u64, Option<f64>)> =
            self.rates.iter().map(|(&id, client)| (id, rate(client))).collect();
        let known: Vec<f64> = rates.iter().filter_map(|one| one.1).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        // If no client makes calls, clients count alike.
        let mean = if mean > 0.0 { mean } else { 1.0 };
        for (id, rate) in rates {
            self.placement.report(id, rate.unwrap_or(mean).max(IDLE * mean));
        }
    }
}

/// Returns what stays the same about a client when it connects again.
fn identity(service: &ServiceName, client: IpAddr) -> u64 {
    let address = match client.to_canonical() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    };
    pair(hash(service.as_str().as_bytes()), address)
}

fn lock(clients: &Mutex<Clients>) -> MutexGuard<'_, Clients> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}
