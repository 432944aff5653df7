//! Rows in which most registrations of a service go at once, by accident or on
//! purpose.
//!
//! In: lost leases and deletions. Out: the lists that remain.

use std::time::{Duration, Instant};

use crate::check::Settled;
use crate::row::Row;
use crate::support::crowd::{Content, Manner, Set};
use crate::support::{WAIT_MAX, eventually};
use crate::world::{CONVERGED, Size, World};
use crate::writer::{DEAD_PORT, Living, server};

/// The service that loses registrations. No other service has its number.
const BIG: &str = "big";
const BIG_NUMBER: usize = 100;
const SERVERS: usize = 100;
/// How many backends keep their registration.
const LEFT: usize = 10;

#[test]
fn most_of_a_service_expires() {
    let must = "at least half of the last good list stays in every list; the alarm comes < 1 s; \
                `release` drops the rest";
    Row::run(4, "90 % of a service's leases expire together", must, |row, scale| {
        let mut world = World::new(Size::of(scale), &[]);
        let all = register(&mut world, DEAD_PORT, 10);
        let crowd = add_clients(&world, scale.streams / 10);
        let left: Set = all.iter().take(LEFT).copied().collect();
        let model = &mut world.writer.model;
        model.between(BIG, left.clone(), all.clone(), Instant::now());
        let keys = world.balancer.metric("lookaside_registry_keys").expect("it is shown");
        world.wait_metric("lookaside_registry_keys", |now| now < keys);
        let lost = Instant::now();
        world.wait_metric("lookaside_endpoints_held", |held| held > 0.0);
        row.within("the alarm after", lost.elapsed(), Duration::from_secs(1));
        world.wait_metric("lookaside_services_guarded", |guarded| guarded == 1.0);
        // Dead backends have left, except for those that the guard keeps.
        world.wait_metric("lookaside_endpoints_held", |held| held == (SERVERS / 2 - LEFT) as f64);
        let least = least(&world);
        row.saw(format!("the shortest list of {SERVERS}: {least}"));
        row.must(least >= SERVERS / 2, format!("at least half stays, not {least}"));
        world.writer.model.exactly(BIG, left, Instant::now());
        let url = format!("http://{}/api/v1/services/{BIG}/release", world.balancer.admin());
        let released = Instant::now();
        ureq::post(&url).config().proxy(None).build().send_empty().expect("it is released");
        row.within("let go on the operator's word after", world.converge(released), CONVERGED);
        row.must(crowd > 0, "somebody is told");
        world.finish(row, Some(Settled { at: released, within: WAIT_MAX }));
    });
}

#[test]
fn the_living_stay_though_their_leases_are_gone() {
    let must = "no client gets a list: all backends answer, so all stay";
    Row::run(5, "90 % of a service's leases are lost, and all still serve", must, |row, scale| {
        let living = Living::start();
        let mut world = World::new(Size::of(scale), &[]);
        register(&mut world, living.port(), 4);
        add_clients(&world, scale.streams / 10);
        let before = Instant::now();
        world.wait_metric("lookaside_endpoints_held", |held| held == (SERVERS - LEFT) as f64);
        let probed = || {
            let (_, page) = world.balancer.get(&format!("/api/v1/services/{BIG}"));
            (page.matches("takes connections").count() == SERVERS - LEFT).then_some(())
        };
        eventually("all are probed", probed);
        world.nobody_is_touched(row, before);
        row.saw(format!("held: {}", SERVERS - LEFT));
        world.finish(row, Some(Settled { at: before, within: WAIT_MAX }));
    });
}

#[test]
fn deregistration_is_obeyed() {
    let must = "the backends leave the lists at once, though they still serve: the guard hides no \
                real shutdown";
    Row::run(6, "90 % of a service deregisters", must, |row, scale| {
        let living = Living::start();
        let mut world = World::new(Size::of(scale), &[]);
        let all = register(&mut world, living.port(), 600);
        add_clients(&world, scale.streams / 10);
        let left: Set = all.iter().take(LEFT).copied().collect();
        // The balancer asks etcd about each lease, and backends leave in the order of
        // the answers.
        world.writer.model.between(BIG, left.clone(), all.clone(), Instant::now());
        all.difference(&left).for_each(|&gone| world.writer.erase(BIG, gone));
        let deleted = Instant::now();
        world.writer.model.exactly(BIG, left, deleted);
        row.within("all lists hold the rest alone after", world.converge(deleted), CONVERGED);
        row.equal("held", world.balancer.metric("lookaside_endpoints_held"), Some(0.0));
        world.finish(row, Some(Settled { at: deleted, within: WAIT_MAX }));
    });
}

/// Registers a service: the first `LEFT` backends share a long lease, and each ten of
/// the others share a lease of `seconds`. Returns the addresses.
fn register(world: &mut World, port: u16, seconds: i64) -> Set {
    let long = world.writer.lease(600);
    let mut short = 0;
    let mut all = Set::new();
    for n in 0..SERVERS {
        if n >= LEFT && n % 10 == 0 {
            short = world.writer.lease(seconds);
        }
        let server = server(BIG_NUMBER, n, port);
        world.writer.put_leased(BIG, server, if n < LEFT { long } else { short });
        all.insert(server);
    }
    all
}

/// Adds clients of that service. Returns their number.
fn add_clients(world: &World, count: usize) -> usize {
    let before = world.crowd.len();
    world.crowd.add((0..count).map(|_| BIG.to_owned()), Manner::Usual);
    world.wait_listed(before + count);
    count
}

/// Returns the length of the shortest list that a client of the service got.
fn least(world: &World) -> usize {
    let names = world.crowd.names();
    world.crowd.history(|history| {
        let received =
            history.received.iter().filter(|received| names[received.client as usize].0 == BIG);
        let length = |what| match what {
            Content::Servers(index) => history.sets[index as usize].len(),
            Content::Nothing | Content::Fallback => 0,
        };
        received.map(|received| length(received.what)).min().unwrap_or(0)
    })
}
