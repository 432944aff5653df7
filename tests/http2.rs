//! Runs h2spec, the conformance test of HTTP/2 servers, against the gRPC port.
#![allow(missing_docs, unreachable_pub)]

use crate::support;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use lookaside::balancer::Balancer;
use lookaside::catalog::Catalog;
use lookaside::model::Zone;
use lookaside::serve::{self, Server, Services};
use lookaside::telemetry::Counters;
use lookaside::xds::Xds;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

/// The duration of a request. h2spec breaks rules while requests are being served, and
/// must have the time for that.
const TAKES: Duration = Duration::from_millis(100);
/// How long h2spec waits, in seconds. One case opens a stream more than a connection may have,
/// and the budget of its network lets some hundred and fifty be opened in a second.
const PATIENCE: &str = "30";
/// The number of all cases of h2spec 2.2.1, its own strict ones included.
const CASES: usize = 146;

/// Starts a server that answers every path with a page of some length.
fn start(runtime: &tokio::runtime::Runtime) -> SocketAddr {
    let _inside = runtime.enter();
    let listener = serve::bind(([127, 0, 0, 1], 0).into()).expect("loopback has a free port");
    let addr = listener.local_addr().expect("a bound socket has an address");
    let page = || async {
        tokio::time::sleep(TAKES).await;
        "a page of some length"
    };
    let zone = Zone::new("lookaside.internal").expect("a zone");
    let counters: Arc<Counters> = Arc::default();
    let catalog = Catalog::new();
    let balancer = Balancer::new(zone.clone(), catalog.clone(), Arc::default(), counters.clone());
    let sums = (balancer.demands(), balancer.rates(), balancer.placements());
    let xds = Xds::new(zone, catalog, sums, Arc::default(), counters.clone());
    let others = Routes::from(Router::new().fallback(page));
    let server = Server {
        services: Services { balancer, xds, others },
        tls: None,
        counters,
        tasks: TaskTracker::new(),
        drain: CancellationToken::new(),
        connections_max: 1_000,
        connections_per_peer: 0,
        max_connection_age: None,
        spread: None,
    };
    runtime.spawn(server.run(listener));
    addr
}

#[test]
fn the_port_conforms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new(root.join("scripts/need")).arg("h2spec").output();
    let built = built.expect("scripts/need runs");
    if !built.status.success() {
        return support::skip("h2spec", &String::from_utf8_lossy(&built.stderr));
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let port = start(&runtime).port().to_string();
    let ran = Command::new(root.join("target/tools/h2spec"))
        .args(["--strict", "--timeout", PATIENCE, "--port", &port])
        .output()
        .expect("h2spec runs");
    let report = String::from_utf8_lossy(&ran.stdout);
    let result = format!("{CASES} tests, {CASES} passed, 0 skipped, 0 failed");
    assert!(ran.status.success() && report.contains(&result), "{report}");
}
