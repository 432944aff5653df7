//! Rows of constant change: a flood of registrations, and a long time of churn.
//!
//! In: changes of backends and clients. Out: how old lists are, and memory.

use std::time::{Duration, Instant};

use crate::check::{self, Settled};
use crate::row::{Row, percentile, short, spread};
use crate::support::WAIT_MAX;
use crate::world::{CONVERGED, Size, World, service, vitals};
use crate::writer::{DEAD_PORT, server};

#[test]
fn registrations_come_as_a_flood() {
    let must = "changes are coalesced; half of all lists come within a second of the changes that \
                they contain; all converge < 2 s after the last";
    Row::run(27, "1,000 registrations a second in one service", must, |row, scale| {
        let size = Size { services: 1, servers: 20, ..Size::of(scale) };
        let mut world = World::new(size, &[]);
        let time = scale.pick(Duration::from_secs(4), Duration::from_secs(60));
        let pause = Duration::from_millis(scale.pick(4, 2));
        let (began, mut puts) = (Instant::now(), 0);
        while began.elapsed() < time {
            // The oldest backend leaves and a new one comes, so no two lists are equal.
            world.writer.put("s0", server(puts / 60_000, size.servers + puts % 60_000, DEAD_PORT));
            world.writer.delete("s0", server(puts / 60_000, puts % 60_000, DEAD_PORT));
            puts += 1;
            std::thread::sleep((pause * puts as u32).saturating_sub(began.elapsed()));
        }
        let ended = Instant::now();
        row.saw(format!(
            "{:.0} changes a second",
            2.0 * puts as f64 / began.elapsed().as_secs_f64()
        ));
        row.within("converged after the last", world.converge(ended), CONVERGED);
        let sent = world.crowd.history(|h| h.received_since(began));
        let most = 2 * puts * size.clients;
        row.saw(format!("lists sent: {sent} of {most}"));
        let (model, names) = (world.writer.model.clone(), world.crowd.names());
        let history = world.finish(row, Some(Settled { at: ended, within: WAIT_MAX }));
        let lags = check::lags(&history, &model, &names);
        row.saw(format!("a list's oldest change is told after: {}", spread(&lags)));
        row.within("half of them within", percentile(&lags, 50), Duration::from_secs(1));
    });
}

#[test]
fn all_of_it_changes_for_a_long_time() {
    let must = "every list is right; memory is flat: less than 5 % more at the end than after a \
                quarter of the time";
    let fault = "1 % of 5,000 backends and of all clients is replaced each second";
    Row::run(28, fault, must, |row, scale| {
        let clients = scale.pick(500, 2_000);
        let size = Size { services: 50, servers: 100, clients, port: DEAD_PORT };
        let mut world = World::new(size, &[]);
        let (began, mut turn) = (Instant::now(), 0_usize);
        let mut quarter = None;
        let mut peak = 0;
        while began.elapsed() < scale.soak {
            for _ in 0..50 {
                let (n, age) = (turn % size.services, turn / size.services);
                world.writer.put(&service(n), server(n, size.servers + age, DEAD_PORT));
                world.writer.delete(&service(n), server(n, age, DEAD_PORT));
                turn += 1;
            }
            world.crowd.renew(clients / 100);
            let memory = vitals(&world.balancer).memory;
            peak = peak.max(memory);
            if began.elapsed() >= scale.soak / 4 {
                quarter.get_or_insert(memory);
            }
            let due = Duration::from_secs(1) * u32::try_from(turn / 50).expect("it ends");
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let ended = Instant::now();
        row.saw(format!("{} servers replaced in {}", turn, short(began.elapsed())));
        row.within("converged after the last", world.converge(ended), CONVERGED);
        let (early, late) = (quarter.unwrap_or(1), vitals(&world.balancer).memory);
        row.saw(format!(
            "memory {} MB at a quarter, {} MB at the end, at most {} MB",
            early / 1024,
            late / 1024,
            peak / 1024
        ));
        let grown = (late as f64 / early as f64 - 1.0) * 100.0;
        row.at_most("memory grown", grown, scale.pick(25.0, 5.0), " %");
        row.equal("streams lost", world.crowd.history(|h| h.lost.len()), 0);
        let (model, names) = (world.writer.model.clone(), world.crowd.names());
        let history = world.finish(row, Some(Settled { at: ended, within: WAIT_MAX }));
        row.saw(format!("lists checked: {}", history.received.len()));
        let lags = check::lags(&history, &model, &names);
        row.saw(format!("a list's oldest change is told after: {}", spread(&lags)));
    });
}
