//! Keeps the calls of clients in their zone, as far as the zone's backends can take them.
//!
//! In: a service with zones, a class of clients, and the backends that the passes before keep.
//! Out: those that serve the class, with the weights that give each zone its share. It also
//! reads a client's zone from its name, what it states, or its address. Pure. It never leaves a class, or a
//! group of a split, without backends. `facts/zones.rs` has the rule.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::Service;
use crate::facts::factor::{self, Factor};
use crate::facts::zone_shares::ZoneShares;
use crate::facts::zones::Split;
use crate::model::{Class, Endpoint, Selector, Target, Weight};

use super::passes::{Pass, Watch};
use super::{Pick, split};

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

/// Returns the class of a client of a service, by the name that it asks for, the zone that it
/// states, and its address. If the service has zones, the selector of a zone says where the
/// client is, and wins over both. A zone that keeps no calls of its own counts as none, and so does any zone of
/// a client with a key: all clients of a key share one backend. But a zone whose clients an
/// operator sheds always counts.
pub(super) fn class(
    service: &Service,
    target: &Target,
    address: Option<IpAddr>,
    stated: Option<&str>,
) -> Class {
    let selectors = target.selectors_for(&service.name);
    if service.facts.zones.is_none() {
        return Class::new(selectors);
    }
    let key = service.settings.zones.key();
    let rest: Vec<Selector> = selectors.iter().filter(|one| one.key != key).cloned().collect();
    let class = Class::new(&rest);
    let keeps = |zone: &str| shares(service).is_some_and(|all| all.zone(zone).is_some());
    let counts = |zone: &Arc<str>| {
        let near = class.key().is_none() && keeps(zone);
        near || is_shed(service, zone)
    };
    let zone = client_zone(service, target, address, stated).filter(counts);
    class.in_zone(zone)
}

/// Returns a class with its zone written as labels of a name, by the zone's own name and by
/// each alias.
pub(super) fn as_named<'a>(service: &Service, class: &'a Class) -> Cow<'a, Class> {
    let (Some(zones), Some(zone)) = (&service.facts.zones, class.zone()) else {
        return Cow::Borrowed(class);
    };
    let aliases = zones.table.aliases().filter(|one| one.1 == zone).map(|one| one.0);
    let label = |value: &Arc<str>| Selector {
        key: service.settings.zones.key().to_owned(),
        value: value.to_string(),
    };
    let labels = aliases.chain([zone]).map(label);
    Cow::Owned(Class::new(&labels.chain(class.selectors().iter().cloned()).collect::<Vec<_>>()))
}

/// Returns whether an operator's mark sheds calls of clients that name this zone.
fn is_shed(service: &Service, zone: &Arc<str>) -> bool {
    let mut shed = service.marks.shed_selectors().peekable();
    if shed.peek().is_none() {
        return false;
    }
    let here = Class::default().in_zone(Some(zone.clone()));
    let here = as_named(service, &here);
    shed.any(|selector| here.selects(selector))
}

/// Returns the zone in which a client says that it is, by its name or else as its protocol
/// allows (`stated`), or in which its address is; `None` if that is unknown or the service has
/// no zones.
#[must_use]
pub fn client_zone(
    service: &Service,
    target: &Target,
    address: Option<IpAddr>,
    stated: Option<&str>,
) -> Option<Arc<str>> {
    let table = &service.facts.zones.as_ref()?.table;
    let key = service.settings.zones.key();
    let named = target.selectors_for(&service.name).iter().find(|one| one.key == key);
    match named.map(|named| &*named.value).or(stated) {
        Some(zone) => Some(table.resolve(zone)),
        None => table.zone_of(address?),
    }
}

/// Returns the split of a service's calls by zone; `None` if the service has no zones.
#[must_use]
pub fn shares(service: &Service) -> Option<&ZoneShares> {
    let zones = service.facts.zones.as_ref()?;
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
    service.facts.zones.as_ref()?.of_backend(service.settings.zones.key(), endpoint)
}

