//! The split of a service's calls by zone, for the JSON and the metrics.
//!
//! In: a service, and the demand of its clients. Out: the split that is in force, and the part
//! of the calls that crosses zones with it.

use super::{State, json};
use crate::catalog::Service;
use crate::facts::demand::Demand;
use crate::policy;

/// Returns how a service's calls are split; `None` if its settings do not ask for it.
pub(super) fn of(state: &State, service: &Service) -> Option<json::Zones> {
    let shares = policy::zones::shares(service)?;
    let now = (state.demand)(&service.name).unwrap_or_default();
    let demand = &now.demand;
    let names = || shares.names().iter().map(ToString::to_string).chain([String::new()]);
    let whole_weight: u64 = shares.loads().iter().map(|load| load.weight).sum();
    let named: u64 = demand.zones.values().sum();
    let part = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let zone = |(place, zone): (usize, String)| {
        let is_here = |name: &str| shares.zone(name) == shares.zone(&zone);
        let here = now.clients.iter().filter(|(name, _)| is_here(name.as_deref().unwrap_or("")));
        let own = demand.zones.iter().filter(|(name, _)| is_here(name));
        let unknown = if zone.is_empty() { demand.unknown } else { 0 };
        let calls = names().zip(shares.split().row(place)).filter(|one| *one.1 > 0);
        json::ZoneShares {
            backends: shares.loads()[place].backends,
            weight: part(shares.loads()[place].weight, whole_weight),
            clients: here.map(|one| one.1).sum(),
            demand: part(own.map(|one| one.1).sum::<u64>() + unknown, named + demand.unknown),
            calls: calls.map(|(name, &share)| (name, f64::from(share) / 1e6)).collect(),
            zone,
        }
    };
    Some(json::Zones {
        crossing: shares.cross(demand),
        zones: names().enumerate().map(zone).collect(),
    })
}

/// Returns the part of a service's calls that crosses zones, from 0 to 1; `None` if its
/// settings do not ask for zones.
pub(super) fn crossing(state: &State, service: &Service) -> Option<f64> {
    let shares = policy::zones::shares(service)?;
    let demand = (state.demand)(&service.name).map_or_else(Demand::default, |now| now.demand);
    Some(shares.cross(&demand))
}
