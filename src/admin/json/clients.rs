//! The JSON of clients: open streams, and clients that were denied a service.
//!
//! The balancer writes it; its command line reads it, like all of `json`.

use serde::{Deserialize, Serialize};

use super::sent::version;
use super::{Calls, seconds};
use crate::model;
use crate::telemetry::{self, ClientView, XdsView};

/// `/api/v1/clients`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    /// How many clients match, whatever `limit` says.
    pub total: usize,
    /// The clients, sorted by the requested name, then by peer.
    pub clients: Vec<Client>,
}

/// One open BalanceLoad stream, or one name on an open xDS stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// The id of its stream, such as `xds-7`; several names of an xDS stream share it.
    #[serde(default)]
    pub id: String,
    /// `ip:port`.
    pub peer: String,
    /// The names in its certificate, as the setting `clients` writes them.
    #[serde(default)]
    pub certificate: Vec<String>,
    /// The client's user agent.
    pub user_agent: String,
    /// `grpclb` or `xds`.
    #[serde(default = "grpclb")]
    pub protocol: String,
    /// `go`, `java`, `core`, `node`, `rust` or `other`.
    pub kind: String,
    /// The name that it asked for, as typed.
    pub name: String,
    /// The zone in which the client is; null if it is unknown or does not matter.
    #[serde(default)]
    pub zone: Option<String>,
    /// The part of the service's backends that its list has, such as `3/8`: the third of eight
    /// equal parts; null: all.
    #[serde(default)]
    pub subset: Option<String>,
    /// The service that the name means now; null while nothing is registered.
    pub service: Option<String>,
    /// The newest response to it: `list`, `empty`, `unreachable`, `drop`, `fallback`, `denied` or
    /// `invalid` (the name can mean no service).
    pub told: String,
    /// How many entries its list has; for xDS, how many backends.
    pub entries: usize,
    /// The registry's revision that brought its list.
    pub revision: i64,
    /// Seconds since its list was handed to the connection.
    pub list_age_seconds: f64,
    /// Seconds since its stream opened.
    pub open_seconds: f64,
    /// The calls that it has reported on this stream.
    pub calls: Calls,
    /// What only xDS streams have; null for grpclb.
    #[serde(default)]
    pub xds: Option<Xds>,
}

/// What an xDS client was sent and what it said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xds {
    /// The version of the newest backends that it was sent; null before the first.
    pub sent: Option<String>,
    /// The version of the newest backends that it accepted.
    pub accepted: Option<String>,
    /// Its own words about a response that it refused, until it accepts one of that type.
    pub refusal: Option<String>,
}

/// `/api/v1/denied`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeniedClients {
    /// How often a client was denied a service since the start.
    pub total: u64,
    /// One row for each name, the newest denial first.
    pub denied: Vec<Denied>,
}

/// A name that clients were denied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Denied {
    /// The canonical name of the service, registered or not; empty for names that are too
    /// many to have rows.
    pub name: String,
    /// How often it was denied since its first denial.
    pub times: u64,
    /// Seconds since it was denied first.
    pub first_seconds: f64,
    /// Seconds since it was denied last.
    pub last_seconds: f64,
    /// How the last client asked: `grpclb`, `xds` or `dns`.
    pub protocol: String,
    /// The IP address of the last client.
    pub client: String,
    /// The names in its certificate, as the setting `clients` writes them.
    pub certificate: Vec<String>,
}

impl From<&ClientView> for Client {
    fn from(view: &ClientView) -> Self {
        Self {
            id: stream_id(view),
            peer: view.peer.to_string(),
            certificate: model::ClientIdentity {
                addr: view.peer,
                certificate: view.certificate.clone(),
            }
            .names()
            .collect(),
            user_agent: view.user_agent.to_string(),
            protocol: view.protocol().as_str().to_owned(),
            kind: view.kind.as_str().to_owned(),
            name: view.name.to_string(),
            zone: view.zone.as_ref().map(ToString::to_string),
            subset: view.subset.map(|subset| subset.to_string()),
            service: view.service.as_ref().map(ToString::to_string),
            told: view.told.as_str().to_owned(),
            entries: view.entries,
            revision: view.revision,
            list_age_seconds: seconds(view.pushed_at.elapsed()),
            open_seconds: seconds(view.opened.elapsed()),
            calls: view.calls.into(),
            xds: view.xds.as_ref().map(Xds::from),
        }
    }
}

impl From<&XdsView> for Xds {
    fn from(view: &XdsView) -> Self {
        Self {
            sent: view.sent.map(version),
            accepted: view.accepted.map(version),
            refusal: view.refusal.as_ref().map(ToString::to_string),
        }
    }
}

/// Returns the id of a client's stream.
pub(in crate::admin) fn stream_id(view: &ClientView) -> String {
    format!("{}-{}", view.protocol().as_str(), view.stream)
}

/// Answers of older balancers do not name the protocol.
fn grpclb() -> String {
    "grpclb".to_owned()
}

impl From<&telemetry::Denied> for Denied {
    fn from(denied: &telemetry::Denied) -> Self {
        Self {
            name: denied.name.clone(),
            times: denied.times,
            first_seconds: seconds(denied.first.elapsed()),
            last_seconds: seconds(denied.last.elapsed()),
            protocol: denied.protocol.as_str().to_owned(),
            client: denied.client.to_string(),
            certificate: denied.certificate.clone(),
        }
    }
}
