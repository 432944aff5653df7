//! Tests that clients are heard before a balancer leaves out backends that it cannot reach.
//!
//! In: health checks over a network of which the balancer may lose a part, and reports of
//! clients of each protocol. Out: the backends in their lists.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, ClusterStats};
use lookaside::health_check;
use lookaside::settings::WhenEmpty;
use tokio::time::{Instant, timeout_at};

use crate::conversations::wire::{Balanced, PYTHON, Stream, pb};
use crate::conversations::xds::backends;
use crate::conversations::xds_reports::{Reporter, stats};

const BACKENDS: u16 = 10;
/// The backends that the balancer cannot reach: twice as many as it may leave out alone.
const UNREACHED: std::ops::RangeInclusive<u16> = 4..=7;
const SETTINGS: &str =
    "[service.hello]\nhealth = { kind = 'tcp', interval = '1s' }\nxds-reports = 'on'\n";
/// How often clients report.
const INTERVAL: Duration = Duration::from_secs(10);

/// The addresses that the balancer cannot reach, by port.
type Unreached = Arc<Mutex<BTreeSet<u16>>>;

/// Starts a balancer that checks its backends.
async fn start() -> (Balanced, Unreached) {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle(SETTINGS).await;
    for port in 1..=BACKENDS {
        balanced.put(&format!("hello {port} 10.0.0.1:{port}")).await;
    }
    let unreached = Unreached::default();
    let connect = {
        let unreached = unreached.clone();
        async move |addr: SocketAddr| match unreached.lock().unwrap().contains(&addr.port()) {
            true => Err(io::Error::from(ErrorKind::HostUnreachable)),
            false => Ok(tokio::io::duplex(64).0),
        }
    };
    let (ledger, counters) = (balanced.ledger.clone(), balanced.counters.clone());
    let (targets, inputs) = (balanced.catalog.watch_health_targets(), balanced.inputs.clone());
    tokio::spawn(async move {
        health_check::run(targets, inputs, ledger, counters, connect).await;
    });
    (balanced, unreached)
}

/// Lets a client of grpclb make 100 calls in each interval, of which so many are answered.
/// Returns the number of backends in its newest list.
async fn run(client: &mut Stream, intervals: u32, answered: i64, mut listed: usize) -> usize {
    for _ in 0..intervals {
        let until = Instant::now() + INTERVAL;
        while let Ok(list) = timeout_at(until, client.servers()).await {
            listed = list.len();
        }
        client.report(pb::ClientStats {
            num_calls_started: 100,
            num_calls_finished: 100,
            num_calls_finished_known_received: answered,
            ..Default::default()
        });
    }
    listed
}

#[tokio::test(start_paused = true)]
async fn backends_stay_while_clients_of_grpclb_report_answers() {
    let (balanced, unreached) = start().await;
    let mut client = balanced.open(PYTHON, "hello").await;
    let listed = client.first_servers().await.len();
    assert_eq!(run(&mut client, 2, 100, listed).await, 10);
    unreached.lock().unwrap().extend(UNREACHED);
    assert_eq!(run(&mut client, 12, 100, 10).await, 8, "a fifth may be left out");
    assert_eq!(run(&mut client, 6, 50, 8).await, 6);
}

/// Lets a client of xDS make 12 calls to each backend in each interval: two fail, or all of
/// those to some backends. Returns the number of backends in its newest assignment.
async fn run_xds(client: &mut Reporter, intervals: u32, fail: &[u16], mut listed: usize) -> usize {
    for _ in 0..intervals {
        let until = Instant::now() + INTERVAL;
        while let Ok((response, all)) =
            timeout_at(until, client.client.next::<ClusterLoadAssignment>()).await
        {
            client.nonce = response.nonce;
            client.client.ask::<ClusterLoadAssignment>(&["hello"], &client.nonce);
            listed = backends(&all[0]).len();
        }
        let succeeded = |port: u16| if fail.contains(&port) { 0 } else { 10 };
        client.report(vec![calls(succeeded)]);
    }
    listed
}

/// Returns what a client reports of its calls to each backend.
fn calls(succeeded: impl Fn(u16) -> u64) -> ClusterStats {
    let counts: Vec<[u64; 3]> =
        (1..=BACKENDS).map(|port| [12, succeeded(port), 12 - succeeded(port)]).collect();
    let mut stats = stats("hello", &counts, 0);
    for (port, one) in (1..=BACKENDS).zip(&mut stats.upstream_locality_stats) {
        one.locality.as_mut().expect("a locality").sub_zone = format!("10.0.0.1:{port}");
    }
    stats
}

/// Errors of the application are failures in reports of xDS clients. So what they say of all
/// their calls would not keep a backend.
#[tokio::test(start_paused = true)]
async fn a_backend_stays_while_calls_of_xds_clients_to_it_succeed() {
    let (balanced, unreached) = start().await;
    let mut client = Reporter::open(&balanced, "a").await;
    client.client.ask::<ClusterLoadAssignment>(&["hello"], &client.nonce);
    let listed = backends(&client.assignment).len();
    assert_eq!(run_xds(&mut client, 2, &[], listed).await, 10);
    unreached.lock().unwrap().extend(UNREACHED);
    assert_eq!(run_xds(&mut client, 12, &[], 10).await, 8, "a fifth may be left out");
    let fail: Vec<u16> = UNREACHED.collect();
    assert_eq!(run_xds(&mut client, 6, &fail, 8).await, 6);
}
