//! Computes how many connections may be open, and how long a drain takes.
//!
//! In: the limit of open files, the number of connections. Out: numbers. The operating
//! system is asked once, at the start.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for etcd, DNS, HTTP and files. Clients must never keep the balancer
/// from reading its registry.
const RESERVED: u64 = 256;
/// The limit where the operating system has none, or one so high that memory would not
/// suffice.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// Connections told to leave per millisecond while draining. Other balancers can accept more
/// (13,000 a second and core, measured), so no stampede arises.
const CLOSED_PER_MILLISECOND: usize = 2;
/// The longest drain. An operator who stops a balancer does not wait longer.
const SPREAD_MAX: Duration = Duration::from_secs(10);

/// Raises the limit of open files as far as the operating system allows. Returns the number
/// of connections for which there is room then.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            limit.current
        }
    };
    connections(now)
}

/// Returns how many connections the open files allow: at least half of them, whatever
/// is reserved.
fn connections(open_files: Option<u64>) -> u64 {
    let files = open_files.unwrap_or(CONNECTIONS_MAX);
    files.saturating_sub(RESERVED).max(files / 2).min(CONNECTIONS_MAX)
}

/// Returns over how long this many connections are told to leave.
pub(super) fn drain_time(connections: usize) -> Duration {
    let millis = u64::try_from(connections / CLOSED_PER_MILLISECOND).unwrap_or(u64::MAX);
    Duration::from_millis(millis).min(SPREAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_for_the_registry() {
        assert_eq!(connections(Some(20_000)), 19_744);
        assert_eq!(connections(Some(256)), 128);
        assert_eq!(connections(None), 999_744);
    }

    #[test]
    fn few_are_sent_away_at_once_and_many_in_turn() {
        assert_eq!(drain_time(1), Duration::ZERO);
        assert_eq!(drain_time(1_000), Duration::from_millis(500));
        assert_eq!(drain_time(1_000_000), SPREAD_MAX);
    }
}
