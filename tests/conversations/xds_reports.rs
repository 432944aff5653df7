//! Conversations of an xDS client that reports its calls (LRS), in the published definitions
//! of the protocol.
//!
//! In: reports, right and wrong. Out: the sums of calls, the demand by zone, and the part of
//! the calls to drop.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, ClusterStats, UpstreamLocalityStats,
};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use h2::client::SendRequest;
use lookaside::catalog::{Input, LoadTarget};
use lookaside::facts::capacity::Report;
use lookaside::load::{BackendCalls, Calls};
use lookaside::model::{BackendAddr, ServiceName};
use lookaside::settings::WhenEmpty;
use lookaside::xds::LOAD_PATH;
use prost::Message;

use super::wire::{Balanced, Stream};
use super::xds::{Client, backends};

/// A client that has the endpoints of a name, and its stream of reports.
pub(super) struct Reporter {
    connection: SendRequest<Bytes>,
    pub(super) client: Client,
    pub(super) nonce: String,
    /// The first assignment.
    pub(super) assignment: ClusterLoadAssignment,
    reports: Stream,
}

impl Reporter {
    pub(super) async fn open(balanced: &Balanced, zone: &'static str) -> Self {
        let mut connection = balanced.caller(1 << 20).await;
        let mut client = Client::open_on(&mut connection, zone);
        client.ask::<ClusterLoadAssignment>(&["hello"], "");
        let (response, mut all) = client.next::<ClusterLoadAssignment>().await;
        let reports = Self::reports(&mut connection);
        let (nonce, assignment) = (response.nonce, all.remove(0));
        Self { connection, client, nonce, assignment, reports }
    }

    /// Opens a stream of reports on a connection. Its first message has only the client.
    fn reports(connection: &mut SendRequest<Bytes>) -> Stream {
        let mut reports = Balanced::call(connection, LOAD_PATH, "grpc-go/1.85.0");
        let node = Node { id: "me".to_owned(), ..Default::default() };
        let first = LoadStatsRequest { node: Some(node), cluster_stats: vec![] };
        reports.message(&first.encode_to_vec());
        reports
    }

    pub(super) fn report(&mut self, clusters: Vec<ClusterStats>) {
        let request = LoadStatsRequest { node: None, cluster_stats: clusters };
        self.reports.message(&request.encode_to_vec());
    }

    /// Returns the interval of the next response, in seconds.
    async fn interval(reports: &mut Stream) -> i64 {
        let bytes = reports.maybe_bytes().await.expect("a response");
        let response = LoadStatsResponse::decode(bytes).unwrap();
        assert!(response.send_all_clusters && response.clusters.is_empty());
        response.load_reporting_interval.unwrap().seconds
    }
}

pub(super) fn stats(name: &str, localities: &[[u64; 3]], dropped: u64) -> ClusterStats {
    let locality = |&[issued, succeeded, failed]: &[u64; 3]| UpstreamLocalityStats {
        locality: Some(Locality { sub_zone: "10.0.0.1:80".to_owned(), ..Default::default() }),
        total_issued_requests: issued,
        total_successful_requests: succeeded,
        total_error_requests: failed,
        total_requests_in_progress: 3,
        ..Default::default()
    };
    ClusterStats {
        cluster_name: name.to_owned(),
        upstream_locality_stats: localities.iter().map(locality).collect(),
        total_dropped_requests: dropped,
        ..Default::default()
    }
}

#[tokio::test]
async fn reports_are_summed_and_the_interval_follows_the_settings() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle("[service.hello]\nxds-reports = 'on'\nreport-interval = '3s'\n").await;
    balanced.put("hello 1 10.0.0.1:80").await;
    let mut one = Reporter::open(&balanced, "a").await;
    assert_eq!(Reporter::interval(&mut one.reports).await, 3);
    one.report(vec![stats("hello", &[[5, 3, 1], [2, 2, 0]], 4)]);
    one.report(vec![]);
    let expected =
        Calls { started: 11, finished: 10, failed_to_send: 0, known_received: 5, dropped: 4 };
    assert_eq!(balanced.reported("hello", 2).await, expected);
    let view = &balanced.xds.clients()()[0];
    assert_eq!(view.calls, expected);
    let backend = "10.0.0.1:80".parse().unwrap();
    let calls = BackendCalls { started: 7, succeeded: 5, failed: 1 };
    let backends = balanced.ledger.backends(&ServiceName::new("hello").unwrap());
    assert_eq!(backends, [(backend, calls)].into());
    balanced.settle("[service.hello]\nxds-reports = 'on'\nreport-interval = '7s'\n").await;
    one.client.ask::<ClusterLoadAssignment>(&["hello"], &one.nonce);
    // The stream counts its client anew, which it may not have done at once.
    let mut reports = 2;
    loop {
        one.report(vec![stats("hello", &[[1, 0, 0]], 0)]);
        reports += 1;
        balanced.reported("hello", reports).await;
        let next = Reporter::interval(&mut one.reports);
        if let Ok(interval) = tokio::time::timeout(Duration::from_millis(200), next).await {
            assert_eq!(interval, 7);
            break;
        }
    }
    // It goes on counting where it was, whatever the settings.
    let started = balanced.reported("hello", reports).await.started;
    assert_eq!(balanced.xds.clients()()[0].calls.started, started);
}

