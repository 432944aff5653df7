//! The JSON of the list of services: counts, and the state of each.
//!
//! Written by the balancer, read by its command line, like all of `json`.

use serde::{Deserialize, Serialize};

use super::Calls;

/// `/api/v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// How many there are, whatever `limit` says.
    pub total: usize,
    /// Sorted by name. Those that lost all their backends are among them for as
    /// long as streams ask for them, and ten minutes more.
    pub services: Vec<Service>,
    /// How many have a state other than `ok`.
    #[serde(default)]
    pub problems_total: usize,
    /// The worst of these, whatever `limit` says: at most 100.
    #[serde(default)]
    pub problems: Vec<Service>,
    /// How many names streams ask for that were never registered.
    #[serde(default)]
    pub unknown_total: usize,
    /// The first of these: at most 100.
    #[serde(default)]
    pub unknown: Vec<Unknown>,
}

/// A name that streams ask for, and that nothing has registered since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unknown {
    /// Without port and zone, in lower case.
    pub name: String,
    /// Open streams that ask for it.
    pub clients: usize,
    /// Since it was first asked for.
    pub since_seconds: f64,
}

/// What is to be said of a service, the worst first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "String")]
pub enum State {
    /// It has no backend any more.
    Empty,
    /// None of its backends takes calls: all have the weight 0 or are drained.
    Unusable,
    /// It keeps backends that do not answer, for too few would be left.
    Guarded,
    /// Some of its backends are listed though their registrations are gone.
    Held,
    /// Some of its backends are registered and left out: they refuse connections.
    Down,
    /// Some of its backends, or all, are registered by host names that do not
    /// resolve, and left out.
    Unresolved,
    /// Some of its backends are kept out of the lists by an operator's mark.
    Drained,
    /// Nothing.
    #[default]
    Ok,
}

/// One service in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// As registered.
    pub name: String,
    /// What clients dial: `dns:///` and this.
    pub dns_name: String,
    /// How many backends it has.
    pub endpoints: usize,
    /// How many of them are listed though their registrations are gone.
    #[serde(default)]
    pub held: usize,
    /// Whether some of those do not answer, and are kept for too few would be
    /// left.
    #[serde(default)]
    pub guarded: bool,
    /// How many are registered and not listed, for they refuse connections.
    #[serde(default)]
    pub down: usize,
    /// How many are registered and not listed, for their host names do not
    /// resolve.
    #[serde(default)]
    pub unresolved: usize,
    /// How many are kept out of the lists by an operator's mark.
    #[serde(default)]
    pub drained: usize,
    /// `empty`, `unusable`, `guarded`, `held`, `down`, `unresolved`, `drained` or `ok`.
    #[serde(default)]
    pub state: State,
    /// Since it is `empty`, or since the first that is held lost its
    /// registration.
    #[serde(default)]
    pub since_seconds: Option<f64>,
    /// The store's revision that brought them; 0 when there are none.
    pub revision: i64,
    /// Open streams of its clients, those that wait for it included.
    pub clients: usize,
    /// The sums of its clients' reports.
    pub calls: Calls,
}

impl Service {
    /// Whether its clients' calls fail now.
    #[must_use]
    pub fn suffers(&self) -> bool {
        (self.endpoints == 0 || self.state == State::Unusable) && self.clients > 0
    }
}

impl State {
    /// As the JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Unusable => "unusable",
            Self::Guarded => "guarded",
            Self::Held => "held",
            Self::Down => "down",
            Self::Unresolved => "unresolved",
            Self::Drained => "drained",
            Self::Ok => "ok",
        }
    }
}

impl From<String> for State {
    /// What later versions add is not known to be bad.
    fn from(text: String) -> Self {
        let known = [
            Self::Empty,
            Self::Unusable,
            Self::Guarded,
            Self::Held,
            Self::Down,
            Self::Unresolved,
            Self::Drained,
        ];
        known.into_iter().find(|state| state.as_str() == text).unwrap_or_default()
    }
}
