//! The JSON of balancers that share etcd.
//!
//! The balancer writes it; its command line reads it, like all of `json`.

use serde::{Deserialize, Serialize};

/// `/api/v1/balancers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Balancers {
    /// Whether this balancer's record is in etcd.
    pub announced: bool,
    /// Why it is not; null if it is.
    pub reason: Option<String>,
    /// Whether the records are followed now; if not, the rows may be out of date.
    pub current: bool,
    /// This balancer, then the others by address.
    pub balancers: Vec<Balancer>,
    /// Keys below the balancers' prefix that announce no balancer.
    pub rejected: Vec<RejectedBalancer>,
}

/// One balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    /// Whether it is the balancer that answers.
    pub own: bool,
    /// The address that it announces; null if it announces none.
    pub address: Option<String>,
    /// Whether only programs on its own host reach that address.
    pub host_only: bool,
    /// `ready`, `stale`, `starting` or `draining`.
    pub state: String,
    /// The zone in which it runs; null if its operator named none.
    pub zone: Option<String>,
    /// The version of its program; null for a version that does not say it.
    pub version: Option<String>,
    /// Its open streams, some seconds old; null if it does not say them.
    pub streams: Option<u64>,
    /// The newest revision of the registry that it knew when it last wrote its record.
    pub revision: Option<i64>,
}

/// A key that announces no balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedBalancer {
    /// The key.
    pub key: String,
    /// Why.
    pub reason: String,
}
