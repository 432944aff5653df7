//! Which backend each key uses, where settings bound what one backend gets of the keys.
//!
//! In: streams with keys that join and leave, and their reports. Out: the backend of each key,
//! and the services of which some key moves. It has only keys of
//! open streams, however many clients invent. A stream of a service without such a bound costs
//! nothing here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::rates::ClientRates;
use super::{FIRST, LONGEST};
use crate::catalog::Service;
use crate::clock;
use crate::model::{Class, ServiceName};
use crate::policy::hash::hash;
use crate::policy::key_loads::KeyLoads;
use crate::policy::{candidates, keys_of};

/// The keys of all services, by what their names select besides.
#[derive(Default)]
pub(super) struct Keys(Mutex<BySelection>);

type BySelection = HashMap<(ServiceName, Class), Arc<Mutex<KeyClients>>>;

/// One stream of a key. It ends when this is dropped.
pub(crate) struct KeyMember {
    service: ServiceName,
    /// The class of all keys that are bounded together.
    all: Class,
    key: u64,
    number: u64,
    clients: Arc<Mutex<KeyClients>>,
}

/// The streams of the keys that are bounded together.
struct KeyClients {
    /// The value of the service whose backends `loads` has.
    version: u64,
    loads: KeyLoads,
    rates: ClientRates,
    /// The key of each stream, and its part of the key's load.
    streams: BTreeMap<u64, (u64, f64)>,
    next: u64,
    due: Instant,
    pause: Duration,
}

impl Keys {
    pub(super) fn join(&self, service: &Service, class: &Class) -> KeyMember {
        let (now, all) = (clock::now(), keys_of(service, class));
        let mut services = self.lock();
        let new = || Arc::new(Mutex::new(KeyClients::new(now)));
        let at = (service.name.clone(), all.clone());
        let clients = services.entry(at).or_insert_with(new).clone();
        let key = hash(class.key().unwrap_or_default().as_bytes());
        // The lock of all services is held, so that no other thread removes these clients.
        let number = {
            let mut clients = lock(&clients);
            clients.update(service, &all);
            clients.join(key, now)
        };
        KeyMember { service: service.name.clone(), all, key, number, clients }
    }

    /// Moves keys where it is time to. Returns the services of which some key moves.
    pub(super) fn rebalance(&self, now: Instant) -> Vec<ServiceName> {
        let mut services = self.lock();
        services.retain(|_, clients| !lock(clients).streams.is_empty());
        let all: Vec<_> =
            services.iter().map(|((name, _), one)| (name.clone(), one.clone())).collect();
        drop(services);
        let moves =
            |(_, clients): &(ServiceName, Arc<Mutex<KeyClients>>)| lock(clients).rebalance(now);
        let mut moved: Vec<_> = all.into_iter().filter(moves).map(|one| one.0).collect();
        moved.sort_unstable();
        moved.dedup();
        moved
    }

    /// Returns the backend to which a key was moved, by the hash of its id; `None` if it uses its
    /// first choice.
    pub(super) fn backend(&self, service: &ServiceName, all: &Class, key: &str) -> Option<u64> {
        let clients = self.lock().get(&(service.clone(), all.clone()))?.clone();
        lock(&clients).loads.moved_to(hash(key.as_bytes()))
    }

    fn lock(&self) -> MutexGuard<'_, BySelection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyMember {
    /// Returns whether the stream counts where a stream of this class does.
    pub(crate) fn is_of(&self, service: &Service, class: &Class) -> bool {
        let key = class.key().map(|key| hash(key.as_bytes()));
        let all = || self.all == keys_of(service, class);
        self.service == service.name && key == Some(self.key) && all()
    }

    /// Returns the backend to which the key was moved, by the hash of its id; `None` if it uses
    /// its first choice. So its clients share the lists of a service that bounds no keys, and a
    /// bound that moves nothing sends nothing.
    pub(crate) fn backend(&self, service: &Service) -> Option<u64> {
        let mut clients = lock(&self.clients);
        clients.update(service, &self.all);
        clients.loads.moved_to(self.key)
    }

    /// Counts the calls that the client has started since its last report.
    pub(crate) fn report(&self, started: u64) {
        lock(&self.clients).rates.report(self.number, started, clock::now());
    }

    /// Forgets the client's calls, because it reports no more: it counts as the mean client.
    pub(crate) fn forget(&self) {
        lock(&self.clients).rates.forget(self.number, clock::now());
    }
}

impl Drop for KeyMember {
    fn drop(&mut self) {
        lock(&self.clients).leave(self.number);
    }
}

impl KeyClients {
    fn new(now: Instant) -> Self {
        Self {
            version: 0,
            loads: KeyLoads::default(),
            rates: ClientRates::default(),
            streams: BTreeMap::new(),
            next: 0,
            due: now + FIRST,
            pause: FIRST,
        }
    }

    /// Applies a newer value of the service.
    fn update(&mut self, service: &Service, all: &Class) {
        if service.version > self.version {
            self.version = service.version;
            self.loads.update(&candidates(service, all), service.settings.hash_balance);
        }
    }

    fn join(&mut self, key: u64, now: Instant) -> u64 {
        self.next += 1;
        let load = self.loads.mean().unwrap_or(1.0);
        self.rates.join(self.next, now);
        self.streams.insert(self.next, (key, load));
        self.loads.join(key, load);
        self.next
    }

    fn leave(&mut self, number: u64) {
        self.rates.leave(number);
        if let Some((key, load)) = self.streams.remove(&number) {
            self.loads.leave(key, load);
        }
    }

    fn rebalance(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.pause = LONGEST.min(2 * self.pause);
        self.due = now + self.pause;
        for (number, load) in self.rates.demands(now) {
            if let Some((key, before)) = self.streams.get_mut(&number) {
                self.loads.add(*key, load - *before);
                *before = load;
            }
        }
        self.loads.rebalance()
    }
}

fn lock(clients: &Mutex<KeyClients>) -> MutexGuard<'_, KeyClients> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}
