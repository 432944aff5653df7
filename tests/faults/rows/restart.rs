//! Rows: what happens to the balancer itself.

use std::time::{Duration, Instant};

use crate::check::Settled;
use crate::row::{Row, spread};
use crate::support::crowd::FALLBACK;
use crate::world::{Size, World, overflows};

#[test]
fn the_balancer_is_killed_and_restarted() {
    let must = "every client has its list again ≤ 3 s after the restart, its backoff included; \
                none waits 10 s; nothing overflows";
    Row::run(17, "the balancer is killed and restarted", must, |row, scale| {
        let size = Size::of(scale);
        let mut world = World::new(size, &[]);
        let overflowed = overflows();
        let began = Instant::now();
        let up = world.crash();
        world.wait_listed(size.clients);
        herd(row, &world, began, up, overflowed);
        world.finish(row, Some(Settled { at: up, within: crate::support::PATIENCE }));
    });
}

/// The figures of a herd that came back.
fn herd(row: &mut Row, world: &World, began: Instant, up: Instant, overflowed: u64) {
    let (waits, last) = world.crowd.history(|history| {
        (history.waits_since(began), history.waits.last().expect("all waited").0)
    });
    row.within("all have lists after the restart:", last - up, Duration::from_secs(3));
    row.saw(format!("without a list: {}", spread(&waits)));
    let late = waits.iter().filter(|wait| **wait >= FALLBACK).count();
    row.equal("clients that waited 10 s", late, 0);
    let overflowed = overflows() - overflowed;
    row.equal("listen overflows", overflowed, 0);
}
