//! C-core's other official test cases (grpclb_end2end_test.cc) as black boxes, with
//! the newest grpcio. The table of cases is in tests/clients/README.md.

use std::time::Duration;

use lookaside::model::Weight;

use crate::core_clients::scene::{World, answered_by, fails_with, metric};
use crate::support::backend::Backend;
use crate::support::core::{Calls, Driver, Open};
use crate::support::eventually;
use crate::support::proxy::Proxy;

/// A world with a Python client and backends that are listed.
struct Scene {
    world: World,
    driver: Driver,
}

impl Scene {
    fn start(flags: &[&str]) -> Self {
        Self { world: World::start_with(flags), driver: Driver::start("python") }
    }

    fn target(&self) -> String {
        self.world.target("hello", 443)
    }

    fn listed(&self, id: &str) -> Backend {
        let backend = Backend::start(id);
        self.world.list("hello", id, backend.addr());
        backend
    }
}

#[test]
fn a_server_that_is_listed_again_is_still_connected() {
    let scene = Scene::start(&[]);
    let _other = scene.listed("other");
    let one = Backend::start("one");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let way = runtime.block_on(Proxy::to(one.addr().port()));
    let addr = way.url().trim_start_matches("http://").parse().expect("an address");
    scene.world.list("hello", "one", addr);
    let open = Open::grpclb(scene.target());
    // The default is ten seconds.
    let open = open.option("grpc.internal.grpclb_subchannel_cache_interval_ms", 600_000);
    let client = scene.driver.open(&open);
    client.shares(&["one", "other"]);
    scene.world.unlist("hello", "one");
    answered_by(&client, "other");
    scene.world.list("hello", "one", addr);
    client.shares(&["one", "other"]);
    assert_eq!(way.passed(), 1, "connections");
}

#[test]
fn what_a_server_answers_comes_through_and_is_reported() {
    let scene = Scene::start(&[]);
    // This server does not implement the greeter.
    scene.world.list("hello", "one", scene.world.balancer.grpclb());
    let client = scene.driver.open(&Open::grpclb(scene.target()));
    fails_with(&client, "UNIMPLEMENTED");
    let seen = metric(&scene.world.balancer, &calls("known_received"));
    assert_eq!(client.call(&Calls::new(10)).failed(), 10);
    eventually("the calls are reported", || {
        (metric(&scene.world.balancer, &calls("known_received")) >= seen + 10).then_some(())
    });
    assert_eq!(metric(&scene.world.balancer, &calls("failed_to_send")), 0);
}

#[test]
fn policies_that_the_client_does_not_know_are_passed_over() {
    let scene = Scene::start(&[]);
    let _one = scene.listed("one");
    let config = r#"{"loadBalancingConfig":[{"of_the_future":{}},{"grpclb":{}}]}"#;
    answered_by(&scene.driver.open(&Open::with(scene.target(), Some(config))), "one");
}

#[test]
fn a_name_without_balancers_and_addresses_fails_calls() {
    let scene = Scene::start(&[]);
    let target = format!("dns://{}/elsewhere.test:443", scene.world.dns.dns());
    fails_with(&scene.driver.open(&Open::grpclb(target)), "UNAVAILABLE");
    assert_eq!(metric(&scene.world.balancer, "lookaside_streams_opened_total"), 0);
}

