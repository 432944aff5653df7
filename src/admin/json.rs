//! The JSON of `/api/v1`, in types of its own, because others rely on the format.
//!
//! The balancer writes it; its command line reads it. Durations are seconds with three
//! decimals. Fields are added, but never renamed or given new meanings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog;
use crate::load;
use crate::model;
use crate::registry as source;

mod balancers;
mod cells;
mod clients;
mod explain;
mod list_changes;
mod marks;
mod registry;
mod sent;
mod services;
mod settings;
mod status;
mod zones;

pub use balancers::{Balancer, Balancers, RejectedBalancer};
pub use cells::{CellClients, CellGroup, Cells};
pub(super) use clients::stream_id;
pub use clients::{Client, Clients, Denied, DeniedClients, Xds};
pub use explain::{Explained, Explanation, Pass};
pub use list_changes::{FromTo, ListChange, ListChanges, ServiceLists, ShareChange};
pub use marks::{
    ClientMarkAnswer, DrainAnswer, Mark, Marks, Order, RefusedMark, Released, UndrainAnswer,
};
pub(super) use registry::Counts;
pub use registry::{Registry, Stale};
pub use sent::{
    ClientSent, Says, SentDrop, SentEndpoints, SentEntry, SentLocality, SentName, SentResource,
    SentType,
};
pub use services::{ByProtocol, Service, Services, State, Unknown};
pub use settings::{Changed, Diff, InForce, ServiceSettings, Settings, Source, Unmatched};
pub use status::{Certificate, Status};
pub use zones::{ZoneShares, Zones};

/// `/api/v1/services/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// The name as registered.
    pub name: String,
    /// The name that clients dial, without the `dns:///`.
    pub dns_name: String,
    /// Selectors parsed from the requested name.
    pub selectors: Vec<Selector>,
    /// The registry's revision that brought these backends.
    pub revision: i64,
    /// Open streams of clients of this service.
    pub clients: usize,
    /// The same by protocol.
    #[serde(default)]
    pub clients_by_protocol: ByProtocol,
    /// The sums of the calls that clients of this service report.
    pub calls: Calls,
    /// Whether the guard keeps backends that do not answer.
    #[serde(default)]
    pub guarded: bool,
    /// Whether too little of it is healthy, so that unhealthy backends are listed too. Where
    /// health is only observed: whether it would be so.
    #[serde(default)]
    pub panic: bool,
    /// The split in force; null if nothing is split.
    #[serde(default)]
    pub split: Option<Split>,
    /// The backends in the order of the lists, then those that are down.
    pub endpoints: Vec<Endpoint>,
    /// The zone whose clients get these turns and shares; null: those in no zone that keeps
    /// its calls.
    #[serde(default)]
    pub zone: Option<String>,
    /// How the calls are split by zone; null if the service's settings do not ask for it.
    #[serde(default)]
    pub zones: Option<Zones>,
    /// How the backends are divided into cells; null if they are not.
    #[serde(default)]
    pub cells: Option<Cells>,
    /// The part of their calls that clients drop because they start more than the backends can
    /// serve, in percent.
    #[serde(default)]
    pub overload_shed: u32,
}

/// A share of the calls or of the clients for some backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// What these backends have in their metadata: `version=v2`.
    pub select: String,
    /// `calls` or `clients`.
    pub by: String,
    /// Their share now, from 0 to 1.
    pub share: f64,
}

/// One `key--value` label of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// `id`, or a key of the backends' metadata.
    pub key: String,
    /// The value that a backend must have.
    pub value: String,
}

