//! Tests of behaviour that only grpc-java has: it begins each list at its first entry, and
//! gives its balancer up when DNS does not answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Options};
use crate::support::etcd::Etcd;
use crate::support::language::JAVA;
use crate::support::world::{World, metric};
use crate::support::{eventually, skip};

/// Runs a test with a world for Java, or skips it where Java cannot run.
pub fn with_java(test: &str, run: impl FnOnce(World)) {
    match JAVA.obstacle() {
        Some(obstacle) => skip(test, &obstacle),
        None => run(World::new(Arc::new(Etcd::start()), &JAVA)),
    }
}

/// grpc-java begins each new list at its first entry. So where lists come more often
/// than calls, lists that always begin at the same entry would send all calls to one
/// backend.
#[test]
fn a_client_that_gets_lists_more_often_than_it_calls_spreads_its_calls() {
    const CALLS: u64 = 60;
    with_java("a_client_that_gets_lists_more_often_than_it_calls_spreads_its_calls", |world| {
        let balancer = world.balancer(&[]);
        let _backends: Vec<_> = (0..20).map(|n| world.backend(&format!("b{n}"))).collect();
        // A further backend moves to and fro: each list is as long as the one before.
        let places = ["here", "there"].map(Backend::start);
        let driver = world.driver();
        let client = driver.open(&Options::grpclb(world.target(&balancer)));
        client.call(&Calls::waiting(1));
        let mut answers = BTreeMap::new();
        for _ in 0..CALLS {
            for place in &places {
                let sent = metric(&balancer, "lookaside_lists_sent_total");
                world.put_all(&[(world.key("mover"), place.addr().to_string())]);
                eventually("the list is sent", || {
                    let now = metric(&balancer, "lookaside_lists_sent_total");
                    (now > sent).then_some(())
                });
            }
            for (id, count) in client.call(&Calls::waiting(1)).answers {
                *answers.entry(id).or_insert(0) += count;
            }
        }
        // An even spread gives each backend 2 or 3 calls.
        let most = answers.values().max().copied().unwrap_or(0);
        assert!(most <= CALLS / 4 && answers.len() >= 15, "{answers:?}");
    });
}

/// If its SRV question gets no answer, Java gives its balancer up, and asks DNS again only
/// when it loses a connection. lookaside cannot help a client whose DNS fails together with
/// the last balancer. The test shows that the client returns after the loss of a connection.
#[test]
fn clients_that_fell_back_without_dns_return_when_they_ask_it_again() {
    with_java("clients_that_fell_back_without_dns_return_when_they_ask_it_again", |world| {
        let mut first = world.balancer(&[]);
        let one = world.backend("one");
        let fallback = Backend::start("fallback");
        world.add_host("127.0.0.1");
        let driver = world.driver();
        let client = driver.open(&world.falling_back_to(&first, &fallback));
        client.shares(&["one"]);
        let grpclb = first.grpclb().to_string();
        first.kill();
        one.stop();
        client.shares(&["fallback"]);
        let _again = world.balancer(&["--listen", &grpclb]);
        let _two = world.backend("two");
        fallback.stop();
        client.shares(&["two"]);
    });
}