/// What a client has reported stays while its stream has the name, though the service goes,
/// reports are switched off and zones on.
#[tokio::test]
async fn reported_calls_stay_as_long_as_the_stream() {
    const ON: &str = "[service.hello]\nxds-reports = 'on'\n";
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle(ON).await;
    balanced.put("hello 1 10.0.0.1:80").await;
    let mut one = Reporter::open(&balanced, "a").await;
    one.report(vec![stats("hello", &[[7, 5, 1]], 4)]);
    let expected = balanced.reported("hello", 1).await;
    let shown = |balanced: &Balanced| balanced.xds.clients()()[0].calls;
    assert_eq!((expected.started, shown(&balanced)), (11, expected));
    one.client.ask::<ClusterLoadAssignment>(&["hello"], &one.nonce);
    balanced.delete("hello 1 10.0.0.1:80").await;
    let (mut response, all) = one.client.next::<ClusterLoadAssignment>().await;
    assert_eq!((all[0].endpoints.len(), shown(&balanced)), (0, expected));
    let zones = format!("{ON}zones.mode = 'prefer'\n");
    for (port, settings) in [(81, "version = 1"), (82, ON), (83, &*zones)] {
        balanced.settle(settings).await;
        balanced.put(&format!("hello 1 10.0.0.1:{port}")).await;
        let mut all = Vec::new();
        while all.iter().flat_map(backends).all(|one| one.1 != port) {
            one.client.ask::<ClusterLoadAssignment>(&["hello"], &response.nonce);
            (response, all) = one.client.next::<ClusterLoadAssignment>().await;
        }
        assert_eq!(shown(&balanced), expected, "{settings}");
    }
    one.report(vec![stats("hello", &[[2, 2, 0]], 0)]);
    balanced.reported("hello", 2).await;
    assert_eq!(shown(&balanced).started, 13);
}

/// Two streams of a connection may have one name, as while a client opens another stream.
#[tokio::test]
async fn a_report_counts_while_any_stream_of_the_connection_has_the_name() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle("[service.hello]\nxds-reports = 'on'\n").await;
    balanced.put("hello 1 10.0.0.1:80").await;
    let mut one = Reporter::open(&balanced, "a").await;
    let mut newer = Client::open_on(&mut one.connection, "a");
    newer.ask::<ClusterLoadAssignment>(&["hello"], "");
    newer.next::<ClusterLoadAssignment>().await;
    one.report(vec![stats("hello", &[[1, 1, 0]], 0)]);
    assert_eq!(balanced.reported("hello", 1).await.started, 1);
    drop(newer);
    while balanced.xds.streams()() > 1 {
        tokio::task::yield_now().await;
    }
    one.report(vec![stats("hello", &[[2, 2, 0]], 0)]);
    assert_eq!(balanced.reported("hello", 2).await.started, 3);
    assert_eq!(balanced.counters.reports_rejected.total(), 0);
}

#[tokio::test]
async fn a_stream_of_reports_that_is_refused_is_counted() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut connection = balanced.caller(1 << 20).await;
    let mut reports = Balanced::call(&mut connection, LOAD_PATH, "grpc-go/1.85.0");
    // Compressed.
    reports.bytes(&[1, 0, 0, 0, 0]);
    assert_eq!(reports.status().await.0, 12);
    assert_eq!(balanced.counters.xds_streams_refused.total(), 1);
}

