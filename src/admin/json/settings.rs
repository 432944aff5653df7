//! The JSON of `/api/v1/settings`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `/api/v1/settings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Where settings come from, the strongest first.
    pub sources: Vec<Source>,
    /// How many services there are, whatever `limit` says.
    pub total: usize,
    /// Services with backends and names that streams wait for, sorted.
    pub services: Vec<ServiceSettings>,
    /// Patterns that match none of them.
    pub unmatched: Vec<Unmatched>,
}

/// A source of settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// `etcd`, `file` or `flags`.
    pub source: String,
    /// The key in etcd, or the file.
    pub place: Option<String>,
    /// How many tables of it are in force.
    pub tables: usize,
    /// The revision in etcd that is in force; null while there is none.
    pub revision: Option<i64>,
    /// Why the newest document is refused, so that the former is in force.
    pub refused: Option<String>,
    /// Why nothing can be heard of it now; what is in force stays.
    #[serde(default)]
    pub unheard: Option<String>,
}

/// What is in force for one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// As registered, or as asked for while nothing is.
    pub service: String,
    /// By key.
    pub settings: BTreeMap<String, InForce>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// As a document writes it.
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
    /// As written.
    pub pattern: String,
}

/// The answer to `/api/v1/settings/diff`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// The revision in etcd that the document is compared with; null: there is none.
    pub revision: Option<i64>,
    /// How many settings of services would be others.
    pub total: usize,
    /// The first of them, by service.
    pub changes: Vec<Changed>,
    /// Patterns of the document that match no service.
    pub unmatched: Vec<String>,
}

/// A setting of a service that would be another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The service.
    pub service: String,
    /// The setting.
    pub key: String,
    /// What is in force.
    pub before: InForce,
    /// What would be.
    pub after: InForce,
}
