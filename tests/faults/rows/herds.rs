//! Row of clients that join in the middle of a round of pushes.
//!
//! In: many clients and changes. Out: how soon all clients have the newest list.

use std::time::{Duration, Instant};

use crate::check::Settled;
use crate::row::Row;
use crate::support::crowd::Manner;
use crate::support::{WAIT_MAX, eventually};
use crate::world::{CONVERGED, Size, World, service, vitals};
use crate::writer::{DEAD_PORT, server};

/// The table of listeners grows when it has more than this: its size is a power of two.
/// A round over it has several slices, so clients can join in the middle of one.
const PLACES: usize = 512;
/// Clients that are connected before, and clients that join while changes are pushed.
const BEFORE: usize = PLACES - 20;
const NEW: usize = 120;
const SERVERS: usize = 20;
const CHANGES: usize = 6;

#[test]
fn clients_join_during_a_round() {
    let must = "no client is left with an old list: all converge < 2 s after the last change; the \
                same when all have gone and others come";
    let fault = "clients join by the hundred, in the midst of changes that go to all";
    Row::run(29, fault, must, |row, scale| {
        let times = scale.pick(6, 40);
        let size = Size { services: times, servers: SERVERS, clients: 0, port: DEAD_PORT };
        let mut world = World::new(size, &[]);
        let mut last = Instant::now();
        let mut slowest = Duration::ZERO;
        for n in 0..times {
            let name = service(n);
            let names = |count: usize| vec![name.clone(); count];
            world.crowd.add(names(BEFORE), Manner::Usual);
            world.wait_listed(BEFORE);
            for change in 0..CHANGES {
                // A change that removes a backend is never delayed.
                last = world.writer.delete(&name, server(n, change, DEAD_PORT));
                if change == CHANGES / 2 {
                    world.crowd.add(names(NEW), Manner::Usual);
                }
                // Clients join at another point of the round each time.
                std::thread::sleep(Duration::from_millis((n * 7 + change * 3) as u64 % 10));
            }
            world.wait_listed(BEFORE + NEW);
            slowest = slowest.max(world.converge(last));
            world.crowd.leave();
            eventually("all are gone", || (vitals(&world.balancer).streams == 0).then_some(()));
        }
        row.saw(format!("{times} times {BEFORE} clients and {NEW} more"));
        row.within("converged after the last change", slowest, CONVERGED);
        world.finish(row, Some(Settled { at: last, within: WAIT_MAX }));
    });
}