/// Returns the picks that the clients of a class get.
pub(super) fn heed(
    service: &Service,
    class: &Class,
    picks: Vec<Pick>,
    watch: &mut impl Watch,
) -> Vec<Pick> {
    let picks = heed_group(service, class, picks);
    if service.facts.zones.is_some() {
        watch.after(Pass::Near, &picks);
    }
    picks
}

fn heed_group(service: &Service, class: &Class, mut picks: Vec<Pick>) -> Vec<Pick> {
    let Some((shares, zone)) = zone_of(service, class) else { return picks };
    if picks.is_empty() {
        return picks;
    }
    let factors = split_of(service, shares, class, &picks).factors(Some(zone));
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

/// Returns the picks that the clients of a class get of two groups, each of which has a share
/// of the calls.
pub(super) fn heed_groups(
    service: &Service,
    class: &Class,
    picks: Vec<Pick>,
    is_first: impl Fn(&Pick) -> bool,
    watch: &mut impl Watch,
) -> Vec<Pick> {
    if zone_of(service, class).is_none() {
        return heed(service, class, picks, watch);
    }
    let (first, second): (Vec<_>, Vec<_>) = picks.into_iter().partition(is_first);
    let mut all = heed_group(service, class, first);
    all.append(&mut heed_group(service, class, second));
    all.sort_unstable_by_key(|pick| pick.endpoint);
    watch.after(Pass::Near, &all);
    all
}

/// Returns what the zone of a backend means for the clients of a class. `picks` are those that
/// the passes before keep.
pub(super) fn nearness(
    service: &Service,
    endpoint: &Endpoint,
    class: &Class,
    picks: &[Pick],
) -> Nearness {
    let Some((shares, zone)) = zone_of(service, class) else { return Nearness::Everywhere };
    let backend = backend_zone(service, endpoint).filter(|backend| shares.zone(backend).is_some());
    let (Some(backend), Some(client)) = (backend, class.zone()) else {
        return Nearness::Pool;
    };
    let picks = split::group(service, class, endpoint, picks);
    let to = shares.zone(&backend).unwrap_or(shares.names().len());
    let share = split_of(service, shares, class, &picks).row(zone)[to];
    Nearness::Zone(backend, client.clone(), share)
}

/// Returns the split of a service, and the place of the zone of a class in it.
fn zone_of<'a>(service: &'a Service, class: &Class) -> Option<(&'a ZoneShares, usize)> {
    let shares = shares(service)?;
    Some((shares, shares.zone(class.zone()?)?))
}

/// Returns the split by zone for a class, or one group of its backends. A selection, or a
/// group, may leave a zone with less weight than its part of the demand, so it has a split of
/// its own.
fn split_of<'a>(
    service: &Service,
    shares: &'a ZoneShares,
    class: &Class,
    picks: &[Pick],
) -> Cow<'a, Split> {
    if has_all(service, class) {
        return Cow::Borrowed(shares.split());
    }
    let chosen = picks.iter().map(|pick| (pick.endpoint as usize, pick.weight.0));
    Cow::Owned(shares.split_among(chosen))
}

/// Returns whether all backends of a service may serve a class, in one group.
fn has_all(service: &Service, class: &Class) -> bool {
    class.selectors().is_empty() && split::in_force(service, class).is_none()
}

impl fmt::Display for Nearness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Zone(backend, client, share) = self else {
            return f.write_str(match self {
                Self::Pool => "its zone is small or unknown, so it serves the clients of all zones",
                _ => "the client is in no zone that keeps its calls, so all zones serve it",
            });
        };
        let percent = f64::from(*share) / 1e4;
        write!(f, "zone {backend}")?;
        match (backend == client, share) {
            (true, _) => write!(f, ", as the client: it keeps {percent:.0} % of the calls"),
            (false, 0) => write!(f, ": zone {client} of the client needs no other zone"),
            (false, _) => {
                write!(f, ": it takes {percent:.0} % of the calls from zone {client} of the client")
            }
        }
    }
}
