//! The JSON of the registry: how far and how recently it was read, and what an operator
//! should know of it.
//!
//! The balancer writes it; its command line reads it, like all of `json`.

use serde::{Deserialize, Serialize};

use super::seconds;
use crate::catalog;

/// `/api/v1/registry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// Whether the registry has been read completely, at least once.
    pub synced: bool,
    /// The newest revision known.
    pub revision: i64,
    /// Keys read, including rejected ones.
    pub keys: usize,
    /// Rejected keys.
    pub rejected: usize,
    /// Services that have a backend.
    pub services: usize,
    /// Seconds since the registry last answered; null if it never did.
    pub silent_seconds: Option<f64>,
    /// Set while the registry is stale.
    pub stale: Option<Stale>,
    /// Set while the registry is unread and the saved state is served: when it was saved.
    #[serde(default)]
    pub restored: Option<String>,
    /// What clients are served while the registry is stale, in words.
    #[serde(default)]
    pub served: Option<String>,
    /// Services that lost all their backends a short time ago, or are still asked for.
    #[serde(default)]
    pub services_empty: usize,
    /// Streams that ask for names without any backend.
    #[serde(default)]
    pub streams_waiting: usize,
    /// Held backends: listed although their registrations are gone.
    #[serde(default)]
    pub endpoints_held: usize,
    /// Services whose guard keeps backends that do not answer.
    #[serde(default)]
    pub services_guarded: usize,
    /// Backends that are down: registered, refusing connections, and not listed.
    #[serde(default)]
    pub endpoints_down: usize,
    /// Services in panic: too little of them is healthy, so unhealthy backends are listed.
    #[serde(default)]
    pub services_in_panic: usize,
    /// Unhealthy backends.
    #[serde(default)]
    pub endpoints_unhealthy: usize,
    /// Backends whose host names do not resolve.
    #[serde(default)]
    pub endpoints_unresolved: usize,
    /// Keys that are read although something about them is odd.
    #[serde(default)]
    pub remarks: usize,
}

/// The counts in [`Registry`].
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::admin) struct Counts {
    pub(in crate::admin) services: usize,
    pub(in crate::admin) rejected: usize,
    pub(in crate::admin) empty: usize,
    pub(in crate::admin) waiting: usize,
    pub(in crate::admin) held: usize,
    pub(in crate::admin) guarded: usize,
    pub(in crate::admin) down: usize,
    pub(in crate::admin) panic: usize,
    pub(in crate::admin) unhealthy: usize,
    pub(in crate::admin) unresolved: usize,
    pub(in crate::admin) remarks: usize,
}

/// Why the registry is stale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stale {
    /// For how many seconds.
    pub seconds: f64,
    /// The error.
    pub reason: String,
}

impl Registry {
    pub(in crate::admin) fn new(status: &catalog::RegistryStatus, counts: Counts) -> Self {
        Self {
            synced: status.synced,
            revision: status.revision,
            keys: status.keys,
            rejected: counts.rejected,
            services: counts.services,
            silent_seconds: status.last_answer.map(|heard| seconds(heard.elapsed())),
            stale: status.stale.as_ref().map(|(since, reason)| Stale {
                seconds: seconds(since.elapsed()),
                reason: reason.clone(),
            }),
            restored: status.restored.clone(),
            served: status.stale.as_ref().map(|_| status.served().to_owned()),
            services_empty: counts.empty,
            streams_waiting: counts.waiting,
            endpoints_held: counts.held,
            services_guarded: counts.guarded,
            endpoints_down: counts.down,
            services_in_panic: counts.panic,
            endpoints_unhealthy: counts.unhealthy,
            endpoints_unresolved: counts.unresolved,
            remarks: counts.remarks,
        }
    }

    /// Returns what an operator should know, one line each, the worst first.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(Stale { seconds, reason }) = &self.stale {
            let served = self.served.as_deref().unwrap_or_default();
            notices.push(format!("registry stale for {seconds:.0} s ({reason}): {served}"));
        }
        if let Some(saved) = &self.restored {
            notices.push(format!("registry not read yet: serving the state saved at {saved}"));
        }
        let mut count = |count: usize, text: &str| {
            if count > 0 {
                notices.push(format!("{count} {text}"));
            }
        };
        count(self.streams_waiting, "streams ask for services without backends");
        count(
            self.services_in_panic,
            "services are in panic: too little of them is healthy, so all of it is listed",
        );
        count(self.endpoints_unhealthy, "backends are unhealthy");
        count(self.services_guarded, "services are guarded: they keep backends that do not answer");
        count(
            self.endpoints_held,
            "backends are held: listed although their registrations are gone",
        );
        count(self.endpoints_down, "backends are down: they refuse connections and are not listed");
        count(
            self.endpoints_unresolved,
            "backends are unresolved: their host names do not resolve",
        );
        notices
    }
}
