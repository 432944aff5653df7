//! The cells of a service, for the JSON and the metrics.
//!
//! In: a service, and how its clients are placed. Out: its cells.

use super::{State, json};
use crate::catalog::Service;
use crate::policy::subset;

/// Returns how a service is divided; `None` if it is not.
pub(super) fn of(state: &State, service: &Service) -> Option<json::Cells> {
    let groups = subset::cells(service)?.counts().map(|(group, cells)| json::CellGroup {
        zone: group.zone.as_ref().map(ToString::to_string),
        canary: group.canary,
        cells,
    });
    let clients = (state.cells)(&service.name).into_iter().map(|one| json::CellClients {
        zone: one.zone.as_ref().map(ToString::to_string),
        cells: one.cells,
        clients: one.clients,
        wide: one.wide,
        hottest: one.hottest,
    });
    Some(json::Cells { groups: groups.collect(), clients: clients.collect() })
}
