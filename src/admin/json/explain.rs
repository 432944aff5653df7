//! `/api/v1/explain`: its JSON.

use serde::{Deserialize, Serialize};

use super::{Client, Held, Selector};

/// `/api/v1/explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name asked for, as typed; the client's, where one was asked for.
    pub name: String,
    /// The service that the name means; null where no backend is registered.
    pub service: Option<String>,
    /// Why the name means no service.
    pub absent: Option<String>,
    /// What the name selects among the backends.
    pub selectors: Vec<Selector>,
    /// The store's revision that brought the backends.
    pub revision: i64,
    /// Since the registry was last heard; null when it never was.
    pub silent_seconds: Option<f64>,
    /// The open streams of the client asked for.
    pub clients: Vec<Client>,
    /// Why there is none, where a client was asked for.
    pub no_client: Option<String>,
    /// Whether every backend asked for is in the list.
    pub listed: bool,
    /// The backends asked for; all, where none was.
    pub backends: Vec<Explained>,
}

/// Why a backend is in the list, or is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The instance's name; what was asked for, where nothing is known of it.
    pub id: String,
    /// `ip:port`; null where it has none.
    pub address: Option<String>,
    /// Whether it is in the list.
    pub listed: bool,
    /// What each pass found, in their order: it is listed if all keep it.
    pub passes: Vec<Pass>,
    /// Set while it is listed though its registration is gone.
    pub held: Option<Held>,
    /// How often it stands in one cycle of the list.
    pub turns: usize,
    /// How many turns the cycle has.
    pub cycle: usize,
    /// The share of the calls that its weight asks for, from 0 to 1.
    pub due: f64,
    /// The share that it has.
    pub share: f64,
}

/// What one pass found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// `registered`, `resolved`, `answers`, `weight`, `undrained` or `selected`.
    pub pass: String,
    /// Whether it keeps the backend.
    pub kept: bool,
    /// Why.
    pub why: String,
}
