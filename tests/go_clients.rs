//! The main job, seen by unmodified Go clients (grpc-go), the newest release
//! and an old one: real etcd, real DNS, the real program.

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
use lookaside::model::Weight;

/// Tries a case with each release, side by side.
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

/// One with a registry of its own, which needs no etcd.
fn lone_balancer(args: &[&str]) -> Balancer {
    let balancer = Balancer::start(&[&["--report-interval", "1s"], args].concat());
    balancer.wait_ready();
    balancer
}

/// Where a lone balancer's backends register.
fn registry(balancer: &Balancer) -> String {
    format!("http://{}", balancer.registry())
}

/// What a metric of the balancer's has come to; 0 while it is not there.
#[track_caller]
fn metric(balancer: &Balancer, name: &str) -> u64 {
    balancer.metric(name).unwrap_or(0.0) as u64
}

/// The six steps in which such a system has always been tried by hand.
fn six_steps(driver: &Driver, config: Option<&str>) {
    let mut etcd = Etcd::start();
    let balancer = balancer(&etcd);
    let open = || driver.open(balancer.target("hello_service"), config);
    let start = |id, url: &str| Backend::registered(id, url, "hello_service");

    // 1. Three servers get equal shares.
    let (s1, s2, s3) =
        (start("s1", &etcd.url()), start("s2", &etcd.url()), start("s3", &etcd.url()));
    let client = open();
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
        (metric(&balancer, "lookaside_registry_stale") == 1).then_some(())
    });
    client.shares(&["s1", "s2", "s3"]);
    open().shares(&["s1", "s2", "s3"]);

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
    let newcomer = open();
    let waiting_too = newcomer.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
    let s5 = start("s5", &etcd.url());
    assert_eq!(waiting.wait().from("s5"), 1);
    assert_eq!(waiting_too.wait().from("s5"), 1);
    s5.stop();
}

#[test]
fn the_six_steps_with_the_client_naming_grpclb() {
    each_release(|driver| six_steps(driver, Some(GRPCLB)));
}

#[test]
fn the_six_steps_with_dns_naming_grpclb() {
    each_release(|driver| six_steps(driver, None));
}

#[test]
fn a_client_that_came_first_is_served_when_servers_come() {
    each_release(|driver| {
        let etcd = Etcd::start();
        let balancer = balancer(&etcd);
        let client = driver.open(balancer.target("game.dev"), None);
        let early = client.call(&Calls::new(3));
        assert!(early.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{early:?}");
        let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
        let one = Backend::registered("1", &etcd.url(), "dev/game");
        assert_eq!(waiting.wait().from("1"), 1);
        let two = Backend::registered("2", &etcd.url(), "dev/game");
        client.shares(&["1", "2"]);
        // One instance by its name.
        driver.open(balancer.target("id--2.game.dev"), None).shares(&["2"]);
        drop(one);
        two.stop();
    });
}

#[test]
fn backends_see_tokens_and_the_balancer_counts_calls() {
    each_release(|driver| {
        let balancer = lone_balancer(&[]);
        let one = Backend::registered("one", &registry(&balancer), "hello");
        let client = driver.open(balancer.target("hello"), None);
        assert_eq!(client.call(&Calls::waiting(50)).from("one"), 50);
        let (_, service) = balancer.get("/api/v1/services/hello");
        for token in one.tokens() {
            let token = token.expect("every call carries a token");
            let (backend, _) = token.split_once('~').unwrap_or((&token, ""));
            assert!(token.len() < 50 && service.contains(backend), "{token} {service}");
        }
        let calls = |what| {
            metric(&balancer, &format!("lookaside_client_calls_{what}_total{{service=\"hello\"}}"))
        };
        eventually("the calls are reported", || (calls("finished") == 50).then_some(()));
        // Go books a call when it ends: these two never differ.
        assert_eq!((calls("started"), calls("known_received")), (50, 50));
        assert_eq!((calls("failed_to_send"), calls("dropped")), (0, 0));
        let (_, clients) = balancer.get("/api/v1/clients");
        assert!(clients.contains(&driver.version()), "{clients}");
    });
}

#[test]
fn weights_are_exact_shares() {
    let balancer = lone_balancer(&[]);
    let (mut heavy, mut light, mut none) =
        (Backend::start("heavy"), Backend::start("light"), Backend::start("none"));
    heavy.register_with(&registry(&balancer), "hello", Weight(30));
    light.register_with(&registry(&balancer), "hello", Weight(10));
    none.register_with(&registry(&balancer), "hello", Weight(0));
    each_release(|driver| {
        let client = driver.open(balancer.target("hello"), None);
        let report = eventually("both are in use", || {
            let report = client.call(&Calls::waiting(400));
            (report.from("light") == 100).then_some(report)
        });
        assert_eq!((report.from("heavy"), report.from("none")), (300, 0));
    });
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
