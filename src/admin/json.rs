//! The JSON of `/api/v1`: its own types, for a format is a promise to others.
//!
//! Written by the balancer, read by its command line. Durations are seconds
//! with three decimals. Fields are added, never renamed or given new meanings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog;
use crate::load;
use crate::registry as source;
use crate::telemetry::ClientView;

mod explain;
mod marks;
mod registry;
mod services;
mod settings;

pub use explain::{Explained, Explanation, Pass};
pub use marks::{DrainAnswer, Mark, Marks, Order, RefusedMark, Released, UndrainAnswer};
pub(super) use registry::Counts;
pub use registry::{Registry, Stale};
pub use services::{Service, Services, State, Unknown};
pub use settings::{Changed, Diff, InForce, ServiceSettings, Settings, Source, Unmatched};

/// `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's.
    pub version: String,
    /// The DNS zone.
    pub zone: String,
    /// Since the process started.
    pub uptime_seconds: f64,
    /// As `/readyz` says.
    pub ready: bool,
    /// What `/readyz` misses.
    pub missing: Vec<String>,
    /// As `/api/v1/registry`.
    pub registry: Registry,
}

/// `/api/v1/services/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// As registered.
    pub name: String,
    /// What clients dial: `dns:///` and this.
    pub dns_name: String,
    /// By what the name asked for chooses among the backends.
    pub selectors: Vec<Selector>,
    /// The store's revision that brought these backends.
    pub revision: i64,
    /// Open streams of its clients.
    pub clients: usize,
    /// The sums of its clients' reports.
    pub calls: Calls,
    /// Whether backends that do not answer are kept, for too few would be left.
    #[serde(default)]
    pub guarded: bool,
    /// In the order of every list; behind them those that are down.
    pub endpoints: Vec<Endpoint>,
}

/// One `key--value` label of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// `id`, or a key of the backends' metadata.
    pub key: String,
    /// What must stand there.
    pub value: String,
}

/// One backend of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The instance's name.
    pub id: String,
    /// `ip:port`.
    pub address: String,
    /// As registered.
    pub weight: u32,
    /// How often it stands in one cycle of the list for the name asked for; 0: not
    /// at all. Where a cycle is longer than a list, each client is sent a part.
    pub turns: usize,
    /// The share of the calls that its weight asks for, from 0 to 1.
    #[serde(default)]
    pub due: f64,
    /// The share that it has, over all clients: turns are whole numbers.
    #[serde(default)]
    pub share: f64,
    /// The `lb-token` of calls to it.
    pub token: String,
    /// Everything else it registered.
    pub meta: BTreeMap<String, String>,
    /// Set while it is listed though its registration is gone.
    #[serde(default)]
    pub held: Option<Held>,
    /// Whether it is registered without a lease, refuses connections, and is
    /// therefore not listed.
    #[serde(default)]
    pub down: bool,
    /// The mark that keeps it out of the lists.
    #[serde(default)]
    pub drained: Option<Mark>,
}

/// Why a backend is listed without a registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Since its registration went.
    pub seconds: f64,
    /// Why that is in doubt.
    pub why: String,
    /// What the newest probe came to: `takes connections`, `refuses
    /// connections`, `does not answer`; null before the first.
    pub probe: Option<String>,
}

/// `/api/v1/clients`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    /// How many match, whatever `limit` says.
    pub total: usize,
    /// Sorted by the name asked for, then by peer.
    pub clients: Vec<Client>,
}

/// One open BalanceLoad stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// `ip:port`.
    pub peer: String,
    /// What it says it is.
    pub user_agent: String,
    /// `go`, `java`, `core` or `other`.
    pub kind: String,
    /// The name it asked for, as typed.
    pub name: String,
    /// The service that the name means now; null while nothing is registered.
    pub service: Option<String>,
    /// What it was told last: `list`, `empty`, `drop` or `fallback`.
    pub told: String,
    /// How many entries its list has.
    pub entries: usize,
    /// The store's revision that brought its list.
    pub revision: i64,
    /// Since its list was handed to the connection.
    pub list_age_seconds: f64,
    /// Since its stream opened.
    pub open_seconds: f64,
    /// What it has reported on this stream.
    pub calls: Calls,
}

/// Calls as clients count them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Begun. grpc-go counts a call only when it is finished.
    pub started: u64,
    /// Ended, dropped ones included.
    pub finished: u64,
    /// Ended without having reached a server, dropped ones not included.
    pub failed_to_send: u64,
    /// Ended with any answer of a server's.
    pub known_received: u64,
    /// Ended because the list said so.
    pub dropped: u64,
}

/// `/api/v1/rejected`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedKeys {
    /// How many there are, whatever `limit` says.
    pub total: usize,
    /// Sorted by key.
    pub rejected: Vec<Rejected>,
    /// How many keys are read although something about them is odd.
    #[serde(default)]
    pub remarks_total: usize,
    /// Those, sorted by key.
    #[serde(default)]
    pub remarks: Vec<Remarked>,
}

/// A key that is read although something about it is odd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remarked {
    /// As stored; bytes that are no text are replaced.
    pub key: String,
    /// What is odd, and what counts instead.
    pub remarks: Vec<String>,
}

/// A key that could not be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// As stored; bytes that are no text are replaced.
    pub key: String,
    /// The beginning of its value.
    pub value: String,
    /// What is wrong, and the remedy.
    pub reason: String,
}

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, and the remedy.
    pub error: String,
}

/// How much of a key is repeated, in characters: etcd takes keys of a megabyte.
const KEY_SHOWN_MAX: usize = 1024;

impl From<&catalog::Held> for Held {
    fn from(held: &catalog::Held) -> Self {
        Self {
            seconds: seconds(held.since.elapsed()),
            why: held.why.as_str().to_owned(),
            probe: held.answer.map(|answer| answer.as_str().to_owned()),
        }
    }
}

impl From<&ClientView> for Client {
    fn from(view: &ClientView) -> Self {
        Self {
            peer: view.peer.to_string(),
            user_agent: view.user_agent.clone(),
            kind: view.kind.as_str().to_owned(),
            name: view.name.clone(),
            service: view.service.as_ref().map(ToString::to_string),
            told: view.told.to_owned(),
            entries: view.entries,
            revision: view.revision,
            list_age_seconds: seconds(view.told_at.elapsed()),
            open_seconds: seconds(view.opened.elapsed()),
            calls: view.calls.into(),
        }
    }
}

impl From<load::Calls> for Calls {
    fn from(calls: load::Calls) -> Self {
        let load::Calls { started, finished, failed_to_send, known_received, dropped } = calls;
        Self { started, finished, failed_to_send, known_received, dropped }
    }
}

impl From<&(source::Key, source::Rejected)> for Rejected {
    fn from((key, rejected): &(source::Key, source::Rejected)) -> Self {
        let source::Rejected { reason, value } = rejected.clone();
        Self { key: shown(key), value, reason }
    }
}

impl From<&(source::Key, Vec<source::Remark>)> for Remarked {
    fn from((key, remarks): &(source::Key, Vec<source::Remark>)) -> Self {
        Self { key: shown(key), remarks: remarks.iter().map(ToString::to_string).collect() }
    }
}

fn shown(key: &source::Key) -> String {
    let whole = key.to_string();
    let mut key: String = whole.chars().take(KEY_SHOWN_MAX).collect();
    if key.len() < whole.len() {
        key.push('…');
    }
    key
}

/// With three decimals.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_decimals() {
        assert_eq!(seconds(Duration::from_micros(1_234_567)).to_string(), "1.235");
        assert_eq!(seconds(Duration::from_micros(300)).to_string(), "0");
    }
}
