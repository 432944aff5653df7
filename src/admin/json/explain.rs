//! The JSON of `/api/v1/explain`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Client, Held, InForce, Mark, Selector};

/// `/api/v1/explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The requested name, as typed; the client's own, if a client was asked for.
    pub name: String,
    /// The service that the name means; null if no backend is registered.
    pub service: Option<String>,
    /// Why the name means no service.
    pub absent: Option<String>,
    /// Selectors parsed from the name.
    pub selectors: Vec<Selector>,
    /// The zone whose clients get this list, if it matters; null: all zones.
    #[serde(default)]
    pub zone: Option<String>,
    /// The settings in force for the service, or for the name if no backend is registered.
    #[serde(default)]
    pub settings: BTreeMap<String, InForce>,
    /// The registry's revision that brought the backends.
    pub revision: i64,
    /// Seconds since the registry last answered; null if it never did.
    pub silent_seconds: Option<f64>,
    /// The open streams of the client that was asked for.
    pub clients: Vec<Client>,
    /// Why the client that was asked for has no stream.
    pub no_client: Option<String>,
    /// What operators tell clients of this name besides: to drop calls, or to use the
    /// addresses from DNS.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// Whether every backend that was asked for is in the list.
    pub listed: bool,
    /// The backends that were asked for; all backends if none was.
    pub backends: Vec<Explained>,
}

/// Why a backend is in the list, or is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The backend's name; if no backend has it, the text in the request.
    pub id: String,
    /// `ip:port`; null if it has none.
    pub address: Option<String>,
    /// Whether the backend is in the list.
    pub listed: bool,
    /// The finding of each pass, in their order. The backend is listed if all keep it.
    pub passes: Vec<Pass>,
    /// Set while it is held: listed although its registration is gone.
    pub held: Option<Held>,
    /// How many entries it has in one cycle of the list.
    pub turns: usize,
    /// How many entries the cycle has.
    pub cycle: usize,
    /// The share of the calls that its weight asks for, from 0 to 1.
    pub due: f64,
    /// The share that it gets.
    pub share: f64,
}

/// The finding of one pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// `registered`, `resolved`, `answers`, `weight`, `undrained`, `undelayed`, `selected`,
    /// `started`, `split` or `affinity`.
    pub pass: String,
    /// Whether the pass keeps the backend.
    pub kept: bool,
    /// The reason.
    pub why: String,
}