/// One backend of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The backend's name.
    pub id: String,
    /// `ip:port`.
    pub address: String,
    /// The weight as registered.
    pub weight: u32,
    /// How many entries it has in one cycle of the list for the requested name; 0 means
    /// none. Where a cycle is longer than a list, each client is sent a part of it.
    pub turns: usize,
    /// The share of the calls that its weight asks for, from 0 to 1.
    #[serde(default)]
    pub due: f64,
    /// The share that it gets, over all clients. It may differ, because entries are
    /// whole.
    #[serde(default)]
    pub share: f64,
    /// The `lb-token` of calls to it.
    pub token: String,
    /// All other metadata that it registered.
    pub meta: BTreeMap<String, String>,
    /// Set while it is held: listed although its registration is gone.
    #[serde(default)]
    pub held: Option<Held>,
    /// Whether it is down: registered without a lease, refusing connections, and
    /// therefore not listed.
    #[serde(default)]
    pub down: bool,
    /// The mark that keeps it out of the lists.
    #[serde(default)]
    pub drained: Option<Mark>,
    /// Seconds until it is listed, because it came and went too often; null if it is not
    /// delayed.
    #[serde(default)]
    pub delayed_seconds: Option<f64>,
    /// The part of its share that it gets while it starts, from 0 to 1; null if it does
    /// not start.
    #[serde(default)]
    pub slow_start: Option<f64>,
    /// The factor of its share by the load that it reports; null if that changes nothing.
    #[serde(default)]
    pub load_factor: Option<f64>,
    /// The calls to it that clients of xDS have reported; null if none has.
    #[serde(default)]
    pub reported: Option<BackendCalls>,
    /// What health checks find wrong with it; null if nothing is. `turns` says whether it is
    /// listed.
    #[serde(default)]
    pub unhealthy: Option<String>,
}

/// Calls to one backend, as clients report them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendCalls {
    /// Calls that began.
    pub started: u64,
    /// Calls that ended with the status `OK`.
    pub succeeded: u64,
    /// Calls that ended with another status.
    pub failed: u64,
}

impl From<crate::load::BackendCalls> for BackendCalls {
    fn from(calls: crate::load::BackendCalls) -> Self {
        let crate::load::BackendCalls { started, succeeded, failed } = calls;
        Self { started, succeeded, failed }
    }
}

/// Why a backend is listed without a registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Seconds since its registration was lost.
    pub seconds: f64,
    /// Why its registration counts as lost and not as ended.
    pub why: String,
    /// The result of the newest probe: `takes connections`, `refuses connections`, `does
    /// not answer`; null before the first.
    pub probe: Option<String>,
}

/// Calls as clients count them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Calls that began. grpc-go counts a call only when it has finished.
    pub started: u64,
    /// Calls that ended, including dropped ones.
    pub finished: u64,
    /// Calls that ended without reaching a backend, without dropped ones.
    pub failed_to_send: u64,
    /// Calls that ended with any answer of a backend.
    pub known_received: u64,
    /// Calls that ended because the list told the client to drop them.
    pub dropped: u64,
}

/// `/api/v1/rejected`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedKeys {
    /// How many rejected keys there are, whatever `limit` says.
    pub total: usize,
    /// The rejected keys, sorted by key.
    pub rejected: Vec<Rejected>,
    /// How many keys are read although something about them is odd.
    #[serde(default)]
    pub remarks_total: usize,
    /// The keys with remarks, sorted by key.
    #[serde(default)]
    pub remarks: Vec<Remarked>,
}

/// A key that is read although something about it is odd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remarked {
    /// The key as stored. Bytes that are no text are replaced.
    pub key: String,
    /// A text for each oddity, with the value that is used instead.
    pub remarks: Vec<String>,
}

/// A key that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The key as stored. Bytes that are no text are replaced.
    pub key: String,
    /// The beginning of its value.
    pub value: String,
    /// The error and its remedy.
    pub reason: String,
}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The error and its remedy.
    pub error: String,
}

/// How many characters of a key are shown. etcd accepts keys of a megabyte.
const KEY_SHOWN_MAX: usize = 1024;

impl From<&catalog::HeldBackend> for Held {
    fn from(held: &catalog::HeldBackend) -> Self {
        Self {
            seconds: seconds(held.since.elapsed()),
            why: held.why.as_str().to_owned(),
            probe: held.answer.map(|answer| answer.as_str().to_owned()),
        }
    }
}

impl From<&model::Selector> for Selector {
    fn from(selector: &model::Selector) -> Self {
        let model::Selector { key, value } = selector.clone();
        Self { key, value }
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

/// Returns a duration in seconds, with three decimals.
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
