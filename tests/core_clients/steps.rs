//! The main job with C++ and Ruby, as tests/python_clients.rs has it with
//! Python: the six steps, clients that came first, weights, tokens, what an
//! empty service looks like, a balancer that returns.

use std::time::Duration;

use lookaside::model::Weight;

use crate::core_clients::scene::{World, metric};
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

fn six_steps(language: &'static str, config_from_dns: bool) {
    let mut etcd = Etcd::start();
    let balancer = balancer(&etcd, &[]);
    let driver = Driver::start(language);
    let options = || match config_from_dns {
        true => Open::with(balancer.target("hello_service"), None),
        false => Open::grpclb(balancer.target("hello_service")),
    };
    let start = |id, url: &str| Backend::registered(id, url, "hello_service");

    // 1. Three servers get equal shares.
    let s1 = Backend::start("s1");
    let key = "/etcd3_naming/hello_service/s1";
    etcd.ctl(&["put", key, &s1.addr().to_string()]);
    let (s2, s3) = (start("s2", &etcd.url()), start("s3", &etcd.url()));
    let client = driver.open(&options());
    client.shares(&["s1", "s2", "s3"]);

    // 2. One stops, as it should: when nobody calls it any more. No call is
    //    lost on the way.
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    etcd.ctl(&["del", key]);
    eventually("nobody calls s1", || {
        let before = s1.tokens().len();
        client.call(&Calls::new(20));
        (s1.tokens().len() == before).then_some(())
    });
    let addr = s1.addr();
    drop(s1);
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
        (metric(&balancer, "lookaside_registry_stale") == 1).then_some(())
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
    for server in [s1, s2, s3] {
        server.stop();
    }
    crate::core_clients::scene::fails_with(&client, "UNAVAILABLE");
    let newcomer = driver.open(&options());
    // Ruby's waiting calls need a config that the client itself gives.
    let clients =
        if config_from_dns && language == "ruby" { vec![] } else { vec![&client, &newcomer] };
    let waiting: Vec<_> = clients
        .into_iter()
        .map(|client| client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60))))
        .collect();
    let s5 = start("s5", &etcd.url());
    for call in waiting {
        assert_eq!(call.wait().from("s5"), 1);
    }
    client.shares(&["s5"]);
    s5.stop();
}

#[test]
fn the_six_steps_in_cpp_with_the_client_naming_grpclb() {
    six_steps("cpp", false);
}

#[test]
fn the_six_steps_in_cpp_with_dns_naming_grpclb() {
    six_steps("cpp", true);
}

#[test]
fn the_six_steps_in_ruby_with_the_client_naming_grpclb() {
    six_steps("ruby", false);
}

#[test]
fn the_six_steps_in_ruby_with_dns_naming_grpclb() {
    six_steps("ruby", true);
}

#[test]
fn clients_that_came_first_are_served_when_servers_come() {
    let etcd = Etcd::start();
    let balancer = balancer(&etcd, &[]);
    for (language, service) in LANGUAGES.into_iter().zip(["dev/game", "dev/chess"]) {
        let driver = Driver::start(language);
        let name = service.split('/').rev().collect::<Vec<_>>().join(".");
        let client = driver.open(&Open::grpclb(balancer.target(&name)));
        let early = client.call(&Calls::new(3));
        assert_eq!(early.failed(), 3, "{early:?}");
        assert!(early.errors.keys().all(|e| e.starts_with("UNAVAILABLE")), "{early:?}");
        let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
        let _one = Backend::registered("1", &etcd.url(), service);
        assert_eq!(waiting.wait().from("1"), 1);
        let _two = Backend::registered("2", &etcd.url(), service);
        client.shares(&["1", "2"]);
        let only_two = driver.open(&Open::grpclb(balancer.target(&format!("id--2.{name}"))));
        only_two.shares(&["2"]);
    }
}

#[test]
fn weights_are_exact_shares_and_backends_see_tokens() {
    let etcd = Etcd::start();
    let balancer = balancer(&etcd, &[]);
    let [mut heavy, mut light, mut none] = ["heavy", "light", "none"].map(Backend::start);
    heavy.register_with(&etcd.url(), "hello", Weight(30));
    light.register_with(&etcd.url(), "hello", Weight(10));
    none.register_with(&etcd.url(), "hello", Weight(0));
    for language in LANGUAGES {
        let driver = Driver::start(language);
        let client = driver.open(&Open::grpclb(balancer.target("hello")));
        let report = eventually("both are in use", || {
            let report = client.call(&Calls::new(400));
            (report.from("light") == 100).then_some(report)
        });
        assert_eq!((report.from("heavy"), report.from("none")), (300, 0), "{language}");
    }
    let (_, service) = balancer.get("/api/v1/services/hello");
    for token in heavy.tokens().into_iter().chain(light.tokens()) {
        let token = token.expect("every call carries a token");
        let (backend, _) = token.split_once('~').unwrap_or((&token, ""));
        assert!(token.len() < 50 && service.contains(backend), "{token} {service}");
    }
}

#[test]
fn without_backends_calls_fail_or_wait_as_the_operator_chose() {
    let etcd = Etcd::start();
    for (mode, waits) in [("wait", true), ("drop", false)] {
        let balancer = balancer(&etcd, &["--when-empty", mode]);
        for language in LANGUAGES {
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
