//! The state of one stream of load reports (LRS).
//!
//! In: a client's messages. Out: the calls of each cluster that it names, and of each backend
//! that has a locality of its own; and how often it should report. Pure. It remembers which clusters had calls, because grpc-go and Node leave
//! out a cluster without calls.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::load::{BACKENDS_MAX, BackendCalls, Calls, REPORT_MAX};

use super::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use super::session::NAMES_MAX;

/// The state of a stream.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The clusters with calls in the last report.
    busy: BTreeSet<String>,
    /// Whether the client reports calls that began.
    reports_issued: bool,
    /// The interval that it was sent.
    interval: Option<Duration>,
}

/// What a message says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The calls of each cluster. Those that had calls before and have none now are among
    /// them.
    pub(super) clusters: Vec<(String, Calls)>,
    /// The calls to single backends: the place of their cluster, and their address.
    pub(super) backends: Vec<(usize, SocketAddr, BackendCalls)>,
    /// How many clusters were left out, because what they say cannot be true, or because
    /// there are too many.
    pub(super) rejected: usize,
}

/// The most clusters of a report that count: as many as an xDS stream has names.
const CLUSTERS_MAX: usize = NAMES_MAX;
/// The longest name of a cluster, in bytes. No name that a stream wants is longer.
const NAME_MAX: usize = 1_024;

impl Reports {
    /// Takes a message.
    pub(super) fn take(&mut self, stats: Vec<ClusterStats>) -> Report {
        let issued = |one: &ClusterStats| {
            one.upstream_locality_stats.iter().any(|locality| locality.total_issued_requests > 0)
        };
        self.reports_issued |= stats.iter().any(issued);
        let mut report = Report::default();
        let mut busy = BTreeSet::new();
        for (at, stats) in stats.into_iter().enumerate() {
            let fits = at < CLUSTERS_MAX && stats.cluster_name.len() <= NAME_MAX;
            let Some(calls) = calls(&stats, self.reports_issued).filter(|_| fits) else {
                report.rejected += 1;
                continue;
            };
            self.busy.remove(&stats.cluster_name);
            if calls.started > 0 {
                busy.insert(stats.cluster_name.clone());
            }
            let place = report.clusters.len();
            let backends = stats.upstream_locality_stats.iter().filter_map(backend);
            let backends = backends.take(BACKENDS_MAX);
            report.backends.extend(backends.map(|(address, calls)| (place, address, calls)));
            report.clusters.push((stats.cluster_name, calls));
        }
        let idle = std::mem::replace(&mut self.busy, busy);
        report.clusters.extend(idle.into_iter().map(|name| (name, Calls::default())));
        report
    }

    /// Returns an interval if the client has another one.
    pub(super) fn next_interval(&mut self, interval: Duration) -> Option<Duration> {
        (self.interval.replace(interval) != Some(interval)).then_some(interval)
    }

    /// Returns the clusters with calls in the last report.
    pub(super) fn busy(&self) -> impl Iterator<Item = &str> {
        self.busy.iter().map(String::as_str)
    }
}

/// Returns the calls to the one backend of a locality, which has its address as its name; `None`
/// if the locality is one of several backends.
fn backend(stats: &UpstreamLocalityStats) -> Option<(SocketAddr, BackendCalls)> {
    let address = stats.locality.as_ref()?.sub_zone.parse().ok()?;
    let calls = BackendCalls {
        started: stats.total_issued_requests,
        succeeded: stats.total_successful_requests,
        failed: stats.total_error_requests,
    };
    Some((address, calls))
}

