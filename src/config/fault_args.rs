//! The flags that say what happens to those whose registration is in doubt.
//!
//! In: text from flags and environment. Out: [`Rules`], or every problem there
//! is. Reads no file, connects to nothing.

use std::time::Duration;

use super::take;
use crate::catalog::Rules;

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

/// Beyond a day an address has long been somebody else's.
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// More often, and probes are load.
const PROBE_MIN: Duration = Duration::from_secs(1);

impl FaultArgs {
    /// The rules; adds its problems.
    #[must_use]
    pub fn validate(&self, problems: &mut Vec<String>) -> Rules {
        let keep = duration("--keep-lost", &self.keep_lost, Duration::ZERO, problems);
        let probe = &self.probe_unleased;
        let probe_unleased = duration("--probe-unleased", probe, PROBE_MIN, problems);
        let share = self.guard.parse().ok().filter(|share| *share <= 100).unwrap_or_else(|| {
            problems.push(format!("--guard: {:?} is no number from 0 to 100", self.guard));
            0
        });
        Rules { keep, share, probe_unleased }
    }
}

fn duration(flag: &str, text: &str, min: Duration, problems: &mut Vec<String>) -> Duration {
    let duration = take(flag, humantime::parse_duration(text), problems).unwrap_or_default();
    if !duration.is_zero() && !(min..=KEEP_MAX).contains(&duration) {
        let min = humantime::format_duration(min.max(Duration::from_secs(1)));
        problems.push(format!("{flag}: {text:?} is neither 0s nor from {min} to 1day"));
    }
    duration
}
