//! Who gets which backends, in which order, how often.
//!
//! In: a service's snapshot and a client's class. Out: the endpoints that serve
//! the class, and their [`Assignment`] or their addresses. Pure and
//! deterministic: every replica says the same. The passes are plain calls in
//! one written order. Its work is bounded by what is chosen, not by the service.

use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::{Addresses, ServiceSnapshot, is_chosen};
use crate::model::{Class, Endpoint, Selector};

mod weight;

/// The backends a client is to use, as indices into the snapshot's endpoints,
/// heavier ones more often, evenly interleaved. Empty: nobody can serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment(pub Vec<usize>);

/// Which of a snapshot's endpoints serve a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// All that take calls.
    All,
    /// Those at these places, which ascend and take calls.
    These(Box<[u32]>),
}

/// Chooses for clients of a class.
#[must_use]
pub fn choose(snapshot: &ServiceSnapshot, class: &Class) -> Chosen {
    let Some(rarest) = rarest(snapshot, class) else { return Chosen::All };
    let all_match = |endpoint: &Endpoint| {
        let mut others = class.selectors().iter().filter(|&selector| selector != rarest);
        others.all(|selector| is_chosen(endpoint, selector))
    };
    let places = snapshot.chosen(rarest).filter(|&place| all_match(&snapshot.endpoints[place]));
    Chosen::These(places.map(|place| u32::try_from(place).unwrap_or(u32::MAX)).collect())
}

/// Orders and repeats what was chosen, by weight.
#[must_use]
pub fn assign(snapshot: &ServiceSnapshot, chosen: &Chosen) -> Assignment {
    let (places, weights): (Vec<usize>, Vec<u32>) =
        chosen.endpoints(snapshot).map(|(place, endpoint)| (place, endpoint.weight.0)).unzip();
    Assignment(weight::interleave(&weights).into_iter().map(|turn| places[turn]).collect())
}

/// The addresses of the endpoints that serve a class. Those of large classes are
/// kept with the snapshot.
#[must_use]
pub fn addresses(snapshot: &ServiceSnapshot, class: &Class) -> Arc<Addresses> {
    /// What is smaller is found again as quickly.
    const KEPT_FROM: usize = 64;
    if let Some(kept) = snapshot.kept_addresses(class) {
        return kept;
    }
    let chosen = choose(snapshot, class);
    let mut all = Addresses::default();
    for (_, endpoint) in chosen.endpoints(snapshot) {
        match endpoint.addr.ip() {
            IpAddr::V4(ip) => all.v4.push(ip),
            IpAddr::V6(ip) => all.v6.push(ip),
        }
    }
    let addresses = all.v4.len() + all.v6.len();
    let all = Arc::new(all.sorted());
    if class.is_whole() || addresses >= KEPT_FROM {
        snapshot.keep_addresses(class, &all);
    }
    all
}

/// How many endpoints [`choose`] looks at for a class.
#[must_use]
pub fn work(snapshot: &ServiceSnapshot, class: &Class) -> usize {
    // Only what is indexed can be counted without indexing it.
    let unindexed = class.selectors().iter().map(|one| snapshot.unindexed(one)).max();
    match unindexed {
        None => snapshot.endpoints.len(),
        Some(0) => most(snapshot, class),
        Some(unindexed) => unindexed,
    }
}

/// How many endpoints serve a class at most.
#[must_use]
pub fn most(snapshot: &ServiceSnapshot, class: &Class) -> usize {
    let visits = class.selectors().iter().map(|selector| snapshot.visits(selector));
    visits.min().unwrap_or(snapshot.endpoints.len())
}

/// How many endpoints [`addresses`] looks at for a class: none where they are
/// kept.
#[must_use]
pub fn address_work(snapshot: &ServiceSnapshot, class: &Class) -> usize {
    if snapshot.kept_addresses(class).is_some() { 0 } else { work(snapshot, class) }
}

/// The selector that chooses the fewest.
fn rarest<'a>(snapshot: &ServiceSnapshot, class: &'a Class) -> Option<&'a Selector> {
    class.selectors().iter().min_by_key(|selector| snapshot.visits(selector))
}

impl Chosen {
    /// The endpoints and their places, in the snapshot's order.
    pub fn endpoints<'a>(
        &'a self,
        snapshot: &'a ServiceSnapshot,
    ) -> impl Iterator<Item = (usize, &'a Endpoint)> {
        let these = match self {
            Self::All => None,
            Self::These(places) => Some(places),
        };
        let count = these.map_or(snapshot.endpoints.len(), |places| places.len());
        let place = move |at: usize| these.map_or(at, |places| places[at] as usize);
        (0..count)
            .map(move |at| (place(at), &snapshot.endpoints[place(at)]))
            .filter(|(_, endpoint)| endpoint.takes_calls())
    }
}

#[cfg(test)]
mod tests;
