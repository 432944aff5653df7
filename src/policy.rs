//! Decides which backends serve a class of clients, and with which weights.
//!
//! In: a service and a client's class. Out: a [`Decision`]. The gRPC service turns it into
//! entries, DNS into addresses, the admin port into percentages. None of them leaves a
//! backend out. Pure and deterministic: every replica decides the same. The passes run in
//! one fixed order (`passes.rs`), and [`explain`] runs the same passes and sees what each
//! keeps. Once a snapshot is indexed, the work grows with the number of chosen backends, not
//! with the service.

use std::net::IpAddr;
use std::sync::Arc;

use passes::Watch;

use crate::catalog::{Addresses, Candidate, Service};
use crate::facts::factor::{self, Factor};
use crate::marks::Mark;
use crate::model::{Class, Part, Selector, Target, Weight};

mod affinity;
pub mod canary;
pub mod cells;
pub mod difference;
mod explain;
pub mod hash;
mod health;
pub mod key_loads;
mod load;
mod newcomers;
mod passes;
pub mod rendezvous;
mod split;
pub mod subset;
pub mod zones;

pub use explain::{Finding, Findings, explain};
pub use passes::Pass;

/// The backends that serve a class of clients (none if no backend can serve them), and what
/// operators tell the clients besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    picks: Box<[Pick]>,
    split: Option<Box<CallSplit>>,
    /// The part of their calls that the clients drop, in percent.
    pub drop_percent: u32,
    /// Whether the clients use the addresses from DNS in place of the picks.
    pub fallback: bool,
}

/// A share of all calls for some of the picks. Within each group, the calls are split by
/// weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSplit {
    /// The share of the canaries: neither 0 nor 1.
    pub share: Factor,
    /// Whether each pick is a canary. Some are, and some are not.
    pub canaries: Box<[bool]>,
}

/// A backend that serves a class, and its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its index in the snapshot's endpoints.
    pub endpoint: u32,
    /// Its weight relative to the other picks, or to those of its group if the calls are
    /// split; never 0.
    pub weight: Weight,
}

impl Decision {
    /// Makes a decision that does not split the calls.
    fn new(picks: Vec<Pick>) -> Self {
        Self { picks: picks.into(), ..Self::default() }
    }

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

    /// Returns how the calls are split between groups of picks, if they are.
    #[must_use]
    pub fn split(&self) -> Option<&CallSplit> {
        self.split.as_deref()
    }

    /// Returns the share of all calls that each pick is due, in the same order.
    #[must_use]
    pub fn dues(&self) -> Vec<f64> {
        let canary = |at: usize| self.split.as_ref().is_some_and(|split| split.canaries[at]);
        let mut sums = [0.0, 0.0];
        for (at, pick) in self.picks.iter().enumerate() {
            sums[usize::from(canary(at))] += f64::from(pick.weight.0);
        }
        let share = self.split.as_ref().map_or(0.0, |split| split.share.as_fraction());
        let due = |(at, pick): (usize, &Pick)| {
            let (share, sum) = if canary(at) { (share, sums[1]) } else { (1.0 - share, sums[0]) };
            share * f64::from(pick.weight.0) / sum
        };
        self.picks.iter().enumerate().map(due).collect()
    }
}

/// Returns the backends that serve a class, each with its weight.
#[must_use]
pub fn decide(service: &Service, class: &Class) -> Decision {
    run(service, class, &mut ())
}

/// Runs the passes, and shows `watch` what each keeps.
fn run(service: &Service, class: &Class, watch: &mut impl Watch) -> Decision {
    let decision = match class.key() {
        Some(key) => affinity::decide(service, class, key, watch),
        None => {
            let picks = before_split(service, class, watch);
            split::decide(service, class, picks, watch)
        }
    };
    Decision {
        drop_percent: match shed(service, class) {
            Some(mark) => mark.value.percent(),
            None => overload_shed(service, class).unwrap_or(0),
        },
        fallback: service.marks.fallback().is_some(),
        ..decision
    }
}

/// Returns the class of a client of a service, by the name that it asks for and its address,
/// if that is known.
#[must_use]
pub fn class(service: &Service, target: &Target, client: Option<IpAddr>) -> Class {
    let class = zones::class(service, target, client, None);
    let part = client.map(|client| part(service, &class, client, true));
    class.with_part(part.unwrap_or_default())
}

/// Returns the class of a client of xDS, which may also say in which zone it is. The name
/// wins over what the client says, and that over its address.
#[must_use]
pub fn class_with_zone(
    service: &Service,
    target: &Target,
    client: IpAddr,
    stated: Option<&str>,
    obeys_weights: bool,
) -> Class {
    let class = zones::class(service, target, Some(client), stated);
    let part = part(service, &class, client, obeys_weights);
    class.with_part(part)
}

