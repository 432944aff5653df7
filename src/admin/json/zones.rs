//! The JSON of the split of a service's calls by zone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the calls of a service are split by zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Zones {
    /// The part of the calls that crosses zones, from 0 to 1. Clients whose zone is unknown do
    /// not count.
    pub crossing: f64,
    /// The zones that keep their calls, sorted; then, under the empty name, all others.
    pub zones: Vec<ZoneShares>,
}

/// The backends and the clients of one zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneShares {
    /// The zone; empty for all zones that are small, and for what is in no zone.
    pub zone: String,
    /// How many backends may be listed.
    pub backends: usize,
    /// Their part of the weight, from 0 to 1.
    pub weight: f64,
    /// Open streams of clients in the zone.
    pub clients: usize,
    /// Their part of the demand, from 0 to 1.
    pub demand: f64,
    /// The part of their calls that each zone gets, by zone, from 0 to 1. Zones that get none
    /// are left out.
    pub calls: BTreeMap<String, f64>,
}
