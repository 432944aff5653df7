//! How a service's backends are divided into cells: values that policy reads.
//!
//! In: a service's backends, its settings and its zones. Out: the group of each backend, and
//! the number of cells of each group. Pure. It decides nothing about clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::facts::cells::CellGroup;
use crate::model::Endpoint;
use crate::settings::ServiceSettings;

use super::{Zones, is_chosen};

/// How many cells each group of a service's backends has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellSizes {
    /// The groups with their sizes.
    pub groups: BTreeMap<CellGroup, CellSize>,
}

/// The size of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellSize {
    /// The number of bits of a cell's number; 0: there is one cell.
    pub bits: u32,
    /// The largest number of backends in the last minutes.
    pub peak: usize,
}

/// A zone with fewer percent of the backends is no group of its own. So there are at most 20
/// zones, and twice as many groups.
const ZONE_PERCENT: usize = 5;

/// Returns the groups of a service's backends, and the place of each backend's group among
/// them. Registrations decide, not health: a backend that fails changes no group.
#[must_use]
pub fn cell_groups(
    endpoints: &[Endpoint],
    settings: &ServiceSettings,
    zones: Option<&Zones>,
) -> (Vec<CellGroup>, Vec<u8>) {
    let key = settings.zones.key();
    let zone_of = |one: &Endpoint| zones.and_then(|zones| zones.of_backend(key, one));
    let backend_zones: Vec<Option<Arc<str>>> = endpoints.iter().map(zone_of).collect();
    let mut counts: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for zone in backend_zones.iter().flatten() {
        *counts.entry(zone).or_default() += 1;
    }
    let is_large = |zone: &&Arc<str>| {
        counts.get(zone).is_some_and(|count| 100 * count >= ZONE_PERCENT * endpoints.len())
    };
    let select = settings.split.select.as_ref();
    let group = |(one, zone): (&Endpoint, &Option<Arc<str>>)| CellGroup {
        zone: zone.as_ref().filter(is_large).cloned(),
        canary: select.is_some_and(|select| is_chosen(one, select)),
    };
    let all: Vec<CellGroup> = endpoints.iter().zip(&backend_zones).map(group).collect();
    let mut groups = all.clone();
    groups.sort_unstable();
    groups.dedup();
    let place = |group: &CellGroup| {
        u8::try_from(groups.partition_point(|one| one < group)).unwrap_or(u8::MAX)
    };
    let places = all.iter().map(place).collect();
    (groups, places)
}
