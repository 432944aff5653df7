//! Flags for faults: lost registrations, dead backends, a start without etcd.
//!
//! In: text from flags and environment. Out: the flags as `clap` reads them. All but
//! `--state-dir` are defaults of per-service settings, which `settings` validates.

use crate::settings::Key;

/// Flags for faults.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FaultArgs {
    /// Directory for the last good lists, served after a start without etcd [default: not saved]
    #[arg(long, value_name = "DIR", env = "LOOKASIDE_STATE_DIR")]
    pub state_dir: Option<String>,
    /// How long a backend whose registration was lost stays listed while it answers probes; 0s: it
    /// leaves the lists at once
    // Longer than an election, a restart or an attended repair of etcd; shorter than the time
    // after which an address is reused by another service.
    #[arg(long, value_name = "DURATION", default_value = "10m", env = "LOOKASIDE_KEEP_LOST")]
    pub keep_lost: String,
    /// The part of a service that stays listed for that time even if no backend answers; 0: none
    // Like Envoy's panic threshold: if more than half seem dead, the balancer's own view is more
    // likely wrong.
    #[arg(long, value_name = "PERCENT", default_value = "50", env = "LOOKASIDE_GUARD")]
    pub guard: String,
    /// The time between probes of a backend registered without a lease, which is not listed while
    /// dead; 0s: no probes
    // Off by default: operators do not expect a balancer to connect to every backend.
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "LOOKASIDE_PROBE_UNLEASED")]
    pub probe_unleased: String,
}

impl FaultArgs {
    /// Returns the flags that are settings of services.
    pub(super) fn settings(&self) -> [(Key, &String); 3] {
        [
            (Key::Guard, &self.guard),
            (Key::KeepLost, &self.keep_lost),
            (Key::ProbeUnleased, &self.probe_unleased),
        ]
    }
}
