//! The JSON of the cells of a service.

use serde::{Deserialize, Serialize};

/// How the backends of a service are divided, and its clients are placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cells {
    /// The groups of backends, each with cells of its own.
    pub groups: Vec<CellGroup>,
    /// The clients of this balancer, by zone.
    pub clients: Vec<CellClients>,
}

/// Backends that are divided together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellGroup {
    /// Their zone, if it is large and zones matter.
    pub zone: Option<String>,
    /// Whether they are canaries.
    pub canary: bool,
    /// How many cells they have.
    pub cells: usize,
}

/// The clients of one zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellClients {
    /// The zone; null for clients in no zone that matters.
    pub zone: Option<String>,
    /// How many cells there are for them.
    pub cells: usize,
    /// Open streams.
    pub clients: usize,
    /// How many of them have more than one cell.
    pub wide: usize,
    /// The load of the hottest cell for its weight, as a multiple of the mean.
    pub hottest: f64,
}
