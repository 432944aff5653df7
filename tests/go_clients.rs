//! Tests with unmodified Go clients (grpc-go), the newest release and an old one.
//! etcd, DNS and the program are real.

#[path = "go_clients/config.rs"]
mod config;
#[path = "go_clients/empty.rs"]
mod empty;
#[path = "go_clients/examples.rs"]
mod examples;
#[path = "go_clients/fallback.rs"]
mod fallback;
#[path = "go_clients/safety.rs"]
mod safety;

use std::thread;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::go::{Calls, Channel, Driver, GRPCLB, RELEASES};
use crate::support::lookaside::Balancer;

/// Runs a test case with each release, side by side.
fn each_release(case: impl Fn(&Driver) + Sync) {
    thread::scope(|scope| {
        for release in RELEASES {
            let case = &case;
            let run = move || case(&Driver::start(release));
            thread::Builder::new().name(release.to_owned()).spawn_scoped(scope, run).unwrap();
        }
    });
}

fn balancer(etcd: &Etcd) -> Balancer {
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--report-interval", "1s"]);
    balancer.wait_ready();
    balancer
}

/// Starts a balancer with an embedded registry, which needs no etcd.
fn lone_balancer(args: &[&str]) -> Balancer {
    let balancer = Balancer::start(&[&["--report-interval", "1s"], args].concat());
    balancer.wait_ready();
    balancer
}

/// Returns the URL of a balancer's embedded registry.
fn registry(balancer: &Balancer) -> String {
    format!("http://{}", balancer.registry())
}

/// Returns a metric's value, or 0 while the metric is missing.
#[track_caller]
fn metric(balancer: &Balancer, name: &str) -> u64 {
    balancer.metric(name).unwrap_or(0.0) as u64
}

#[test]
fn a_name_may_be_written_in_every_way() {
    let balancer = lone_balancer(&[]);
    let _one = Backend::registered("one", &registry(&balancer), "hello");
    let authority = format!("dns://{}", balancer.dns());
    each_release(|driver| {
        for name in [
            "hello.lookaside.internal:50051",
            "hello.lookaside.internal.",
            "hello.lookaside.internal.:50051",
            "HeLLo.Lookaside.INTERNAL",
            "HELLO.LOOKASIDE.INTERNAL.:50051",
        ] {
            let client = driver.open(format!("{authority}/{name}"), None);
            client.shares(&["one"]);
            let (_, clients) = balancer.get("/api/v1/clients");
            assert!(clients.contains(&format!("\"{name}\"")), "{name}: {clients}");
        }
    });
}
