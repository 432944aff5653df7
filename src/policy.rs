//! Decides which backends serve a class of clients, and with which weights.
//!
//! In: a service and a client's class. Out: a [`Decision`]. The gRPC service turns it into
//! entries, DNS into addresses, the admin port into percentages. None of them leaves a
//! backend out. Pure and deterministic: every replica decides the same. The passes run in
//! one fixed order (`passes.rs`), and [`explain`] runs the same passes. Once a snapshot is
//! indexed, the work grows with the number of chosen backends, not with the service.

use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::{Addresses, Service};
use crate::facts::factor::Factor;
use crate::model::{Class, Endpoint, Selector, Weight};

pub mod canary;
pub mod cells;
pub mod hash;
mod newcomers;
mod passes;
pub mod rendezvous;
pub mod zones;

pub use passes::{Finding, Pass, explain};
pub use zones::class;

/// The backends that serve a class of clients. It is empty if no backend can serve them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    picks: Box<[Pick]>,
}

/// A backend that serves a class, and its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its index in the snapshot's endpoints.
    pub endpoint: u32,
    /// Its weight relative to the other picks; never 0.
    pub weight: Weight,
}

impl Decision {
    /// Returns the picks, in the snapshot's order.
    #[must_use]
    pub fn picks(&self) -> &[Pick] {
        &self.picks
    }

    /// Returns the weights of the picks, in the same order.
    #[must_use]
    pub fn weights(&self) -> Vec<u32> {
        self.picks.iter().map(|pick| pick.weight.0).collect()
    }
}

/// Returns the backends that serve a class, each with its weight.
#[must_use]
pub fn decide(service: &Service, class: &Class) -> Decision {
    let mut picks = eligible(service, class);
    if service.zones.is_some() {
        picks = zones::heed(service, class, picks);
    }
    Decision { picks: picks.into() }
}

/// Returns the backends that may serve a class, wherever its clients are.
fn eligible(service: &Service, class: &Class) -> Vec<Pick> {
    let pick = |place: usize| {
        let endpoint = &service.endpoints[place];
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        passes::keep(service, endpoint, class)
            .then_some(Pick { endpoint: place, weight: endpoint.weight })
    };
    let picks: Vec<Pick> = match rarest(service, class) {
        None => (0..service.endpoints.len()).filter_map(pick).collect(),
        Some(rarest) => service.chosen(rarest).filter_map(pick).collect(),
    };
    if service.newcomers.is_some() { newcomers::heed(service, picks) } else { picks }
}

/// Returns the part of its share that a backend gets in the lists of a class, by slow
/// start.
#[must_use]
pub fn factor(service: &Service, endpoint: &Endpoint, class: &Class) -> Factor {
    newcomers::factor(service, endpoint, class)
}

/// Returns whether any backend serves the clients that select nothing.
#[must_use]
pub fn has_picks(service: &Service) -> bool {
    let whole = Class::default();
    service.endpoints.iter().any(|endpoint| passes::keep(service, endpoint, &whole))
}

/// Returns the addresses of the endpoints that serve a class. Keeps them with the service
/// if the class selects nothing or has at least 64 addresses.
#[must_use]
pub fn addresses(service: &Service, class: &Class) -> Arc<Addresses> {
    /// Fewer addresses are found again as fast as they are looked up.
    const CACHED_FROM: usize = 64;
    if let Some(kept) = service.cached_addresses(class) {
        return kept;
    }
    let mut all = Addresses::default();
    for pick in decide(service, class).picks() {
        match service.endpoints[pick.endpoint as usize].addr.ip() {
            IpAddr::V4(ip) => all.v4.push(ip),
            IpAddr::V6(ip) => all.v6.push(ip),
        }
    }
    let addresses = all.v4.len() + all.v6.len();
    let all = Arc::new(all.sorted());
    if class.is_whole() || addresses >= CACHED_FROM {
        service.cache_addresses(class, &all);
    }
    all
}

/// Returns how many endpoints [`decide`] looks at for a class.
#[must_use]
pub fn work(service: &Service, class: &Class) -> usize {
    // Without an index the number of matches is unknown, and indexing visits every
    // endpoint.
    let unindexed = class.selectors().iter().map(|one| service.unindexed(one)).max();
    match unindexed {
        None => service.endpoints.len(),
        Some(0) => most(service, class),
        Some(unindexed) => unindexed,
    }
}

/// Returns the largest number of endpoints that can serve a class.
#[must_use]
pub fn most(service: &Service, class: &Class) -> usize {
    let visits = class.selectors().iter().map(|selector| service.visits(selector));
    visits.min().unwrap_or(service.endpoints.len())
}

/// Returns how many endpoints [`addresses`] looks at for a class: 0 if it has kept the
/// result.
#[must_use]
pub fn address_work(service: &Service, class: &Class) -> usize {
    if service.cached_addresses(class).is_some() { 0 } else { work(service, class) }
}

/// Returns the selector that chooses the fewest endpoints; `None` if there is no
/// selector.
fn rarest<'a>(service: &Service, class: &'a Class) -> Option<&'a Selector> {
    class.selectors().iter().min_by_key(|selector| service.visits(selector))
}

#[cfg(test)]
mod tests;
