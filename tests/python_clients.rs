//! The main job, seen by unmodified Python clients (grpcio): real etcd, real
//! DNS, the real program.

use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::language::PYTHON;
use crate::support::lookaside::Balancer;
use lookaside::model::Weight;

fn balancer(etcd: &Etcd) -> Balancer {
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--report-interval", "1s"]);
    balancer.wait_ready();
    balancer
}

/// The six steps in which such a system has always been tried by hand.
fn six_steps(options: impl Fn(String) -> Options) {
    let mut etcd = Etcd::start();
    let balancer = balancer(&etcd);
    let driver = Driver::start(&PYTHON);
    let options = || options(balancer.target("hello_service"));
    let start = |id, url: &str| Backend::registered(id, url, "hello_service");

    // 1. Three servers get equal shares.
    let (s1, s2, s3) =
        (start("s1", &etcd.url()), start("s2", &etcd.url()), start("s3", &etcd.url()));
    let client = driver.open(&options());
    client.shares(&["s1", "s2", "s3"]);

    // 2. One stops, and no call is lost on the way.
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let addr = s1.stop();
    eventually("s1 is listed no longer", || {
        let (_, services) = balancer.get("/api/v1/services/hello_service");
        (!services.contains("\"s1\"")).then_some(())
    });
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    client.shares(&["s2", "s3"]);

    // 3. It returns and shares again.
    let mut s1 = Backend::start_at("s1", addr);
    s1.register(&etcd.url(), "hello_service");
    client.shares(&["s1", "s2", "s3"]);

    // 4. etcd stops: calls go on, for new clients too.
    etcd.kill();
    eventually("the balancer notices", || {
        let (_, metrics) = balancer.get("/metrics");
        metrics.contains("lookaside_registry_stale 1").then_some(())
    });
    client.shares(&["s1", "s2", "s3"]);
    driver.open(&options()).shares(&["s1", "s2", "s3"]);

    // 5. etcd returns: servers come and go again.
    etcd.restart();
    let s4 = start("s4", &etcd.url());
    client.shares(&["s1", "s2", "s3", "s4"]);
    s4.stop();
    client.shares(&["s1", "s2", "s3"]);

    // 6. All stop: calls that wait do so, and go through when one returns.
    s1.stop();
    s2.stop();
    s3.stop();
    eventually("calls that do not wait fail at once", || {
        let report = client.call(&Calls::new(1));
        report.errors.keys().any(|error| error.starts_with("UNAVAILABLE")).then_some(())
    });
    let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
    let newcomer = driver.open(&options());
    let waiting_too = newcomer.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
    let s5 = start("s5", &etcd.url());
    assert_eq!(waiting.wait().from("s5"), 1);
    assert_eq!(waiting_too.wait().from("s5"), 1);
    s5.stop();
}

#[test]
fn the_six_steps_with_the_client_naming_grpclb() {
    six_steps(Options::grpclb);
}

#[test]
fn the_six_steps_with_dns_naming_grpclb() {
    six_steps(Options::txt);
}

#[test]
fn a_client_that_came_first_is_served_when_servers_come() {
    let etcd = Etcd::start();
    let balancer = balancer(&etcd);
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("game.dev")));
    let early = client.call(&Calls::new(3));
    assert!(early.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{early:?}");
    let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
    let one = Backend::registered("1", &etcd.url(), "dev/game");
    assert_eq!(waiting.wait().from("1"), 1);
    let two = Backend::registered("2", &etcd.url(), "dev/game");
    client.shares(&["1", "2"]);
    // One instance by its name.
    let only_two = driver.open(&Options::grpclb(balancer.target("id--2.game.dev")));
    only_two.shares(&["2"]);
    drop(one);
    two.stop();
}

#[test]
fn backends_see_tokens_and_the_balancer_counts_calls() {
    let etcd = Etcd::start();
    let balancer = balancer(&etcd);
    let driver = Driver::start(&PYTHON);
    let one = Backend::registered("one", &etcd.url(), "hello");
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    let report = client.call(&Calls::waiting(50));
    assert_eq!(report.from("one"), 50);
    let (_, service) = balancer.get("/api/v1/services/hello");
    for token in one.tokens() {
        let token = token.expect("every call carries a token");
        let (backend, _) = token.split_once('~').unwrap_or((&token, ""));
        assert!(token.len() < 50 && service.contains(backend), "{token} {service}");
    }
    eventually("the calls are reported", || {
        let (_, metrics) = balancer.get("/metrics");
        metrics
            .contains("lookaside_client_calls_finished_total{service=\"hello\"} 50")
            .then_some(())
    });
    let (_, clients) = balancer.get("/api/v1/clients");
    assert!(clients.contains("grpc-python"), "{clients}");
}

