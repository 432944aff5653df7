//! Tests of behaviour that only C-core's clients have or let a test set: they keep
//! connections of unlisted backends, and can ask DNS again soon. The tests use the newest
//! grpcio.

use std::sync::Arc;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Options};
use crate::support::etcd::Etcd;
use crate::support::language::PYTHON;
use crate::support::proxy::Proxy;
use crate::support::world::{SERVICE, World, metric};
use crate::support::{eventually, free_port};

/// The shortest time between two DNS lookups; C-core's default is thirty seconds.
const OFTEN: Duration = Duration::from_millis(100);

fn world() -> World {
    World::new(Arc::new(Etcd::start()), &PYTHON)
}

#[test]
fn a_server_that_is_listed_again_is_still_connected() {
    let world = world();
    let balancer = world.balancer(&[]);
    let _other = world.backend("other");
    let one = Backend::start("one");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let way = runtime.block_on(Proxy::to(one.addr().port()));
    let addr = way.url().trim_start_matches("http://").to_owned();
    let list = || world.etcd().ctl(&["put", &world.key("one"), &addr]);
    list();
    let options = Options::grpclb(world.target(&balancer));
    let driver = world.driver();
    // The default is ten seconds.
    let cache = "grpc.internal.grpclb_subchannel_cache_interval_ms";
    let client = driver.open(&options.option(cache, 600_000));
    client.shares(&["one", "other"]);
    world.etcd().ctl(&["del", &world.key("one")]);
    client.shares(&["other"]);
    list();
    client.shares(&["one", "other"]);
    assert_eq!(way.passed(), 1, "connections");
}

#[test]
fn in_fallback_a_dead_address_makes_clients_ask_dns_again() {
    let world = world();
    let balancer = world.announced_balancer(&["--when-empty", "fallback"]);
    let dns = world.dns(balancer.grpclb());
    let port = free_port();
    let [mut first, mut second] = ["127.0.0.2", "127.0.0.3"]
        .map(|ip| Backend::start_at(ip, format!("{ip}:{port}").parse().expect("an address")));
    world.put_in_dns(&dns, &mut first);
    let driver = world.driver();
    let client = driver.open(&world.falling_back_to(&dns, &first).ask_dns_every(OFTEN));
    client.shares(&["127.0.0.2"]);
    world.put_in_dns(&dns, &mut second);
    first.stop();
    dns.wait_unlisted(SERVICE, "127.0.0.2");
    client.shares(&["127.0.0.3"]);
}

/// Clients find the second balancer by asking DNS again, which they do when their
/// stream ends. Meanwhile they keep the list that they have.
#[test]
fn a_balancer_dies_and_clients_go_to_one_that_announced_itself_later() {
    let world = world();
    let mut first = world.announced_balancer(&[]);
    let dns = world.dns(first.grpclb());
    let other = world.in_dns(&dns, "other");
    let one = world.backend("one");
    let driver = world.driver();
    let options = world.falling_back_to(&dns, &other).ask_dns_every(OFTEN);
    // No timer makes it fall back.
    let client = driver.open(&options.fallback_after(Duration::from_secs(600)));
    client.shares(&["one"]);
    let second = world.announced_balancer(&[]);
    eventually("DNS has both", || (world.balancers_in_dns(&dns) == 2).then_some(()));
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let asked = metric(&dns, "lookaside_dns_answers_total");
    first.kill();
    eventually("the client has found the second", || {
        (metric(&second, "lookaside_streams_opened_total") == 1).then_some(())
    });
    assert!(metric(&dns, "lookaside_dns_answers_total") > asked);
    let two = world.backend("two");
    one.stop();
    eventually("the second is heard", || (!two.tokens().is_empty()).then_some(()));
    let meanwhile = client.stop();
    assert_eq!((meanwhile.failed(), meanwhile.from("other")), (0, 0), "{meanwhile:?}");
    client.shares(&["two"]);
}
