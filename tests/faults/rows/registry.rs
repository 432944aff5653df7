//! Rows: what etcd does to the balancer.

use std::time::{Duration, Instant};

use crate::check::Settled;
use crate::row::Row;
use crate::world::{CONVERGED, Size, World, service};
use crate::writer::{DEAD_PORT, server};

/// Staleness is told so soon.
const TOLD: Duration = Duration::from_secs(5);
const FIRST_LIST: Duration = Duration::from_millis(100);

#[test]
fn etcd_is_down_and_returns() {
    let must = "no stream closes, no list changes; stale is told < 5 s; a newcomer has the last \
                list < 100 ms; after the return all converge < 2 s, and only who must is told";
    Row::run(1, "etcd is killed, and returns", must, |row, scale| {
        let size = Size::of(scale);
        let mut world = World::new(size, &[]);
        let down = Instant::now();
        world.etcd.kill();
        told_stale(&world, row, down);
        std::thread::sleep(scale.outage.saturating_sub(down.elapsed()));
        world.nobody_is_touched(row, down);
        let newcomer = world.newcomer("s0");
        row.within("a newcomer waits", newcomer, FIRST_LIST);
        row.saw(format!("down for {:?}", scale.outage));
        world.etcd.restart();
        let up = Instant::now();
        let before = world.crowd.history(|h| h.told.len());
        world.writer.put("s0", server(0, size.servers, DEAD_PORT));
        row.within("converged", world.converge(up), CONVERGED);
        told_only(&world, row, before, "s0");
        let settled = Settled { at: up, within: crate::support::PATIENCE };
        world.finish(row, Some(settled));
    });
}

/// That staleness shows, and when.
fn told_stale(world: &World, row: &mut Row, since: Instant) {
    world.wait_metric("lookaside_registry_stale", |stale| stale == 1.0);
    row.within("stale is told after", since.elapsed(), TOLD);
    let (status, page) = world.balancer.get("/readyz");
    row.must(status == 200 && page.lines().count() > 1, format!("/readyz: {status} {page}"));
}

/// That clients of no other service were told anything.
fn told_only(world: &World, row: &mut Row, before: usize, service: &str) {
    let names = world.crowd.names();
    let others = world.crowd.history(|history| {
        let new = &history.told[before..];
        new.iter().filter(|told| names[told.client as usize].0 != service).count()
    });
    row.equal("lists sent to clients of unchanged services", others, 0);
}
