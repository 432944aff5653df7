//! Whether the split of calls by zone is right, by another way than the program's.
//!
//! In: a service as a balancer knows it. Out: the classes of the zones that keep their own
//! calls, and what is wrong with their lists. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use lookaside::catalog::Service;
use lookaside::model::Class;
use lookaside::policy;

use crate::check::Check;
use crate::plan::Host;
use crate::policies::{FLEET, ZONES};
use crate::streams::Stream;
use crate::world::FLEET_PORTS;

/// By how much a backend may get more than its share. A zone keeps its calls up to 2 %.
const OVER_MAX: f64 = 1.03;
/// A zone with a smaller part of the calls or of the backends keeps none of its own.
const SMALL: f64 = 0.06;

/// How long clients are connected before their balancer knows their demand, in milliseconds.
const KNOWN: u64 = 8_000;
/// A zone with fewer backends keeps no calls of its own.
const BACKENDS_MIN: usize = 3;

/// Returns the class of each zone that has the backends to keep its own calls.
pub fn classes(service: &Service) -> Vec<(Arc<str>, Class)> {
    let Some(shares) = policy::zones::shares(service) else { return Vec::new() };
    let class = |zone: &Arc<str>| (zone.clone(), Class::default().in_zone(Some(zone.clone())));
    shares.names().iter().map(class).collect()
}

/// Returns what is wrong with the lists of the zones: with the demand in force, a backend gets
/// more than its share, or calls of a zone cross that has room for them.
pub fn wrong(service: &Service, zones: &[(Arc<str>, Class)]) -> Option<String> {
    let demand = &service.facts.zones.as_ref()?.demand;
    let whole = shares(service, &Class::default());
    let kept = |zone: &Arc<str>| zones.iter().find(|one| one.0 == *zone).map(|one| &one.1);
    let all: f64 = demand.zones.values().sum::<u64>() as f64 + demand.unknown as f64;
    if all == 0.0 || whole.is_empty() {
        return None;
    }
    let mut load = BTreeMap::<u32, f64>::new();
    let mut add = |shares: &BTreeMap<u32, f64>, part: f64| {
        shares.iter().for_each(|(at, share)| *load.entry(*at).or_default() += part * share);
    };
    add(&whole, demand.unknown as f64 / all);
    let place = |at: u32| policy::zones::backend_zone(service, &service.endpoints[at as usize]);
    let weight = |zone: &Arc<str>| -> f64 {
        whole.iter().filter(|(at, _)| place(**at).as_ref() == Some(zone)).map(|one| one.1).sum()
    };
    let zoned: f64 =
        demand.zones.iter().filter(|one| kept(one.0).is_some()).map(|one| *one.1 as f64).sum();
    let is_large = |zone: &Arc<str>, demand: u64| {
        kept(zone).is_some() && demand as f64 >= SMALL * zoned && weight(zone) >= SMALL
    };
    let large: Vec<_> = demand.zones.iter().filter(|one| is_large(one.0, *one.1)).collect();
    let pool = 1.0 - large.iter().map(|one| weight(one.0)).sum::<f64>();
    let spread = 1.0 - large.iter().map(|one| *one.1 as f64).sum::<f64>() / all;
    for (zone, demand) in &demand.zones {
        let own = kept(zone).map_or_else(|| whole.clone(), |class| shares(service, class));
        let part = *demand as f64 / all;
        add(&own, part);
        let has_room = part * (1.0 - pool) <= 0.999 * weight(zone) * (1.0 - spread);
        let is_other = |at: &u32| {
            let place = place(*at);
            place.as_ref() != Some(zone) && large.iter().any(|one| place.as_ref() == Some(one.0))
        };
        if is_large(zone, *demand) && has_room && own.keys().any(is_other) {
            return Some(format!("calls of zone {zone} cross, and it has room: {own:?}"));
        }
    }
    let over = load.into_iter().map(|(at, load)| load / whole.get(&at).copied().unwrap_or(0.0));
    let over = over.fold(0.0, f64::max);
    (over > OVER_MAX).then(|| format!("a backend gets {over:.3} times its share: {demand:?}"))
}

/// Returns the share of the calls of a class that each backend gets.
fn shares(service: &Service, class: &Class) -> BTreeMap<u32, f64> {
    let decision = policy::decide(service, class);
    decision.picks().iter().map(|pick| pick.endpoint).zip(decision.dues()).collect()
}

impl Check<'_> {
    /// Checks at the end that the demand of both zones counts, if both have clients: P6; and
    /// that the large service has no cells and zones that the settings do not ask for: P5.
    pub fn fleet_at_end(&mut self, streams: &[Stream]) {
        let policy = self.policy_at_end(FLEET);
        let end = self.plan.end;
        let is_open =
            |one: &&Stream| one.service == FLEET && one.ended.is_none() && one.refused.is_none();
        let held =
            self.truth.service(FLEET).last().map(|held| held.set.clone()).unwrap_or_default();
        let is_large = |zone: &&str| {
            let layout = self.plan.policies.layout;
            let own = held.iter().map(|addr| usize::from(addr.port() - FLEET_PORTS));
            own.filter(|one| layout.zone(*one) == *zone).count() >= BACKENDS_MIN
        };
        let mut breaches = Vec::new();
        for stream in streams.iter().filter(is_open) {
            let Some(digest) = self.digest_at_end(stream) else { continue };
            let mut breach = |text: String| {
                breaches.push(format!("P5 balancer {}: {text}", stream.balancer));
            };
            if !policy.cells && !digest.subsets.is_empty() {
                breach("the large service has cells, and no settings ask for them".to_owned());
            }
            if !policy.zones && !digest.zones.is_empty() {
                breach("the large service has zones, and no settings ask for them".to_owned());
            }
            let has_clients = |zone: usize| {
                let mut clients = streams.iter().filter(is_open);
                clients.any(|one| {
                    let here = one.balancer == stream.balancer;
                    here && one.client_host == Host::Clients(zone) && one.opened + KNOWN <= end
                })
            };
            let counts = |zone: &&str| digest.demand.get(*zone).is_some_and(|one| *one > 0);
            let both = (0..ZONES.len()).all(has_clients) && ZONES.iter().all(is_large);
            if policy.zones && both && !ZONES.iter().all(counts) {
                breach(format!("both zones have clients, the demand is {:?}", digest.demand));
            }
        }
        breaches.dedup();
        self.breaches.extend(breaches);
    }
}