/// A stream without a name that asks for reports gets the interval that is usual.
#[tokio::test]
async fn a_report_counts_only_for_a_name_of_its_connection() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle("[service.hello]\nxds-reports = 'on'\n").await;
    balanced.put("hello 1 10.0.0.1:80").await;
    balanced.put("silent 1 10.0.0.1:80").await;
    let mut reporter = Reporter::open(&balanced, "a").await;
    assert_eq!(Reporter::interval(&mut reporter.reports).await, 10);
    balanced.peer = "192.0.2.1:4321".parse().unwrap();
    let mut other = balanced.caller(1 << 20).await;
    let mut stranger = Reporter::reports(&mut other);
    assert_eq!(Reporter::interval(&mut stranger).await, 10);
    let report =
        LoadStatsRequest { node: None, cluster_stats: vec![stats("hello", &[[5, 5, 0]], 0)] };
    stranger.message(&report.encode_to_vec());
    stranger.message(&[0xff; 9]);
    reporter.client.ask::<ClusterLoadAssignment>(&["hello", "silent"], &reporter.nonce);
    reporter.client.next::<ClusterLoadAssignment>().await;
    reporter.report(vec![stats("silent", &[[1, 1, 0]], 0), stats("nobody", &[[1, 1, 0]], 0)]);
    reporter.report(vec![stats("hello", &[[u64::MAX, 0, 0]], 0)]);
    reporter.report(vec![stats("hello", &[[2, 2, 0]], 0)]);
    let calls = balanced.reported("hello", 1).await;
    assert_eq!((calls.started, calls.known_received), (2, 2));
    assert_eq!(balanced.ledger.totals().len(), 1);
    // Neither ended: both streams still take what comes.
    assert!(stranger.silent().await && reporter.reports.silent().await);
    // Three names, a message, a count; and the names that had calls and have none now.
    assert!(balanced.counters.reports_rejected.total() >= 5);
}

/// Nobody is asked to report unless settings say so.
#[tokio::test]
async fn without_settings_nobody_reports() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello 1 10.0.0.1:80").await;
    let mut reporter = Reporter::open(&balanced, "a").await;
    reporter.client.ask::<Cluster>(&["hello"], "");
    assert_eq!(reporter.client.next::<Cluster>().await.1[0].lrs_server, None);
    reporter.report(vec![stats("hello", &[[5, 5, 0]], 0)]);
    assert_eq!(Reporter::interval(&mut reporter.reports).await, 10);
    while balanced.counters.reports_rejected.total() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(balanced.ledger.totals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_zone_count_by_their_calls() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle("[service.hello]\nzones.mode = 'prefer'\nxds-reports = 'on'\n").await;
    // A zone with fewer backends does not count.
    for (n, zone) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b")] {
        balanced.put(&format!("hello {n} 10.0.0.{n}:80 zone={zone}")).await;
    }
    let mut here = Reporter::open(&balanced, "a").await;
    balanced.peer = "192.0.2.2:1".parse().unwrap();
    let mut there = Reporter::open(&balanced, "b").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    here.report(vec![stats("hello", &[[300, 300, 0]], 0)]);
    there.report(vec![stats("hello", &[[100, 100, 0]], 0)]);
    balanced.reported("hello", 2).await;
    let hello = ServiceName::new("hello").unwrap();
    let demand = balanced.balancer.demand()(&hello).expect("a demand").demand;
    let zones: Vec<_> = demand.zones.iter().map(|(zone, calls)| (&**zone, *calls)).collect();
    assert_eq!(zones, [("a", 30_000), ("b", 10_000)]);
    drop((here.connection, there.connection));
}

/// As clients of grpclb, clients of xDS drop what is over the capacity, and no more.
#[tokio::test(start_paused = true)]
async fn reported_calls_are_shed_by_overload() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced
        .settle(
            "[service.hello]\nload.kind = 'orca'\nshed = { mode = 'overload' }\n\
             xds-reports = 'on'\n",
        )
        .await;
    balanced.put("hello 1 10.0.0.1:80").await;
    tokio::spawn(balanced.balancer.clone().follow_demand(balanced.inputs.clone(), || 1.0));
    let mut reporter = Reporter::open(&balanced, "a").await;
    let mut dropped = 0.0;
    for span in 0..12 {
        let started = if span < 6 { 70.0 } else { 200.0_f64 };
        let sent = started * (1.0 - dropped);
        let addr = BackendAddr::new([10, 0, 0, 1].into(), 80).unwrap();
        let target = LoadTarget { addr, interval: Duration::from_secs(10), tls: None };
        let load = Report { calls: sent.min(100.0), utilisation: (sent / 100.0).min(1.0) };
        balanced.inputs.send(Input::Loaded(target, load)).await.unwrap();
        let counts = [10.0 * sent, 10.0 * (started - sent)].map(|count| count as u64);
        reporter.report(vec![stats("hello", &[[counts[0], counts[0], 0]], counts[1])]);
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        reporter.client.ask::<ClusterLoadAssignment>(&["hello"], &reporter.nonce);
        while let Ok((response, all)) =
            tokio::time::timeout_at(until, reporter.client.next::<ClusterLoadAssignment>()).await
        {
            reporter.nonce = response.nonce;
            reporter.client.ask::<ClusterLoadAssignment>(&["hello"], &reporter.nonce);
            let policy = all[0].policy.as_ref();
            dropped = policy.map_or(0.0, |policy| {
                let part = policy.drop_overloads[0].drop_percentage.unwrap();
                f64::from(part.numerator) / 100.0
            });
        }
        assert!(span >= 6 || dropped == 0.0, "there is room");
    }
    assert!((0.45..=0.6).contains(&dropped), "{dropped}");
}
