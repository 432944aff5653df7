//! Flags for traffic policy: which share of the calls a backend gets.
//!
//! In: text from flags and environment. Out: the flags as `clap` reads them. They are
//! defaults of per-service settings, which `settings` validates.

use crate::settings::{Key, XdsKey};

/// Flags for traffic policy.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PolicyArgs {
    /// How long a backend that joins takes to get its whole share, in five steps; 0s: it gets it
    /// at once
    // Off by default: each step is a list for every client, and most backends need no warm-up.
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "LOOKASIDE_SLOW_START")]
    pub slow_start: String,
    /// The longest time that a backend which comes and goes again and again is not listed after it
    /// came back; 0s: it is listed at once
    // Off by default, so that a backend that etcd holds is listed.
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "LOOKASIDE_FLAP_DELAY")]
    pub flap_delay: String,
    /// The clients that may ask for a service: all, nobody, or names in certificates and networks,
    /// separated by commas [default: all; see docs/authorization.md]
    #[arg(
        long,
        value_name = "LIST",
        default_value = "all",
        hide_default_value = true,
        env = "LOOKASIDE_CLIENTS"
    )]
    pub clients: String,
    /// Whether xDS clients report their calls (LRS): off or on
    // Off by default: each client opens a second stream for them.
    #[arg(long, value_name = "SWITCH", default_value = "off", env = "LOOKASIDE_XDS_REPORTS")]
    pub xds_reports: String,
}

impl PolicyArgs {
    /// Returns the flags, which are all settings of services.
    pub(super) fn settings(&self) -> [(Key, &String); 4] {
        [
            (Key::SlowStart, &self.slow_start),
            (Key::FlapDelay, &self.flap_delay),
            (Key::Clients, &self.clients),
            (Key::Xds(XdsKey::Reports), &self.xds_reports),
        ]
    }
}
