//! Rows of an etcd of three members that loses its leader, a member, or the network
//! between members.
//!
//! In: faults of members. Out: how soon the next change reaches all clients.

use std::time::{Duration, Instant};

use crate::check::Settled;
use crate::row::Row;
use crate::support::WAIT_MAX;
use crate::support::cluster::Cluster;
use crate::support::namespace::isolated;
use crate::support::network::Network;
use crate::world::{Size, World};
use crate::writer::{DEAD_PORT, Writer, server};

/// The time of two elections with etcd's default timeouts.
const ELECTIONS: Duration = Duration::from_secs(3);
const FAIL_OVER: Duration = Duration::from_secs(10);

#[test]
fn the_leader_changes_and_members_die() {
    let must = "no stream is lost; the next change arrives < 3 s after the fault, the election \
                included; no client gets a list twice";
    let fault = "etcd's leader moves; each of three members is killed in turn, and returns";
    Row::run(7, fault, must, |row, scale| {
        let size = Size::of(scale);
        let cluster = Cluster::start(3);
        let urls = cluster.urls();
        let mut world = World::with(cluster, &urls, size, &[], &[]);
        let began = Instant::now();
        let mut next = size.servers;
        world.etcd.move_leader();
        row.within("after the leader moved:", put(&mut world, &mut next, began), ELECTIONS);
        let mut longest = Duration::ZERO;
        for member in 0..3 {
            let killed = Instant::now();
            world.etcd.kill(member);
            longest = longest.max(put(&mut world, &mut next, killed));
            world.etcd.restart(member);
        }
        row.within("after a member died, at most", longest, ELECTIONS);
        ended(world, row, began);
    });
}

#[test]
fn a_member_is_partitioned() {
    let must = "the balancer leaves a member without a leader for another; changes that are \
                written to the others arrive < 10 s after the cut; no stream is lost";
    isolated(|| {
        let fault = "each of etcd's members in turn is cut off from the others, not from lookaside";
        Row::run(8, fault, must, |row, scale| {
            let size = Size::of(scale);
            let networks: Vec<_> = (0..3).map(Network::new).collect();
            let places: Vec<_> = networks.iter().map(|n| (n.theirs(), Some(n.name()))).collect();
            let cluster = Cluster::start_in(&places);
            let urls = cluster.urls();
            let mut world = World::with(cluster, &urls, size, &[], &[]);
            let began = Instant::now();
            let mut next = size.servers;
            let mut longest = Duration::ZERO;
            for (number, network) in networks.iter().enumerate() {
                let others = || networks.iter().filter(|other| other.name() != network.name());
                others().for_each(|other| network.cut_from(other));
                let cut = Instant::now();
                let mut majority = urls.clone();
                majority.remove(number);
                let model = world.writer.model.clone();
                world.writer = Writer::with_model(&majority, model);
                longest = longest.max(put(&mut world, &mut next, cut));
                others().for_each(|other| network.mend_to(other));
                let healed = || world.etcd.ctl(number, &["endpoint", "health"]).then_some(());
                crate::support::eventually("the member is back", healed);
            }
            row.within("after a cut, at most", longest, FAIL_OVER);
            ended(world, row, began);
        });
    });
}

/// Registers one more backend. Returns how long after `since` all clients had it.
fn put(world: &mut World<Cluster>, next: &mut usize, since: Instant) -> Duration {
    world.writer.put("s0", server(0, *next, DEAD_PORT));
    *next += 1;
    world.converge(since)
}

fn ended(world: World<Cluster>, row: &mut Row, began: Instant) {
    let lost = world.crowd.history(|history| history.lost_since(began));
    row.equal("streams closed", lost, 0);
    let received = world.crowd.history(|history| {
        let since = history.received.partition_point(|received| received.at <= began);
        history.received.len() - since
    });
    // Only clients of one service of ten get lists, at most one for each put.
    let puts = world.writer.model.steps("s0").len() - 1;
    let of_service = world.crowd.names().iter().filter(|(name, _)| name == "s0").count();
    row.saw(format!("lists sent: {received} for {puts} registrations"));
    row.must(received <= puts * of_service, "nobody is told twice");
    world.finish(row, Some(Settled { at: Instant::now(), within: WAIT_MAX }));
}
