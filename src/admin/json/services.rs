//! The JSON of the list of services: counts, and the state of each service.
//!
//! The balancer writes it; its command line reads it, like all of `json`.

use serde::{Deserialize, Serialize};

use super::Calls;

/// `/api/v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// How many services there are, whatever `limit` says.
    pub total: usize,
    /// The services, sorted by name. A service that lost all its backends stays for as
    /// long as streams ask for it, and ten minutes more.
    pub services: Vec<Service>,
    /// How many services have a state other than `ok`.
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

/// A name that streams ask for, and that was not registered since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unknown {
    /// The name without port and zone, in lower case.
    pub name: String,
    /// Open streams that ask for it.
    pub clients: usize,
    /// Seconds since it was first asked for.
    pub since_seconds: f64,
}

/// How many open streams of clients there are by protocol. Of an xDS stream, each name counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByProtocol {
    /// Streams of grpclb.
    pub grpclb: usize,
    /// Names on streams of xDS.
    pub xds: usize,
}

/// The state of a service, the worst first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "String")]
pub enum State {
    /// It has no backend any more.
    Empty,
    /// None of its backends takes calls: all have the weight 0 or are drained.
    Unusable,
    /// Too little of it is healthy, so unhealthy backends are listed too.
    Panic,
    /// Its guard keeps backends that do not answer, because too few would be left.
    Guarded,
    /// Some of its backends are listed although their registrations are gone.
    Held,
    /// Some of its backends are registered but not listed: they refuse connections.
    Down,
    /// Some of its backends are not listed, because health checks find them unhealthy.
    Unhealthy,
    /// Some or all of its backends are registered by host names that do not resolve, and
    /// are not listed.
    Unresolved,
    /// Its clients drop a part of their calls, by an operator's mark or because it is
    /// overloaded.
    Shedding,
    /// Its clients use the addresses from DNS, by an operator's mark.
    Fallback,
    /// Some of its backends are kept out of the lists by an operator's mark.
    Drained,
    /// None of these.
    #[default]
    Ok,
}

/// One service in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The name as registered.
    pub name: String,
    /// The name that clients dial, without the `dns:///`.
    pub dns_name: String,
    /// How many backends it lists.
    pub endpoints: usize,
    /// How many of them are held: listed although their registrations are gone.
    #[serde(default)]
    pub held: usize,
    /// Whether the guard keeps some of those although they do not answer, because too few
    /// would be left.
    #[serde(default)]
    pub guarded: bool,
    /// How many are registered but not listed, because they refuse connections.
    #[serde(default)]
    pub down: usize,
    /// How many are registered but not listed, because their host names do not resolve.
    #[serde(default)]
    pub unresolved: usize,
    /// How many are kept out of the lists by an operator's mark.
    #[serde(default)]
    pub drained: usize,
    /// The part of their calls that its clients drop, by an operator's mark or because it is
    /// overloaded, in percent: the largest of any of them.
    #[serde(default)]
    pub shed: u32,
    /// Whether its clients use the addresses from DNS, by an operator's mark.
    #[serde(default)]
    pub fallback: bool,
    /// The part that they drop because they start more calls than its backends can serve, in
    /// percent.
    #[serde(default)]
    pub overload_shed: u32,
    /// How many of its backends are asked for their load and do not report it.
    #[serde(default)]
    pub load_silent: usize,
    /// How many health checks find unhealthy.
    #[serde(default)]
    pub unhealthy: usize,
    /// Whether too little of it is healthy, so that these are listed too. Where health is
    /// only observed: whether it would be so.
    #[serde(default)]
    pub panic: bool,
    /// `empty`, `unusable`, `panic`, `guarded`, `held`, `down`, `unhealthy`, `unresolved`,
    /// `shedding`, `fallback`, `drained` or `ok`.
    #[serde(default)]
    pub state: State,
    /// Seconds since it is `empty`, or since the first held backend lost its
    /// registration.
    #[serde(default)]
    pub since_seconds: Option<f64>,
    /// The registry's revision that brought its backends; 0 if there are none.
    pub revision: i64,
    /// Open streams of its clients, including those that wait for it.
    pub clients: usize,
    /// The same by protocol: how far its clients have moved from one to the other.
    #[serde(default)]
    pub clients_by_protocol: ByProtocol,
    /// The sums of the calls that its clients report.
    pub calls: Calls,
}

impl Service {
    /// Returns whether its clients' calls fail now.
    #[must_use]
    pub fn suffers(&self) -> bool {
        (self.endpoints == 0 || self.state == State::Unusable) && self.clients > 0
    }
}

impl State {
    /// Returns the state as the JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Unusable => "unusable",
            Self::Panic => "panic",
            Self::Guarded => "guarded",
            Self::Held => "held",
            Self::Down => "down",
            Self::Unhealthy => "unhealthy",
            Self::Unresolved => "unresolved",
            Self::Shedding => "shedding",
            Self::Fallback => "fallback",
            Self::Drained => "drained",
            Self::Ok => "ok",
        }
    }
}

impl From<String> for State {
    /// A state of a later version counts as `ok`: it is not known to be bad.
    fn from(text: String) -> Self {
        let known = [
            Self::Empty,
            Self::Unusable,
            Self::Panic,
            Self::Guarded,
            Self::Held,
            Self::Down,
            Self::Unhealthy,
            Self::Unresolved,
            Self::Shedding,
            Self::Fallback,
            Self::Drained,
        ];
        known.into_iter().find(|state| state.as_str() == text).unwrap_or_default()
    }
}