#[test]
fn weights_are_exact_shares() {
    let etcd = Etcd::start();
    let balancer = balancer(&etcd);
    let driver = Driver::start(&PYTHON);
    let (mut heavy, mut light, mut none) =
        (Backend::start("heavy"), Backend::start("light"), Backend::start("none"));
    heavy.register_with(&etcd.url(), "hello", Weight(30));
    light.register_with(&etcd.url(), "hello", Weight(10));
    none.register_with(&etcd.url(), "hello", Weight(0));
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    let report = eventually("both are in use", || {
        let report = client.call(&Calls::waiting(400));
        (report.from("light") == 100).then_some(report)
    });
    assert_eq!((report.from("heavy"), report.from("none")), (300, 0));
}

#[test]
fn a_balancer_that_returns_finds_its_clients_again_and_no_call_fails() {
    let etcd = Etcd::start();
    let mut first = balancer(&etcd);
    let driver = Driver::start(&PYTHON);
    let _one = Backend::registered("one", &etcd.url(), "hello");
    let two = Backend::registered("two", &etcd.url(), "hello");
    let client = driver.open(&Options::grpclb(first.target("hello")));
    client.shares(&["one", "two"]);
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let (grpclb, dns) = (first.grpclb().to_string(), first.dns().to_string());
    first.kill();
    let etcd_url = etcd.url();
    let again = Balancer::start(&[
        "--etcd",
        &etcd_url,
        "--listen",
        &grpclb,
        "--dns-listen",
        &dns,
        "--report-interval",
        "1s",
    ]);
    again.wait_ready();
    eventually("the client is back", || {
        let (_, clients) = again.get("/api/v1/clients");
        clients.contains("grpc-python").then_some(())
    });
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    two.stop();
    client.shares(&["one"]);
    // Its reports count on the new stream: the first list was unlike the last.
    client.call(&Calls::new(20));
    eventually("calls are reported again", || {
        let (_, metrics) = again.get("/metrics");
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("lookaside_client_calls_finished_total{service=\"hello\"} ")
        });
        line.and_then(|count| count.parse::<u64>().ok()).filter(|&count| count >= 20)
    });
}

#[test]
fn without_backends_clients_see_what_the_operator_chose() {
    let etcd = Etcd::start();
    let driver = Driver::start(&PYTHON);
    for (mode, waits) in [("wait", true), ("drop", false)] {
        let balancer = Balancer::start(&["--etcd", &etcd.url(), "--when-empty", mode]);
        balancer.wait_ready();
        let client = driver.open(&Options::grpclb(balancer.target("nobody")));
        let report = client.call(&Calls::new(2).timeout(Duration::from_secs(30)));
        assert_eq!(report.failed(), 2, "{mode}: {report:?}");
        assert!(report.errors.keys().all(|e| e.starts_with("UNAVAILABLE")), "{mode}: {report:?}");
        let report = client.call(&Calls::waiting(1).timeout(Duration::from_secs(2)));
        let expected = if waits { "DEADLINE_EXCEEDED" } else { "UNAVAILABLE" };
        assert!(report.errors.keys().all(|e| e.starts_with(expected)), "{mode}: {report:?}");
    }
}

#[test]
fn in_fallback_clients_use_what_dns_says_and_return_from_it() {
    let etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--when-empty", "fallback"]);
    balancer.wait_ready();
    let driver = Driver::start(&PYTHON);
    // The name's own address is the fallback; its port is the target's.
    let fallback = Backend::start("fallback");
    let mut one = Backend::start("one");
    one.register_with(&etcd.url(), "hello", Weight(0));
    // DNS lists only those that may serve: a second service says where.
    let target = format!("{}:{}", balancer.target("hello"), fallback.addr().port());
    let client = driver.open(&Options::grpclb(target));
    let report = client.call(&Calls::new(1).timeout(Duration::from_secs(10)));
    assert_eq!(report.failed(), 1, "{report:?}");
    one.register_with(&etcd.url(), "hello", Weight(1));
    client.shares(&["one"]);
}
