//! C-core's clients with a service without registrations, and with a balancer that
//! restarts while DNS stays. The main test of clients is in tests/interop/.

use std::time::Duration;

use crate::core_clients::scene::World;
use crate::support::backend::Backend;
use crate::support::core::{Calls, Driver, Open};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;

const LANGUAGES: [&str; 2] = ["cpp", "ruby"];

fn balancer(etcd: &Etcd, flags: &[&str]) -> Balancer {
    let url = etcd.url();
    let balancer = Balancer::start(&[&["--etcd", &url, "--report-interval", "1s"], flags].concat());
    balancer.wait_ready();
    balancer
}

#[test]
fn without_backends_calls_fail_or_wait_as_the_operator_chose() {
    let etcd = Etcd::start();
    for (mode, waits) in [("wait", true), ("drop", false)] {
        let balancer = balancer(&etcd, &["--when-empty", mode]);
        for language in ["python", "cpp", "ruby"] {
            let driver = Driver::start(language);
            let client = driver.open(&Open::grpclb(balancer.target("nobody")));
            let report = client.call(&Calls::new(2).timeout(Duration::from_secs(30)));
            let what = format!("{language} {mode}: {report:?}");
            assert_eq!(report.failed(), 2, "{what}");
            assert!(report.errors.keys().all(|e| e.starts_with("UNAVAILABLE")), "{what}");
            let report = client.call(&Calls::waiting(1).timeout(Duration::from_secs(2)));
            let expected = if waits { "DEADLINE_EXCEEDED" } else { "UNAVAILABLE" };
            let as_expected = report.errors.keys().all(|e| e.starts_with(expected));
            assert!(as_expected && report.failed() == 1, "{language} {mode}: {report:?}");
        }
    }
}

#[test]
fn a_balancer_restarted_costs_no_call() {
    let mut world = World::start();
    let [one, two] = ["one", "two"].map(Backend::start);
    world.list("hello", "one", one.addr());
    world.list("hello", "two", two.addr());
    let drivers = LANGUAGES.map(Driver::start);
    let clients: Vec<_> = drivers
        .iter()
        .map(|driver| driver.open(&Open::grpclb(world.target("hello", 443))))
        .collect();
    for client in &clients {
        client.shares(&["one", "two"]);
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
    }
    world.restart_balancer();
    eventually("the clients are back", || {
        let (_, open) = world.balancer.get("/api/v1/clients");
        (open.contains("grpc-c++") && open.contains("grpc-ruby")).then_some(())
    });
    for client in &clients {
        let meanwhile = client.stop();
        assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    }
    world.unlist("hello", "two");
    for client in &clients {
        client.shares(&["one"]);
    }
}
