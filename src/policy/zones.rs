//! Keeps the calls of clients in their zone, as far as the zone's backends can take them.
//!
//! In: a service with zones, a class of clients, and the backends that all other passes keep.
//! Out: those that serve the class, with the weights that give each zone its share. It also
//! reads a client's zone from its name or its address. Pure. It never leaves a class without
//! backends. `facts/zones.rs` has the rule.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::Service;
use crate::facts::factor::{self, Factor};
use crate::facts::zone_shares::ZoneShares;
use crate::facts::zones::Split;
use crate::model::{Class, Endpoint, Selector, Target, Weight};

use super::Pick;

/// What the zone of a backend means for the clients of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nearness {
    /// The clients are in no zone that keeps its own calls.
    Everywhere,
    /// The backend is in none of these zones either, so it serves the clients of all.
    Pool,
    /// The backend's zone, that of the clients, and the share of the clients' calls that the
    /// backend's zone gets, in millionths.
    Zone(Arc<str>, Arc<str>, u32),
}

/// Returns the class of a client of a service, by the name that it asks for and its address.
/// If the service has zones, the selector of a zone says where the client is, and wins over
/// the address. A zone that keeps no calls of its own counts as none.
#[must_use]
pub fn class(service: &Service, target: &Target, address: Option<IpAddr>) -> Class {
    let selectors = target.selectors_for(&service.name);
    if service.zones.is_none() {
        return Class::new(selectors);
    }
    let key = service.settings.zones.key();
    let zone = client_zone(service, target, address);
    let zone = zone.filter(|zone| shares(service).is_some_and(|all| all.zone(zone).is_some()));
    let rest: Vec<Selector> = selectors.iter().filter(|one| one.key != key).cloned().collect();
    Class::new(&rest).in_zone(zone)
}

/// Returns the zone in which a client says that it is, or in which its address is; `None` if
/// that is unknown or the service has no zones.
#[must_use]
pub fn client_zone(
    service: &Service,
    target: &Target,
    address: Option<IpAddr>,
) -> Option<Arc<str>> {
    let table = &service.zones.as_ref()?.table;
    let key = service.settings.zones.key();
    let named = target.selectors_for(&service.name).iter().find(|one| one.key == key);
    match named {
        Some(named) => Some(table.resolve(&named.value)),
        None => table.zone_of(address?),
    }
}

/// Returns the split of a service's calls by zone; `None` if the service has no zones.
#[must_use]
pub fn shares(service: &Service) -> Option<&ZoneShares> {
    let zones = service.zones.as_ref()?;
    Some(service.zone_shares(|| {
        let zone = |endpoint: &Endpoint| (backend_zone(service, endpoint), 0);
        let mut backends: Vec<_> = service.endpoints.iter().map(zone).collect();
        for pick in super::eligible(service, &Class::default()) {
            backends[pick.endpoint as usize].1 = pick.weight.0;
        }
        ZoneShares::new(&backends, &zones.demand)
    }))
}

/// Returns the zone of a backend, by its metadata.
#[must_use]
pub fn backend_zone(service: &Service, endpoint: &Endpoint) -> Option<Arc<str>> {
    let (table, key) = (&service.zones.as_ref()?.table, service.settings.zones.key());
    let same = || endpoint.meta.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    let zone = endpoint.meta.get(key).or_else(|| same().map(|(_, zone)| zone));
    zone.filter(|zone| !zone.is_empty()).map(|zone| table.resolve(zone))
}

/// Returns the picks that the clients of a class get.
pub(super) fn heed(service: &Service, class: &Class, mut picks: Vec<Pick>) -> Vec<Pick> {
    let Some((shares, zone)) = zone_of(service, class) else { return picks };
    let factors = split(shares, class, &picks).factors(Some(zone));
    let factor = |pick: &Pick| factors[shares.zone_of(pick.endpoint as usize)];
    let all: Vec<Factor> = picks.iter().map(factor).collect();
    // Equal factors change nothing.
    if all.iter().all(|factor| Some(factor) == all.first()) {
        return picks;
    }
    let weights: Vec<u32> = picks.iter().map(|pick| pick.weight.0).collect();
    for (pick, weight) in picks.iter_mut().zip(factor::apply(&weights, &all)) {
        pick.weight = Weight(weight);
    }
    picks.retain(|pick| pick.weight != Weight(0));
    picks
}

/// Returns what the zone of a backend means for the clients of a class; `None` if the service
/// has no zones.
pub(super) fn nearness(service: &Service, endpoint: &Endpoint, class: &Class) -> Option<Nearness> {
    service.zones.as_ref()?;
    let Some((shares, zone)) = zone_of(service, class) else { return Some(Nearness::Everywhere) };
    let backend = backend_zone(service, endpoint).filter(|backend| shares.zone(backend).is_some());
    let (Some(backend), Some(client)) = (backend, class.zone()) else {
        return Some(Nearness::Pool);
    };
    let picks = if class.selects_nothing() { Vec::new() } else { super::eligible(service, class) };
    let to = shares.zone(&backend).unwrap_or(shares.names().len());
    let share = split(shares, class, &picks).row(zone)[to];
    Some(Nearness::Zone(backend, client.clone(), share))
}

/// Returns the split of a service, and the place of the zone of a class in it.
fn zone_of<'a>(service: &'a Service, class: &Class) -> Option<(&'a ZoneShares, usize)> {
    let shares = shares(service)?;
    Some((shares, shares.zone(class.zone()?)?))
}

/// Returns the split for a class whose backends are these picks. A selection may leave a
/// zone with less weight than its part of the demand, so it has a split of its own.
fn split<'a>(shares: &'a ZoneShares, class: &Class, picks: &[Pick]) -> Cow<'a, Split> {
    if class.selects_nothing() {
        return Cow::Borrowed(shares.split());
    }
    let chosen = picks.iter().map(|pick| (pick.endpoint as usize, pick.weight.0));
    Cow::Owned(shares.split_among(chosen))
}
