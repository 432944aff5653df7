//! The JSON of `/api/v1/settings`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ListChanges;

/// `/api/v1/settings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The sources of settings, the strongest first.
    pub sources: Vec<Source>,
    /// How many services there are, whatever `limit` says.
    pub total: usize,
    /// Services with backends and names that streams wait for, sorted.
    pub services: Vec<ServiceSettings>,
    /// Patterns that match none of the services.
    pub unmatched: Vec<Unmatched>,
    /// The zone of each network.
    #[serde(default)]
    pub networks: BTreeMap<String, String>,
    /// What the aliases of zones stand for.
    #[serde(default)]
    pub zone_aliases: BTreeMap<String, String>,
}

/// A source of settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// `etcd`, `file` or `flags`.
    pub source: String,
    /// The key in etcd, or the path of the file.
    pub place: Option<String>,
    /// How many of its tables are in force.
    pub tables: usize,
    /// The revision in etcd that is in force; null while there is none.
    pub revision: Option<i64>,
    /// Why the newest document is refused. The former one is in force.
    pub refused: Option<String>,
    /// How long it has been refused; null if it is in force.
    #[serde(default)]
    pub refused_seconds: Option<f64>,
    /// Why the source cannot be read now. Its settings stay in force.
    #[serde(default)]
    pub unheard: Option<String>,
}

/// The settings in force for one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// The name as registered, or as asked for if it is not.
    pub service: String,
    /// The settings by key.
    pub settings: BTreeMap<String, InForce>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The value as a document writes it.
    pub value: String,
    /// `etcd`, `file` or `flags`.
    pub source: String,
    /// The pattern that sets it; null for the flags.
    pub pattern: Option<String>,
}

/// A pattern that matches no service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmatched {
    /// `etcd` or `file`.
    pub source: String,
    /// The pattern as written.
    pub pattern: String,
}

/// The answer to `/api/v1/settings/diff`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// The revision in etcd that the document is compared with; null: there is none.
    pub revision: Option<i64>,
    /// How many settings of services would change.
    pub total: usize,
    /// How many networks or aliases of zones would change.
    #[serde(default)]
    pub zones: usize,
    /// The first of the changes, by service.
    pub changes: Vec<Changed>,
    /// Patterns of the document that match no service.
    pub unmatched: Vec<String>,
    /// How the lists of services would change; null from a balancer of a former version.
    #[serde(default)]
    pub lists: Option<ListChanges>,
}

/// A setting of a service that would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The service.
    pub service: String,
    /// The setting's key.
    pub key: String,
    /// The setting in force.
    pub before: InForce,
    /// The setting that would be in force.
    pub after: InForce,
}
