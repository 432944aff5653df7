//! C-core's official test cases of fallback and of balancers that come and go, with
//! the newest grpcio. The table of cases is in tests/clients/README.md. Fallback
//! timers of ten minutes show that a fallback does not come from a timer.

use std::time::Duration;

use lookaside::model::Weight;

use crate::core_clients::scene::{World, answered_by, backend_on, fails_with, metric};
use crate::support::backend::Backend;
use crate::support::core::{Calls, Channel, Driver, Open};
use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use crate::support::{eventually, free_port};

const SOON: Duration = Duration::from_millis(500);
const NEVER: Duration = Duration::from_secs(600);

/// A service with one backend and one fallback address.
struct Scene {
    world: World,
    driver: Driver,
    one: Backend,
    fallback: Backend,
}

impl Scene {
    fn start(flags: &[&str]) -> Self {
        Self::start_in("python", flags)
    }

    fn start_in(language: &'static str, flags: &[&str]) -> Self {
        let world = World::start_with(flags);
        let (one, fallback) = (Backend::start("one"), Backend::start("fallback"));
        world.fallback_to("hello", "fallback", fallback.addr());
        Self { world, driver: Driver::start(language), one, fallback }
    }

    fn open(&self, fallback_after: Duration) -> Channel<'_> {
        let target = self.world.target("hello", self.fallback.addr().port());
        let open = Open::grpclb(target).fallback_after(fallback_after);
        self.driver.open(&open.ask_dns_every(Duration::from_millis(100)))
    }
}

#[test]
fn a_silent_balancer_makes_clients_fall_back_until_it_speaks() {
    let scene = Scene::start(&[]);
    scene.world.list("hello", "one", scene.one.addr());
    // The kernel accepts connections for the stopped balancer, which sends nothing.
    scene.world.balancer.signal(Signal::STOP);
    let client = scene.open(SOON);
    answered_by(&client, "fallback");
    assert!(scene.fallback.tokens().iter().all(Option::is_none), "no token in fallback");
    scene.world.balancer.signal(Signal::CONT);
    answered_by(&client, "one");
}

#[test]
fn an_unreachable_balancer_makes_clients_fall_back_at_once() {
    let mut scene = Scene::start(&[]);
    scene.world.list("hello", "one", scene.one.addr());
    scene.world.balancer.kill();
    let client = scene.open(NEVER);
    answered_by(&client, "fallback");
    drop(client);
    scene.world.restart_balancer();
    answered_by(&scene.open(NEVER), "one");
}

#[test]
fn a_balancer_that_refuses_makes_clients_fall_back_at_once() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let scene = Scene::start(&["--etcd", &nobody]);
    answered_by(&scene.open(NEVER), "fallback");
    assert!(metric(&scene.world.balancer, "lookaside_streams_refused_total") > 0);
}

#[test]
fn the_balancer_sends_clients_into_fallback_and_back() {
    for language in ["python", "cpp", "ruby"] {
        let scene = Scene::start_in(language, &["--when-empty", "fallback"]);
        // Before any list.
        let client = scene.open(NEVER);
        answered_by(&client, "fallback");
        scene.world.list("hello", "one", scene.one.addr());
        answered_by(&client, "one");
        // After a list, although the backend works.
        scene.world.unlist("hello", "one");
        answered_by(&client, "fallback");
        scene.world.list("hello", "one", scene.one.addr());
        answered_by(&client, "one");
        assert_eq!(metric(&scene.world.balancer, "lookaside_streams_opened_total"), 1);
    }
}

#[test]
fn in_fallback_a_dead_address_makes_clients_ask_dns_again() {
    let world = World::start_with(&["--when-empty", "fallback"]);
    let ips = ["127.0.0.2", "127.0.0.3"];
    let port = free_port();
    let [first, second] = ips.map(|ip| backend_on(ip, ip, port));
    world.fallback_to("hello", "first", first.addr());
    let driver = Driver::start("python");
    let open = Open::grpclb(world.target("hello", port));
    let client = driver.open(&open.ask_dns_every(Duration::from_millis(100)));
    answered_by(&client, ips[0]);
    world.fallback_to("hello", "second", second.addr());
    world.no_fallback_to("hello", "first");
    drop(first);
    answered_by(&client, ips[1]);
}

#[test]
fn without_addresses_in_dns_fallback_fails_calls_until_a_list_comes() {
    let world = World::start_with(&["--when-empty", "fallback"]);
    let driver = Driver::start("python");
    let client = driver.open(&Open::grpclb(world.target("hello", 443)));
    fails_with(&client, "UNAVAILABLE");
    let one = Backend::start("one");
    world.list("hello", "one", one.addr());
    answered_by(&client, "one");
}

#[test]
fn a_backend_that_is_given_weight_ends_a_fallback_without_addresses() {
    let world = World::start_with(&["--when-empty", "fallback"]);
    let driver = Driver::start("python");
    let mut one = Backend::start("one");
    one.register_with(&world.etcd.url(), "hello", Weight(0));
    let client = driver.open(&Open::grpclb(world.target("hello", one.addr().port())));
    let report = client.call(&Calls::new(1).timeout(Duration::from_secs(10)));
    assert_eq!(report.failed(), 1, "{report:?}");
    one.register_with(&world.etcd.url(), "hello", Weight(1));
    client.shares(&["one"]);
}

/// Clients find the second balancer by asking DNS again, which they do when their
/// stream ends. Meanwhile they keep the list that they have.
#[test]
fn a_balancer_dies_and_clients_go_to_one_that_announced_itself_later() {
    let scene = Scene::start(&[]);
    scene.world.list("hello", "one", scene.one.addr());
    let client = scene.open(NEVER);
    answered_by(&client, "one");
    let second = announced(&scene.world.etcd);
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let asked = metric(&scene.world.dns, "lookaside_dns_answers_total");
    scene.world.balancer.signal(Signal::KILL);
    eventually("the client has found the second", || {
        (metric(&second, "lookaside_streams_opened_total") == 1).then_some(())
    });
    assert!(metric(&scene.world.dns, "lookaside_dns_answers_total") > asked);
    let two = Backend::start("two");
    scene.world.etcd.ctl(&["put", "/etcd3_naming/hello/two", &two.addr().to_string()]);
    scene.world.etcd.ctl(&["del", "/etcd3_naming/hello/one"]);
    eventually("the second is heard", || (!two.tokens().is_empty()).then_some(()));
    let meanwhile = client.stop();
    assert_eq!((meanwhile.failed(), meanwhile.from("fallback")), (0, 0), "{meanwhile:?}");
    answered_by(&client, "two");
}

/// Starts a balancer that announces its own address to the other replicas.
fn announced(etcd: &Etcd) -> Balancer {
    let own = format!("127.0.0.1:{}", free_port());
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--listen", &own, "--advertise", &own]);
    balancer.wait_ready();
    let announced = format!("/lookaside/balancers/lookaside.internal/{own}");
    eventually("it is announced", || {
        etcd.ctl(&["get", "--keys-only", &announced]).contains(&own).then_some(())
    });
    balancer
}
