//! The JSON of `/api/v1/status`.
//!
//! In: the state of the process. Out: its readiness, its registry, its certificates and
//! refused settings.

use serde::{Deserialize, Serialize};

use super::{Registry, Source};

/// `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The DNS zone.
    pub zone: String,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// The conditions that `/readyz` reports as missing.
    pub missing: Vec<String>,
    /// The registry's status, as in `/api/v1/registry`.
    pub registry: Registry,
    /// The certificates that are read from files.
    pub certificates: Vec<Certificate>,
    /// The uses of files that changed and cannot be used, so that their former contents are.
    pub credentials_broken: Vec<String>,
    /// The sources of settings whose newest document is refused, as in `/api/v1/settings`.
    #[serde(default)]
    pub settings_refused: Vec<Source>,
}

/// A certificate, or several in one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its use, as in the metrics.
    #[serde(rename = "use")]
    pub used_for: String,
    /// Seconds until the first of them ends; negative once it has ended.
    pub ends_in_seconds: f64,
    /// Whether it ends within thirty days.
    pub ends_soon: bool,
}