#[test]
fn calls_fail_at_once_when_nobody_listed_is_reachable() {
    let scene = Scene::start(&[]);
    for id in ["a", "b", "c"] {
        drop(scene.listed(id));
    }
    let client = scene.driver.open(&Open::grpclb(scene.target()));
    let report = client.call(&Calls::new(3).timeout(Duration::from_secs(30)));
    assert_eq!(report.failed(), 3, "{report:?}");
    assert!(report.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{report:?}");
    // The balancer works, so the client neither opens another stream nor falls back.
    assert_eq!(metric(&scene.world.balancer, "lookaside_streams_opened_total"), 1);
}

#[test]
fn servers_restart_and_are_found_again_on_the_same_stream() {
    let scene = Scene::start(&[]);
    let backends = ["a", "b"].map(|id| scene.listed(id));
    let client = scene.driver.open(&Open::grpclb(scene.target()));
    client.shares(&["a", "b"]);
    let addrs = backends.map(|backend| backend.addr());
    fails_with(&client, "UNAVAILABLE");
    let waiting = client.begin(&Calls::waiting(1).timeout(Duration::from_secs(60)));
    let _a = Backend::start_at("a", addrs[0]);
    let _b = Backend::start_at("b", addrs[1]);
    assert_eq!(waiting.wait().succeeded(), 1);
    client.shares(&["a", "b"]);
    assert_eq!(metric(&scene.world.balancer, "lookaside_streams_opened_total"), 1);
}

#[test]
fn a_name_in_the_config_wins_over_the_targets() {
    let scene = Scene::start(&[]);
    let _one = scene.listed("one");
    let config = r#"{"loadBalancingConfig":[{"grpclb":{"serviceName":"hello"}}]}"#;
    let target = scene.world.target("front-door", 443);
    answered_by(&scene.driver.open(&Open::with(target, Some(config))), "one");
    // Without a name in the config, the client asks for the target as typed.
    let client = scene.driver.open(&Open::grpclb(scene.world.target("HELLO", 443)));
    answered_by(&client, "one");
    let (_, clients) = scene.world.balancer.get("/api/v1/clients");
    assert!(clients.contains("\"HELLO.lookaside.internal:443\""), "{clients}");
}

#[test]
fn a_list_that_drops_everything_does_so_first_and_later() {
    let scene = Scene::start(&["--when-empty", "drop"]);
    let dropped = "UNAVAILABLE: drop directed by grpclb balancer";
    let client = scene.driver.open(&Open::grpclb(scene.target()));
    fails_with(&client, dropped);
    let one = scene.listed("one");
    answered_by(&client, "one");
    scene.world.unlist("hello", "one");
    fails_with(&client, dropped);
    let waits = client.call(&Calls::waiting(1));
    assert!(waits.errors.keys().all(|error| error.starts_with(dropped)), "{waits:?}");
    scene.world.list("hello", "one", one.addr());
    answered_by(&client, "one");
}

#[test]
fn dropped_calls_are_reported_as_such() {
    let scene = Scene::start(&["--when-empty", "drop"]);
    // It is registered, so that there is a service to count for, but gets no traffic.
    let mut none = Backend::start("none");
    none.register_with(&scene.world.etcd.url(), "hello", Weight(0));
    scene.world.balancer.wait_listed("hello", "none");
    let client = scene.driver.open(&Open::grpclb(scene.target()));
    assert_eq!(client.call(&Calls::new(7)).failed(), 7);
    eventually("the drops are reported", || {
        (metric(&scene.world.balancer, &calls("dropped")) == 7).then_some(())
    });
    assert_eq!(metric(&scene.world.balancer, &calls("started")), 7);
    assert_eq!(metric(&scene.world.balancer, &calls("finished")), 7);
    assert_eq!(metric(&scene.world.balancer, &calls("failed_to_send")), 0);
}

#[test]
fn a_client_that_was_idle_comes_back_with_its_next_call() {
    let scene = Scene::start(&[]);
    let _one = scene.listed("one");
    let open = Open::grpclb(scene.target()).option("grpc.client_idle_timeout_ms", 1_000);
    let client = scene.driver.open(&open);
    answered_by(&client, "one");
    eventually("its stream is closed", || {
        (metric(&scene.world.balancer, "lookaside_streams_open{client_kind=\"core\"}") == 0)
            .then_some(())
    });
    answered_by(&client, "one");
    assert_eq!(metric(&scene.world.balancer, "lookaside_streams_opened_total"), 2);
}

fn calls(which: &str) -> String {
    format!("lookaside_client_calls_{which}_total{{service=\"hello\"}}")
}
