//! Publishes the zones of services whose settings ask for them.
//!
//! In: settings, and the demand of clients by zone, from the catalog's one writer. Out: a new
//! value of each service that they change, and of no other. It decides nothing: policy makes
//! the split from these values.

use std::sync::{Arc, OnceLock};

use super::topic::Rounds;
use super::{Catalog, Known};
use crate::facts::demand::Demand;
use crate::facts::zone_shares::ZoneShares;
use crate::model::ServiceName;
use crate::settings::{ServiceSettings, ZoneTable};

/// Everything beside its backends that decides the split of a service's calls by zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones {
    /// The zones of clients' addresses, and the aliases of zones.
    pub table: Arc<ZoneTable>,
    /// The demand for which the split is made. It changes only when the split that it gives
    /// is worth new lists.
    pub demand: Arc<Demand>,
}

/// The split of a service. It is made when it is first needed.
pub(super) type ShareCache = OnceLock<ZoneShares>;

impl Zones {
    /// Returns the next value of a service's zones; `None` if its settings do not ask for
    /// them. The demand stays the same.
    pub(super) fn next(
        before: Option<&Arc<Self>>,
        settings: &ServiceSettings,
        table: &Arc<ZoneTable>,
    ) -> Option<Arc<Self>> {
        if !settings.zones.are_on() {
            return None;
        }
        Some(match before {
            Some(before) if before.table == *table => before.clone(),
            before => {
                let demand = before.map(|before| before.demand.clone()).unwrap_or_default();
                Arc::new(Self { table: table.clone(), demand })
            }
        })
    }
}

impl Catalog {
    /// Publishes the demand of a service's clients. Returns whether the service changed. A
    /// service whose settings do not ask for zones ignores it.
    pub(super) fn publish_demand(
        &self,
        service: &ServiceName,
        demand: Arc<Demand>,
        rounds: &mut Rounds<Known>,
    ) -> bool {
        let Some(mut group) = self.0.groups.get_mut(&service.canonical()) else { return false };
        let changed = group.set_demand(service, demand, || self.next_version());
        if changed {
            self.announce(&group, rounds);
        }
        changed
    }
}
