//! Rows of clients that do not read, and of clients that vanish without closing.
//!
//! In: such clients beside usual ones. Out: what they cost, and when they are
//! disconnected.

use std::time::{Duration, Instant};

use crate::check::{self, Settled};
use crate::row::{Row, percentile, short};
use crate::support::crowd::{Crowd, Manner, Plan};
use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::namespace::isolated;
use crate::support::network::Network;
use crate::support::{WAIT_MAX, eventually};
use crate::world::{Size, World, until, vitals};
use crate::writer::{DEAD_PORT, Writer, server};

/// When a client that takes nothing is disconnected: after a minute, plus two check
/// intervals of 15 s.
const LET_GO: Duration = Duration::from_secs(60 + 2 * 15);
/// When a vanished client is disconnected: a ping after 30 s, plus 10 s for its answer.
const REAPED: Duration = Duration::from_secs(40);

#[test]
fn some_clients_never_read() {
    let must = "a stalled client costs ≤ 100 kB whatever the others are sent; the others get lists \
                as soon as without it; a client that takes nothing for a minute is disconnected";
    Row::run(
        13,
        "10 % of the clients never read, or never open their windows",
        must,
        |row, scale| {
            let (updates, servers) = (scale.pick(20, 100), scale.pick(200, 1_000));
            let stalled = scale.streams / 10;
            let clients = scale.streams - stalled;
            let size = Size { services: 1, servers, clients, port: DEAD_PORT };
            let mut world = World::new(size, &[]);
            let alone = update(&mut world, updates, servers);
            world.crowd.add((0..stalled / 2).map(|_| "s0".to_owned()), Manner::Shut);
            world.crowd.add((0..stalled - stalled / 2).map(|_| "s0".to_owned()), Manner::Deaf);
            let all = || (vitals(&world.balancer).streams == scale.streams as u64).then_some(());
            eventually("all are connected", all);
            world.wait_listed(scale.streams);
            let (began, before) = (Instant::now(), vitals(&world.balancer).memory);
            let beside = update(&mut world, updates, servers + updates);
            let grown = vitals(&world.balancer).memory.saturating_sub(before);
            row.saw(format!("p99 without them {}, with them {}", short(alone), short(beside)));
            row.at_most("memory of each stalled", grown as f64 / stalled as f64, 100.0, " kB");
            let longer = beside.as_secs_f64() / alone.as_secs_f64().max(0.000_1);
            row.at_most(
                "p99 with them is longer by a factor of",
                longer,
                scale.pick(20.0, 1.5),
                "",
            );
            // Clients with shut windows notice and connect again. Clients that do not read
            // do not notice.
            let deaf = stalled - stalled / 2;
            let gone = || {
                let lost = world.crowd.history(|h| h.lost_since(began));
                let open = vitals(&world.balancer).streams;
                (lost >= stalled / 2 && open <= (scale.streams - deaf) as u64)
                    .then(|| began.elapsed())
            };
            row.happens_within("all of them let go after", until(LET_GO * 2, gone), LET_GO);
            // The lists of stalled clients may be old.
            let (names, settled) = (world.crowd.names(), Instant::now());
            let live =
                names.into_iter().enumerate().map(|(n, (name, live))| (name, live && n < clients));
            let live: Vec<_> = live.collect();
            row.clients(scale.streams);
            let (model, log) = (world.writer.model.clone(), world.balancer.log());
            row.breaches(check::leaks(&log, world.before, world.before));
            let settled = Settled { at: settled, within: WAIT_MAX };
            row.breaches(check::lists(&world.crowd.finish(), &model, &live, Some(settled)));
        },
    );
}

#[test]
fn peers_vanish_without_a_word() {
    isolated(|| {
        let must = "all of their streams are gone 40 s after the cut, and no others";
        Row::run(14, "the peers of half of the connections vanish", must, |row, scale| {
            let network = Network::new(0);
            let etcd = Etcd::start();
            let mut writer = Writer::new(&[etcd.url()]);
            writer.put_all("s0", (0..20).map(|n| server(0, n, DEAD_PORT)));
            let listen = format!("{}:0", network.ours());
            let balancer = Balancer::start(&["--etcd", &etcd.url(), "--listen", &listen]);
            balancer.wait_ready();
            let before = vitals(&balancer);
            let here = Crowd::new(Plan::mixed(balancer.grpclb()));
            let plan = Plan { network: Some(network.file()), ..Plan::mixed(balancer.grpclb()) };
            let there = Crowd::new(plan);
            let half = scale.streams / 2;
            here.add((0..half).map(|_| "s0".to_owned()), Manner::Usual);
            there.add((0..half).map(|_| "s0".to_owned()), Manner::Usual);
            let listed = || (here.listed() + there.listed() == 2 * half).then_some(());
            eventually("every client has a list", listed);
            network.cut();
            let cut = Instant::now();
            // The balancer also has a list to push to them.
            writer.put("s0", server(0, 20, DEAD_PORT));
            let gone = || (vitals(&balancer).streams == half as u64).then(|| cut.elapsed());
            let gone = until(REAPED * 2, gone);
            row.happens_within("gone after", gone, REAPED + Duration::from_secs(2));
            row.equal("streams of others closed", here.history(|h| h.lost.len()), 0);
            row.clients(2 * half);
            drop(there);
            let names = here.names();
            let settled = Settled { at: cut, within: WAIT_MAX };
            row.breaches(check::lists(&here.finish(), &writer.model, &names, Some(settled)));
            let mut after = before;
            let _ = until(WAIT_MAX, || {
                after = vitals(&balancer);
                check::leaks("", before, after).is_empty().then_some(())
            });
            row.breaches(check::leaks(&balancer.log(), before, after));
        });
    });
}

/// Registers `updates` backends one after the other. Returns the 99th percentile of
/// the time until a client had the list.
fn update(world: &mut World, updates: usize, first: usize) -> Duration {
    let mut fresh = Vec::new();
    for n in first..first + updates {
        let at = world.writer.put("s0", server(0, n, DEAD_PORT));
        let received = |history: &crate::support::crowd::History| {
            let new =
                &history.received[history.received.partition_point(|received| received.at < at)..];
            new.iter().map(|received| received.at - at).collect::<Vec<_>>()
        };
        // Stalled clients have room for a few lists; other clients get each one.
        let readers = world.crowd.len();
        let enough = || {
            let received = world.crowd.history(received);
            (received.len() * 10 >= readers * 9).then_some(received)
        };
        fresh.extend(until(Duration::from_secs(5), enough).unwrap_or_default());
    }
    fresh.sort_unstable();
    percentile(&fresh, 99)
}
