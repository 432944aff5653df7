//! The JSON of `/api/v1/clients/{id}`: what one client was sent last.
//!
//! The balancer writes it; its command line reads it, like all of `json`.

use serde::{Deserialize, Serialize};

use super::Client;
use crate::telemetry;

/// `/api/v1/clients/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientSent {
    /// How many names the stream has, whatever `limit` says.
    pub total: usize,
    /// The stream's rows in `/api/v1/clients`.
    pub clients: Vec<Client>,
    /// The list of a BalanceLoad stream, in order; null for xDS, and if it is no longer in
    /// memory because a newer one is on its way.
    pub list: Option<Vec<SentEntry>>,
    /// The newest response of each type on an xDS stream; empty for grpclb.
    pub types: Vec<SentType>,
    /// The resources of each name on an xDS stream; empty for grpclb.
    pub names: Vec<SentName>,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentEntry {
    /// `ip:port`; null: the client drops the call.
    pub address: Option<String>,
    /// The `lb-token` of calls to it.
    pub token: String,
}

/// The newest response of one type of resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentType {
    /// `listener`, `cluster` or `endpoints`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its version; null before the first.
    pub version: Option<String>,
    /// Its nonce; null before the first.
    pub nonce: Option<String>,
    /// `nothing` (none was sent), `unanswered`, `accepted` or `refused`.
    pub state: String,
    /// The version of the newest response of the type that the client accepted.
    pub accepted: Option<String>,
    /// Its own words about a response that it refused, until it accepts one of that type.
    pub refusal: Option<String>,
}

/// The resources of one name. A resource that was not sent is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SentName {
    /// The name that the client asked for.
    pub name: String,
    /// How calls find a cluster.
    pub listener: Option<SentResource>,
    /// How the client balances.
    pub cluster: Option<SentResource>,
    /// The backends.
    pub endpoints: Option<SentEndpoints>,
}

/// A listener or a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentResource {
    /// The name of the resource.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether this is certainly what was sent. False while a newer one is on its way, and on
    /// streams with more than 1,000 names.
    pub as_sent: bool,
    /// What it says.
    pub says: Vec<Says>,
}

/// One part of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Says {
    /// The part, such as `timeout`.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// The backends of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentEndpoints {
    /// The name of the resource.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `list`, `empty`, `unreachable`, `drop`, `denied` or `invalid`.
    pub told: String,
    /// The parts of the calls that the client drops.
    pub drops: Vec<SentDrop>,
    /// The localities in order; null if they are no longer in memory because newer ones are on
    /// their way.
    pub localities: Option<Vec<SentLocality>>,
}

/// A part of the calls that a client drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDrop {
    /// Why.
    pub category: String,
    /// How many, in percent.
    pub percent: u32,
}

/// The backends that share a weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentLocality {
    /// Its name.
    pub name: String,
    /// Its weight among the localities.
    pub weight: u32,
    /// Its backends as `ip:port`.
    pub backends: Vec<String>,
}

impl From<&telemetry::SentEntry> for SentEntry {
    fn from(entry: &telemetry::SentEntry) -> Self {
        let address = entry.backend.map(|backend| backend.to_string());
        Self { address, token: entry.token.clone() }
    }
}

impl From<&telemetry::SentType> for SentType {
    fn from(sent: &telemetry::SentType) -> Self {
        Self {
            kind: sent.kind.to_owned(),
            version: sent.version.map(version),
            nonce: (sent.nonce > 0).then(|| sent.nonce.to_string()),
            state: sent.state.to_owned(),
            accepted: sent.accepted.map(version),
            refusal: sent.refusal.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&telemetry::SentName> for SentName {
    fn from(sent: &telemetry::SentName) -> Self {
        Self {
            name: sent.name.to_string(),
            listener: sent.listener.as_ref().map(SentResource::from),
            cluster: sent.cluster.as_ref().map(SentResource::from),
            endpoints: sent.endpoints.as_ref().map(SentEndpoints::from),
        }
    }
}

impl From<&telemetry::SentResource> for SentResource {
    fn from(sent: &telemetry::SentResource) -> Self {
        let says =
            |(key, value): &(&str, String)| Says { key: (*key).to_owned(), value: value.clone() };
        Self {
            name: sent.name.clone(),
            version: version(sent.version),
            as_sent: sent.as_sent,
            says: sent.says.iter().map(says).collect(),
        }
    }
}

impl From<&telemetry::SentEndpoints> for SentEndpoints {
    fn from(sent: &telemetry::SentEndpoints) -> Self {
        let drop = |(category, percent): &(String, u32)| SentDrop {
            category: category.clone(),
            percent: *percent,
        };
        let locality = |one: &telemetry::SentLocality| SentLocality {
            name: one.name.clone(),
            weight: one.weight,
            backends: one.backends.iter().map(ToString::to_string).collect(),
        };
        let localities = sent.localities.as_ref();
        Self {
            name: sent.name.clone(),
            version: version(sent.version),
            told: sent.told.as_str().to_owned(),
            drops: sent.drops.iter().map(drop).collect(),
            localities: localities.map(|all| all.iter().map(locality).collect()),
        }
    }
}

/// Returns a version as clients are sent it.
pub(super) fn version(version: u64) -> String {
    format!("{version:016x}")
}
