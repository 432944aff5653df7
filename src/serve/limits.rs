//! How many connections there may be, and over how long they are sent away.
//!
//! In: the limit of open files, the number of connections. Out: numbers. The
//! system is asked once, at start.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for etcd, DNS, HTTP and files: clients must never keep the
/// balancer from hearing its registry.
const RESERVED: u64 = 256;
/// Where the system knows no limit, or one that memory would not bear.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// So fast are clients sent away: slower than others can take them in (13,000
/// a second and core, measured), so that no herd arises.
const AWAY_PER_MILLISECOND: usize = 2;
/// Whoever stops a balancer does not wait for longer.
const SPREAD_MAX: Duration = Duration::from_secs(10);

/// Takes as many descriptors as the system lets us have, and says how many
/// connections that makes.
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

/// A few at least, whatever is reserved.
fn connections(open_files: Option<u64>) -> u64 {
    let files = open_files.unwrap_or(CONNECTIONS_MAX);
    files.saturating_sub(RESERVED).max(files / 2).min(CONNECTIONS_MAX)
}

/// Over how long so many connections are sent away.
pub(super) fn spread(connections: usize) -> Duration {
    let millis = u64::try_from(connections / AWAY_PER_MILLISECOND).unwrap_or(u64::MAX);
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
        assert_eq!(spread(1), Duration::ZERO);
        assert_eq!(spread(1_000), Duration::from_millis(500));
        assert_eq!(spread(1_000_000), SPREAD_MAX);
    }
}