/// Returns the calls of a cluster; `None` if a count is too large.
fn calls(stats: &ClusterStats, reports_issued: bool) -> Option<Calls> {
    let (mut issued, mut succeeded, mut failed) = (0_u64, 0_u64, 0_u64);
    for one in &stats.upstream_locality_stats {
        issued = issued.checked_add(one.total_issued_requests)?;
        succeeded = succeeded.checked_add(one.total_successful_requests)?;
        failed = failed.checked_add(one.total_error_requests)?;
    }
    let dropped = stats.total_dropped_requests;
    let ended = succeeded.checked_add(failed)?;
    let begun = if reports_issued { issued } else { ended };
    if [issued, ended, dropped].into_iter().any(|count| count > REPORT_MAX) {
        return None;
    }
    Some(Calls {
        started: begun + dropped,
        finished: ended + dropped,
        // A client does not say whether a call that failed reached its backend.
        failed_to_send: 0,
        known_received: succeeded,
        dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::envoy::config::core::v3::Locality;

    fn cluster(name: &str, localities: &[[u64; 3]], dropped: u64) -> ClusterStats {
        let locality = |&[issued, succeeded, failed]: &[u64; 3]| UpstreamLocalityStats {
            locality: None,
            total_issued_requests: issued,
            total_successful_requests: succeeded,
            total_error_requests: failed,
        };
        ClusterStats {
            cluster_name: name.to_owned(),
            upstream_locality_stats: localities.iter().map(locality).collect(),
            total_dropped_requests: dropped,
        }
    }

    fn calls(started: u64, finished: u64, known_received: u64, dropped: u64) -> Calls {
        Calls { started, finished, failed_to_send: 0, known_received, dropped }
    }

    #[test]
    fn localities_are_summed_and_a_cluster_that_is_left_out_has_no_calls() {
        let mut reports = Reports::default();
        let all = vec![cluster("a", &[[5, 3, 1], [2, 2, 0]], 4), cluster("b", &[], 0)];
        let report = reports.take(all);
        let expected = [("a", calls(11, 10, 5, 4)), ("b", Calls::default())];
        let expected = expected.map(|(name, calls)| (name.to_owned(), calls));
        let clusters = expected.to_vec();
        assert_eq!(report, Report { clusters, ..Report::default() });
        assert_eq!(reports.busy().collect::<Vec<_>>(), ["a"]);
        // A call that began before ends now.
        let idle = reports.take(vec![cluster("b", &[[0, 1, 0]], 0)]);
        let expected = [("b", calls(0, 1, 1, 0)), ("a", Calls::default())];
        assert_eq!(idle.clusters, expected.map(|(name, calls)| (name.to_owned(), calls)));
        assert_eq!(reports.take(Vec::new()), Report::default());
    }

    #[test]
    fn a_locality_with_an_address_is_a_backend() {
        let named = |sub_zone: &str, calls| {
            let mut one = cluster("b", &[calls], 0);
            let sub_zone = sub_zone.to_owned();
            one.upstream_locality_stats[0].locality =
                Some(Locality { sub_zone, ..Default::default() });
            one
        };
        let mut all = named("[::1]:80", [5, 3, 1]);
        all.upstream_locality_stats
            .extend(named("weight-1.000", [7, 7, 0]).upstream_locality_stats);
        let report = Reports::default().take(vec![cluster("a", &[[1, 1, 0]], 0), all]);
        let calls = BackendCalls { started: 5, succeeded: 3, failed: 1 };
        assert_eq!(report.backends, [(1, "[::1]:80".parse().unwrap(), calls)]);
    }

    /// As grpc-go 1.60 reports.
    #[test]
    fn without_calls_that_began_those_that_ended_count() {
        let mut reports = Reports::default();
        let report = reports.take(vec![cluster("a", &[[0, 3, 1]], 1)]);
        assert_eq!(report.clusters[0].1, calls(5, 5, 3, 1));
    }

    #[test]
    fn counts_that_cannot_be_true_reject_only_their_cluster() {
        let mut reports = Reports::default();
        let max = REPORT_MAX;
        let report = reports.take(vec![
            cluster("a", &[[max + 1, 0, 0]], 0),
            cluster("b", &[[0, u64::MAX, 0], [0, 1, 0]], 0),
            cluster("c", &[[0, max, 1]], 0),
            cluster("d", &[], u64::MAX),
            cluster(&"e".repeat(2_000), &[], 0),
            cluster("f", &[[max, max, 0]], max),
        ]);
        assert_eq!(report.rejected, 5);
        assert_eq!(report.clusters[0].1.started, 2 * max);
        let many = (0..10_001).map(|n| cluster(&n.to_string(), &[[1, 0, 0]], 0)).collect();
        let report = reports.take(many);
        assert_eq!((report.rejected, report.clusters.len()), (1, 10_001), "f has no calls now");
        assert_eq!(reports.busy().count(), 10_000);
    }

    #[test]
    fn an_interval_is_sent_once() {
        let mut reports = Reports::default();
        let seconds = Duration::from_secs;
        assert_eq!(reports.next_interval(seconds(1)), Some(seconds(1)));
        assert_eq!(reports.next_interval(seconds(1)), None);
        assert_eq!(reports.next_interval(seconds(2)), Some(seconds(2)));
    }
}
