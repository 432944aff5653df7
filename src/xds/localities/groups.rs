//! The groups of a service's backends whose shares change together: by zone, and the canaries.
//!
//! In: a service. Out: the group of each backend, whose name begins the names of the group's
//! localities. Pure. Only registrations and settings decide, so that no failure of backends
//! moves another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::{Service, is_chosen};
use crate::policy::zones::backend_zone;
use crate::settings::SplitBy;

/// The groups of a service's backends.
pub(in crate::xds) struct Groups {
    /// Two for the backends without a zone, and for each zone: its canaries are the second.
    names: Vec<Arc<str>>,
    /// The group of each registered backend; empty if all are in the first.
    places: Vec<u8>,
}

/// A service whose backends name more zones than this is not grouped by zone. Policy heeds 20.
/// With these, there are at most 64 groups.
const ZONES_MAX: usize = 31;

impl Groups {
    pub(in crate::xds) fn of(service: &Service) -> Self {
        let names = |start: &str| [start.into(), format!("{start}canaries/").into()];
        let mut groups = Self { names: names("").to_vec(), places: Vec::new() };
        let canaries = service.split().filter(|split| split.by == SplitBy::Calls);
        if service.facts.zones.is_none() && canaries.is_none() {
            return groups;
        }
        let mut zones: Vec<_> =
            service.endpoints.iter().map(|one| backend_zone(service, one)).collect();
        let all: BTreeSet<_> = zones.iter().flatten().cloned().collect();
        if all.len() > ZONES_MAX {
            zones.fill(None);
        } else {
            groups.names.extend(all.iter().flat_map(|zone| names(&format!("zone-{zone}/"))));
        }
        let numbers: BTreeMap<_, _> = all.iter().zip(1_u8..).collect();
        let place = |(zone, endpoint): (&Option<Arc<str>>, _)| {
            let number = zone.as_ref().map_or(0, |zone| numbers[zone]);
            let is_canary = canaries.is_some_and(|split| is_chosen(endpoint, split.select));
            2 * number + u8::from(is_canary)
        };
        groups.places = zones.iter().zip(service.endpoints.iter()).map(place).collect();
        groups
    }

    /// Returns the name of the group of the registered backend at `place`.
    pub(in crate::xds) fn name(&self, place: u32) -> &Arc<str> {
        &self.names[usize::from(self.group(place as usize))]
    }

    /// Returns the registered weights in each group.
    pub(super) fn weights(&self, service: &Service) -> BTreeSet<(u8, u32)> {
        let all = service.endpoints.iter().enumerate();
        all.map(|(at, endpoint)| (self.group(at), endpoint.weight.0)).collect()
    }

    fn group(&self, place: usize) -> u8 {
        self.places.get(place).copied().unwrap_or_default()
    }
}
