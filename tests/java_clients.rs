//! Tests with unmodified Java clients (grpc-java). etcd, DNS and the program are real.
//! Each test has a network of its own, because Java asks only the system's resolver.

#[path = "java_clients/empty.rs"]
mod empty;
#[path = "java_clients/examples.rs"]
mod examples;
#[path = "java_clients/safety.rs"]
mod safety;

use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::Calls;
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::java::{Channel, Driver, Options, isolated};
use crate::support::lookaside::Balancer;

/// Starts a balancer whose DNS the whole network namespace uses.
fn unready_balancer(args: &[&str]) -> Balancer {
    let usual = ["--dns-listen", "127.0.0.1:53", "--report-interval", "1s"];
    Balancer::start(&[&usual, args].concat())
}

fn balancer(etcd: &Etcd, args: &[&str]) -> Balancer {
    let balancer = unready_balancer(&[&["--etcd", &etcd.url()], args].concat());
    balancer.wait_ready();
    balancer
}

fn target(service: &str) -> String {
    format!("dns:///{service}.lookaside.internal")
}

/// Returns a metric's sum over all labels, without its fraction (gauges print one).
fn metric(balancer: &Balancer, name: &str) -> u64 {
    let (_, metrics) = balancer.get("/metrics");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    lines.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Waits until a call that does not wait fails UNAVAILABLE.
#[track_caller]
fn fails_fast(channel: &Channel<'_>) {
    let calls = Calls::new(1).timeout(Duration::from_secs(60));
    eventually("calls that do not wait fail UNAVAILABLE", || {
        let report = channel.call(&calls);
        assert!(report.errors.keys().all(|e| e.starts_with("UNAVAILABLE")), "{report:?}");
        (report.failed() == 1).then_some(())
    });
}

/// grpc-java begins each new list at its first entry. So where lists come more often
/// than calls, lists that always begin at the same entry would send all calls to one
/// backend.
#[test]
fn a_client_that_gets_lists_more_often_than_it_calls_spreads_its_calls() {
    const CALLS: u64 = 120;
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let backend = |n: usize| Backend::registered(&format!("b{n}"), &etcd.url(), "hello");
        let _backends: Vec<_> = (0..20).map(backend).collect();
        // A further backend moves to and fro: each list is as long as the one before.
        let places = ["here", "there"].map(Backend::start);
        let client = driver.open(&Options::grpclb(target("hello")));
        client.call(&Calls::waiting(1));
        let mut answers = std::collections::BTreeMap::new();
        for _ in 0..CALLS {
            for place in &places {
                let sent = metric(&balancer, "lookaside_lists_sent_total");
                etcd.ctl(&["put", "/etcd3_naming/hello/mover", &place.addr().to_string()]);
                eventually("the list is sent", || {
                    (metric(&balancer, "lookaside_lists_sent_total") > sent).then_some(())
                });
            }
            for (id, count) in client.call(&Calls::waiting(1)).answers {
                *answers.entry(id).or_insert(0) += count;
            }
        }
        // An even spread gives each backend 5 or 6 calls.
        let most = answers.values().max().copied().unwrap_or(0);
        assert!(most <= CALLS / 8 && answers.len() >= 15, "{answers:?}");
    });
}

#[test]
fn a_name_means_the_same_with_port_or_dot_and_in_any_case() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello");
        for end in ["", ":50051", ".", ".:50051"] {
            for name in ["hello.lookaside.internal", "Hello.LookAside.INTERNAL"] {
                let client = driver.open(&Options::grpclb(format!("dns:///{name}{end}")));
                let report = client.call(&Calls::waiting(3));
                assert_eq!(report.from("one"), 3, "{name}{end}: {report:?}");
            }
        }
        // Java resolves a name without a scheme by DNS.
        let client = driver.open(&Options::grpclb("hello.lookaside.internal"));
        assert_eq!(client.call(&Calls::waiting(1)).from("one"), 1);
    });
}

/// Java refuses `_` in a target ("Invalid DNS name"). Its config can name such a
/// service.
#[test]
fn a_service_whose_name_java_refuses_is_named_by_its_config() {
    isolated(|| {
        let etcd = Etcd::start();
        let _balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let _one = Backend::registered("one", &etcd.url(), "hello_service");
        let config = r#"{"loadBalancingConfig":[{"grpclb":{"serviceName":"hello_service"}}]}"#;
        let client = driver.open(&Options::config(target("hello-service"), config));
        client.shares(&["one"]);
    });
}
