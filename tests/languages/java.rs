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

/// The most times that a call goes to one backend, if each of `calls` goes to one of `backends`
/// at random: with a probability of at most `chance`, any of `cases` such numbers is larger.
/// By Chernoff's bound for the upper tail, so the real probability is smaller.
fn most_by_chance(calls: u64, backends: u64, cases: u64, chance: f64) -> u64 {
    let mean = calls as f64 / backends as f64;
    let needed = (cases as f64 / chance).ln() / mean;
    let exponent = |over: f64| (1.0 + over) * over.ln_1p() - over;
    let enough = |most: &u64| exponent(*most as f64 / mean - 1.0) >= needed;
    (mean.ceil() as u64..).find(enough).expect("the exponent grows without end")
}

/// grpc-java begins each new list at its first entry. So where lists come more often
/// than calls, lists that always begin at the same entry would send all calls to one
/// backend.
///
/// Each client gets a list before each of its calls. If lists began anywhere, at random, one run in
/// 10,000 would fail; those that lookaside sends are more even than that.
#[test]
fn a_client_that_gets_lists_more_often_than_it_calls_spreads_its_calls() {
    const CLIENTS: u64 = 20;
    const ROUNDS: u64 = 600;
    const BACKENDS: u64 = 11;
    const CHANCE: f64 = 1e-4;
    with_java("a_client_that_gets_lists_more_often_than_it_calls_spreads_its_calls", |world| {
        let balancer = world.balancer(&[]);
        let _backends: Vec<_> = (1..BACKENDS).map(|n| world.backend(&format!("b{n}"))).collect();
        // A further backend moves to and fro: each list is as long as the one before.
        let places = ["mover", "mover"].map(Backend::start);
        let driver = world.driver();
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| driver.open(&Options::grpclb(world.target(&balancer)))).collect();
        let call = |count: u64| -> Vec<BTreeMap<String, u64>> {
            let calls = Calls::waiting(count);
            let begun: Vec<_> = clients.iter().map(|client| client.begin(&calls)).collect();
            begun.into_iter().map(|one| one.wait().answers).collect()
        };
        let mut rounds = places.iter().cycle();
        let mut send_lists = || {
            let place = rounds.next().expect("they go on for ever").addr().to_string();
            let sent = metric(&balancer, "lookaside_lists_sent_total");
            world.put_all(&[(world.key("mover"), place)]);
            eventually("each client is sent a list", || {
                let now = metric(&balancer, "lookaside_lists_sent_total");
                (now >= sent + CLIENTS).then_some(())
            });
        };
        // Connections to all backends, at both places of the one that moves.
        call(1);
        for _ in 0..6 {
            send_lists();
            call(3 * BACKENDS);
        }
        let mut answers = vec![BTreeMap::<String, u64>::new(); clients.len()];
        for _ in 0..ROUNDS {
            send_lists();
            for (answers, new) in answers.iter_mut().zip(call(1)) {
                new.into_iter().for_each(|(id, count)| *answers.entry(id).or_default() += count);
            }
        }
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for (id, count) in answers.iter().flatten() {
            *all.entry(id.clone()).or_default() += count;
        }
        let share = (CLIENTS * ROUNDS) as f64 / BACKENDS as f64;
        let over = |most: u64| most as f64 / share;
        let by_chance = most_by_chance(CLIENTS * ROUNDS, BACKENDS, BACKENDS, CHANCE);
        assert!(over(by_chance) <= 1.151, "the calls suffice for the bound: {}", over(by_chance));
        let most = all.values().max().copied().unwrap_or(0);
        let own = answers.iter().filter_map(|one| one.values().max()).max().copied().unwrap_or(0);
        println!(
            "at most {:.3} of a share; at most {own} of {ROUNDS} calls of one client",
            over(most)
        );
        assert!(over(most) <= 1.15, "{all:?}");
        let by_chance = most_by_chance(ROUNDS, BACKENDS, CLIENTS * BACKENDS, CHANCE);
        assert!(own <= by_chance, "{own} of {ROUNDS}, by chance {by_chance}: {answers:?}");
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
