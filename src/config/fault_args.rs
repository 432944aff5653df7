//! The flags that say what happens to those whose registration is in doubt.
//!
//! In: text from flags and environment. Out: the flags as `clap` reads them; each is
//! the default of a per-service setting, whose range `settings` knows.

/// What happens in faults.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FaultArgs {
    /// Where the last good lists are kept, for a start while etcd is down [default: nowhere]
    #[arg(long, value_name = "DIR", env = "LOOKASIDE_STATE_DIR")]
    pub state_dir: Option<String>,
    /// How long a backend whose registration was lost stays listed while it answers; 0s: it leaves
    /// the lists at once
    // Longer than any election, restart or repair of etcd that someone attends to; shorter than
    // it takes for an address to go to another service unnoticed.
    #[arg(long, value_name = "DURATION", default_value = "10m", env = "LOOKASIDE_KEEP_LOST")]
    pub keep_lost: String,
    /// The part of a service that stays for that time even if nothing answers; 0: none
    // Envoy's panic threshold, for its reason: below half, our own view is the likelier fault.
    #[arg(long, value_name = "PERCENT", default_value = "50", env = "LOOKASIDE_GUARD")]
    pub guard: String,
    /// How often registrations without a lease are probed, to leave out the dead; 0s: never
    // Off: nobody expects a balancer to connect to every server.
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "LOOKASIDE_PROBE_UNLEASED")]
    pub probe_unleased: String,
}