/// Returns the part of the clients to which a client of a class belongs.
#[must_use]
pub fn part(service: &Service, class: &Class, client: IpAddr, obeys_weights: bool) -> Part {
    split::part_of_client(service, class, client, obeys_weights)
}

/// Returns whether a class has a key, and the service bounds what a backend gets of the keys.
#[must_use]
pub fn bounds_keys(service: &Service, class: &Class) -> bool {
    service.settings.hash_balance > 0 && class.key().is_some()
}

/// Returns the class of all keys that are assigned to the same backends as the key of a class.
#[must_use]
pub fn keys_of(service: &Service, class: &Class) -> Class {
    affinity::keys_of(service, class)
}

/// Returns the backends to which keys of a class can be assigned, as [`keys_of`] returns it.
#[must_use]
pub fn candidates(service: &Service, all: &Class) -> Arc<Vec<Candidate>> {
    affinity::candidates(service, all, &mut ())
}

/// Returns the mark by which clients of a class drop the most calls.
#[must_use]
pub fn shed<'a>(service: &'a Service, class: &Class) -> Option<&'a Arc<Mark>> {
    service.marks.shed(&zones::as_named(service, class))
}

/// Returns the part of their calls that clients of a class drop because the service is
/// overloaded, in percent. A mark that sheds their calls wins.
#[must_use]
pub fn overload_shed(service: &Service, class: &Class) -> Option<u32> {
    service.facts.overload_shed.filter(|_| shed(service, class).is_none())
}

/// Returns the backends that all passes before the split keep, with their weights. A split
/// gives the calls of a group that loses its last backend to the other group.
#[must_use]
pub fn eligible(service: &Service, class: &Class) -> Vec<Pick> {
    before_split(service, class, &mut ())
}

fn before_split<W: Watch>(service: &Service, class: &Class, watch: &mut W) -> Vec<Pick> {
    let Some(picks) = subset::listed(service, class) else {
        let picks = before_subset(service, class, watch);
        if subset::divides(service, class) {
            watch.after(Pass::Subset, &picks);
        }
        return picks;
    };
    if W::WATCHES {
        // The service keeps what these passes left for all subsets.
        before_subset(service, class, watch);
    }
    watch.after(Pass::Subset, &picks);
    picks
}

fn before_subset(service: &Service, class: &Class, watch: &mut impl Watch) -> Vec<Pick> {
    let pick = |place: usize| {
        let endpoint = &service.endpoints[place];
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        passes::keep(service, endpoint, class)
            .then_some(Pick { endpoint: place, weight: endpoint.weight })
    };
    let mut picks: Vec<Pick> = match rarest(service, class) {
        None => (0..service.endpoints.len()).filter_map(pick).collect(),
        Some(rarest) => service.chosen(rarest).filter_map(pick).collect(),
    };
    watch.after(Pass::Selected, &picks);
    if service.facts.health.is_some() {
        picks = health::heed(service, picks);
    }
    watch.after(Pass::Healthy, &picks);
    if service.facts.newcomers.is_some() {
        picks = newcomers::undelayed(service, picks);
    }
    watch.after(Pass::Undelayed, &picks);
    if service.facts.newcomers.is_some() {
        picks = newcomers::started(service, picks);
    }
    watch.after(Pass::Started, &picks);
    if service.facts.load.is_some() {
        picks = load::heed(service, picks);
    }
    watch.after(Pass::Loaded, &picks);
    picks
}

/// Multiplies the weights of picks by their factors.
fn scale(picks: &mut [Pick], factors: &[Factor]) {
    let weights: Vec<u32> = picks.iter().map(|pick| pick.weight.0).collect();
    for (pick, weight) in picks.iter_mut().zip(factor::apply(&weights, factors)) {
        pick.weight = Weight(weight);
    }
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
    if class.key().is_some()
        && let Some(work) = affinity::work(service, class)
    {
        return work;
    }
    if let Some(work) = subset::work(service, class) {
        return work;
    }
    // Without an index the number of matches is unknown, and indexing visits every
    // endpoint.
    let unindexed = class.selectors().iter().map(|one| service.unindexed(one)).max();
    match unindexed {
        None => service.endpoints.len(),
        Some(0) => most_eligible(service, class),
        Some(unindexed) => unindexed,
    }
}

/// Returns the largest number of endpoints that can serve a class.
#[must_use]
pub fn most(service: &Service, class: &Class) -> usize {
    let most = most_eligible(service, class);
    if class.key().is_some() { most.min(1) } else { most }
}

fn most_eligible(service: &Service, class: &Class) -> usize {
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
