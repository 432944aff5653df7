//! Which cells the clients of each large service use, and which backends keys use (`keys.rs`).
//!
//! In: streams of all protocols that join and leave, and their reports. Out: the subset of each
//! stream, and the services whose clients must get other cells or backends. The state belongs to this replica. A stream of
//! a service without cells costs nothing here.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::Service;
use crate::clock;
use crate::model::{Class, ServiceName, Subset};
use crate::policy::cells::{Placement, Run};
use crate::policy::hash::{hash, pair};
use crate::policy::subset;
use crate::telemetry::CellClients;

use keys::Keys;
use rates::ClientRates;

mod keys;
mod rates;

pub(crate) use keys::KeyMember;

/// The clients of all services with cells, and the keys of all services that bound them.
#[derive(Default)]
pub struct Placements {
    cells: Mutex<HashMap<ServiceName, ByZone>>,
    keys: Keys,
}

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
    rates: ClientRates,
    /// The next number for a client beyond [`NUMBERS`] of one address.
    next: u64,
    due: Instant,
    pause: Duration,
}

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

    /// Counts one more stream of a key, of a service that bounds what a backend gets of them.
    pub(crate) fn join_key(&self, service: &Service, class: &Class) -> KeyMember {
        self.keys.join(service, class)
    }

    /// Returns the backend to which a key was moved, by the hash of its id; `None` if it uses its
    /// first choice. `all` is the class of all keys that are bounded with it.
    pub(crate) fn key_backend(&self, service: &ServiceName, all: &Class, key: &str) -> Option<u64> {
        self.keys.backend(service, all, key)
    }

    /// Places clients and keys anew where it is time to. Returns the services of which some
    /// client gets other cells, or some key another backend.
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
        let moved = all.into_iter().filter(moves).map(|(service, _)| service);
        moved.chain(self.keys.rebalance(now)).collect()
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
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
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
        lock(&self.clients).rates.report(self.id, started, clock::now());
    }

    /// Forgets the client's calls, because it reports no more: it counts as the mean client.
    pub(crate) fn forget(&self) {
        lock(&self.clients).rates.forget(self.id, clock::now());
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
            rates: ClientRates::default(),
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
        let id = free.find(|&id| !self.rates.has(id)).unwrap_or_else(|| {
            self.next += 1;
            pair(identity, NUMBERS + self.next)
        });
        self.rates.join(id, now);
        self.placement.join(id, None, &self.weights);
        id
    }

    fn leave(&mut self, id: u64) {
        self.rates.leave(id);
        self.placement.leave(id, &self.weights);
    }

    /// Places the clients anew, if it is time to. Returns whether any gets other cells.
    fn rebalance(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.pause = LONGEST.min(2 * self.pause);
        self.due = now + self.pause;
        for (client, demand) in self.rates.demands(now) {
            self.placement.report(client, demand);
        }
        let before: Vec<(u64, Run)> = self.placement.runs().collect();
        self.placement.rebalance(&self.weights);
        !self.placement.runs().eq(before)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So it gets the cells that it had.
    #[test]
    fn a_client_that_comes_back_is_the_same() {
        let now = clock::now();
        let mut clients = Clients::new(now);
        let (first, second) = (clients.join(0, now), clients.join(0, now));
        assert_ne!(second, first);
        clients.leave(first);
        assert_eq!(clients.join(0, now), first);
        // However many clients an address has, each counts.
        let more: Vec<_> = (0..2 * NUMBERS).map(|_| clients.join(0, now)).collect();
        let all: std::collections::BTreeSet<_> = more.iter().chain([&first, &second]).collect();
        assert_eq!(all.len(), more.len() + 2);
        let service = ServiceName::new("s").unwrap();
        let id = |text: &str| identity(&service, text.parse().unwrap());
        assert_eq!(id("::ffff:10.0.0.1"), id("10.0.0.1"));
        assert_ne!(id("10.0.0.2"), id("10.0.0.1"));
    }
}
