//! Gives the clients of a large service a part of its backends: some of its cells.
//!
//! In: a service that is divided into cells, and a class of clients with a subset. Out: the
//! backends of the subset that all passes before keep. Pure. `cells.rs` makes the cells, and
//! the balancer places clients on them (`cells/placement.rs`).
//!
//! Registrations decide the cell of a backend. So a backend that fails moves no other
//! backend: it only leaves the list of its cell.

use std::fmt;

use crate::catalog::{CellSize, Service, cell_groups};
use crate::facts::cells::Cells;
use crate::model::{Class, Endpoint, Subset};

use super::cells::{Backend, Table};
use super::hash::{hash, pair};
use super::{Pick, Weight};

/// The place of a backend in the cells of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// The cell of the backend; `None`: its group has one cell.
    pub(super) cell: Option<Subset>,
    /// The subset of the clients; `None`: they use all cells.
    pub(super) subset: Option<Subset>,
    /// Whether the clients use the cell.
    pub(super) used: bool,
}

/// Returns the cells of a service, with the backends that they list now; `None` if it is not
/// divided.
#[must_use]
pub fn cells(service: &Service) -> Option<&Cells> {
    service.facts.cells.as_ref()?;
    Some(service.cells(|| make(service)))
}

/// Returns whether clients of a class get a part of the backends. Names that select, and
/// keys, choose backends themselves.
#[must_use]
pub fn divides(service: &Service, class: &Class) -> bool {
    service.facts.cells.is_some() && class.is_whole()
}

/// Returns the backends of the class's subset that all passes before keep; `None` if the class
/// has no subset.
pub(super) fn listed(service: &Service, class: &Class) -> Option<Vec<Pick>> {
    let subset = class.subset()?;
    let listed = cells(service)?.listed(Some(subset));
    let pick = |(endpoint, weight)| Pick { endpoint, weight: Weight(weight) };
    Some(listed.into_iter().map(pick).collect())
}

/// Returns how many endpoints [`listed`] returns, if the cells of the service are made.
pub(super) fn work(service: &Service, class: &Class) -> Option<usize> {
    let subset = class.subset().filter(|_| service.facts.cells.is_some())?;
    Some(service.cached_cells()?.count(Some(subset)))
}

fn make(service: &Service) -> Cells {
    let zones = service.facts.zones.as_deref();
    let (groups, group_of) = cell_groups(&service.endpoints, &service.settings, zones);
    let sizes = service.facts.cells.as_deref();
    let size = |group| {
        let size = sizes.and_then(|sizes| sizes.groups.get(group)).copied();
        size.unwrap_or(CellSize { bits: 0, peak: 0 })
    };
    let mut places: Box<[(u8, u16)]> = group_of.iter().map(|&group| (group, 0)).collect();
    let ids = ids(&service.endpoints);
    for (at, group) in (0_u8..).zip(&groups) {
        let CellSize { bits, peak } = size(group);
        if bits == 0 {
            continue;
        }
        let own = (0..places.len()).filter(|&place| group_of[place] == at);
        let mut own: Vec<usize> = own.collect();
        // No source tells every replica in which order backends registered, so hashes decide.
        own.sort_unstable_by_key(|&place| (pair(ids[place], 0), ids[place]));
        let backend =
            |&place: &usize| Backend { id: ids[place], weight: service.endpoints[place].weight.0 };
        let backends: Vec<Backend> = own.iter().map(backend).collect();
        let table = Table::new(&backends, bits, peak);
        for (&place, &cell) in own.iter().zip(table.cells()) {
            places[place].1 = u16::try_from(cell).unwrap_or_default();
        }
    }
    let listed: Vec<_> = super::eligible(service, &Class::default())
        .iter()
        .map(|pick| (pick.endpoint, pick.weight.0))
        .collect();
    let bits = groups.iter().map(|group| size(group).bits).collect::<Vec<_>>();
    Cells::new(groups.into_iter().zip(bits).collect(), places, &listed)
}

/// Returns the hash of each backend's id. Several addresses can have one id; all but the
/// first are told apart by address.
fn ids(endpoints: &[Endpoint]) -> Vec<u64> {
    let mut before = None;
    let id = |endpoint: &Endpoint| {
        let id = hash(endpoint.id.as_bytes());
        let shares_id = before.replace(endpoint.id.clone()).as_ref() == Some(&endpoint.id);
        let at = || hash(endpoint.addr.to_string().as_bytes());
        if shares_id { pair(id, at()) } else { id }
    };
    endpoints.iter().map(id).collect()
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cell {
            Some(cell) => write!(f, "it is in cell {cell}")?,
            None => f.write_str("its group is not divided")?,
        }
        match (self.subset, self.used) {
            (None, _) => f.write_str("; without a client, nobody knows which part is used"),
            (Some(subset), true) => write!(f, ", and the client uses {subset}"),
            (Some(subset), false) => write!(f, ", and the client uses {subset} alone"),
        }
    }
}
