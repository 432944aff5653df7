//! The main job, seen by unmodified Java clients (grpc-java): real etcd, real
//! DNS, the real program, and a network of its own for each test, for Java
//! asks the system's resolver and nobody else.

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

/// A balancer whose DNS the whole namespace uses.
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

/// What a metric says, summed up over its labels. Gauges have a fraction.
fn metric(balancer: &Balancer, name: &str) -> u64 {
    let (_, metrics) = balancer.get("/metrics");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    lines.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
}

/// That calls which do not wait fail now, as they do where nothing is ready.
#[track_caller]
fn fails_fast(channel: &Channel<'_>) {
    let calls = Calls::new(1).timeout(Duration::from_secs(60));
    eventually("calls that do not wait fail UNAVAILABLE", || {
        let report = channel.call(&calls);
        assert!(report.errors.keys().all(|e| e.starts_with("UNAVAILABLE")), "{report:?}");
        (report.failed() == 1).then_some(())
    });
}

/// grpc-java begins each new list at its first entry. So where lists come more
/// often than calls, a list that always began at the same place would have all
/// calls go to one backend.
#[test]
fn a_client_that_gets_lists_more_often_than_it_calls_spreads_its_calls() {
    const CALLS: u64 = 120;
    isolated(|| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd, &[]);
        let driver = Driver::start();
        let backend = |n: usize| Backend::registered(&format!("b{n}"), &etcd.url(), "hello");
        let _backends: Vec<_> = (0..20).map(backend).collect();
        // One more that moves to and fro: each list is as long as the one before.
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
        // Evenly they would be 5 or 6 each.
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
        // A name without a scheme is DNS's.
        let client = driver.open(&Options::grpclb("hello.lookaside.internal"));
        assert_eq!(client.call(&Calls::waiting(1)).from("one"), 1);
    });
}

/// Java refuses `_` in a target: "Invalid DNS name". Its config can name the
/// service all the same.
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
