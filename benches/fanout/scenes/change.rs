//! Measures how soon a change in etcd reaches clients: one change, many at once, and a
//! small service's beside a large one's. The server has both cores, and so has the load.
//!
//! In: the number of clients. Out: times, from the put on.

use std::time::Duration;

use super::{AT_ONCE, Bench, Outcome, PAUSE, SERVICE, cell, connect, ms, service};
use crate::run::client::{Load, Manner, Protocols};
use crate::run::report::percentile;
use crate::run::start::WAIT_MAX;

const ENTRIES: usize = 100;
const CHANGES: usize = 200;
/// No more messages are expected after this long without one.
const QUIET: Duration = Duration::from_millis(500);
/// After this long, the large service's fan-out has begun and is not over.
const BEHIND: Duration = Duration::from_millis(10);

/// Measures from a put to the last client. For the limit, the time is etcd's own delivery
/// and then the bare loop's fan-out.
pub(crate) fn put_to_last(bench: &mut Bench) -> Outcome {
    bench.fill(ENTRIES);
    let clients = bench.many;
    let kinds = [Protocols::Grpclb, Protocols::Eds].map(|protocol| bench.ours_by(protocol));
    for kind in kinds.concat() {
        let cell = cell("put", clients, ENTRIES, Manner::Plain, kind);
        let mut server = bench.start(kind, ENTRIES, false);
        server.let_clients_go_first();
        let mut load = connect(&server, kind, clients, Manner::Plain, AT_ONCE)?;
        let mut lasts = Vec::new();
        for _ in 0..bench.pushes * 3 {
            load.expect_one();
            let put = bench.registry.change(SERVICE);
            let begun = put.begun;
            if kind.is_limit() {
                let revision = bench.registry.acknowledged(put).revision;
                let delivery = bench.registry.delivered(revision) - begun;
                let published = std::time::Instant::now();
                server.publish();
                lasts.push(ms(delivery + (load.until_caught_up(WAIT_MAX)? - published)));
            } else {
                lasts.push(ms(load.until_caught_up(WAIT_MAX)? - begun));
                bench.registry.acknowledged(put);
            }
            load.run_for(PAUSE);
        }
        bench.note(&cell, "to last ms", percentile(&mut lasts, 50));
        load.kill();
    }
    Ok(())
}

/// Measures from etcd's own delivery to the only client.
pub(crate) fn put_to_one(bench: &mut Bench) -> Outcome {
    bench.fill(ENTRIES);
    for kind in bench.ours(false) {
        let cell = cell("put", 1, ENTRIES, Manner::Plain, kind);
        let server = bench.start(kind, ENTRIES, false);
        let mut load = connect(&server, kind, 1, Manner::Plain, AT_ONCE)?;
        let (mut deliveries, mut later) = (Vec::new(), Vec::new());
        for _ in 0..bench.pushes * 40 {
            load.expect_one();
            let put = bench.registry.change(SERVICE);
            let begun = put.begun;
            let here = load.until_caught_up(WAIT_MAX)?;
            let revision = bench.registry.acknowledged(put).revision;
            let delivered = bench.registry.delivered(revision);
            deliveries.push(ms(delivered - begun));
            later.push(ms(here.saturating_duration_since(delivered)));
        }
        bench.note(&cell, "etcd delivers ms", percentile(&mut deliveries, 50));
        bench.note(&cell, "later ms", percentile(&mut later, 50));
        bench.note(&cell, "later ms p99", percentile(&mut later, 99));
        load.kill();
    }
    Ok(())
}

/// Measures 200 backends that come within 0.2 seconds.
pub(crate) fn burst(bench: &mut Bench) -> Outcome {
    let clients = bench.many;
    for kind in bench.ours(false) {
        bench.fill(ENTRIES);
        let cell = cell("burst", clients, ENTRIES, Manner::Plain, kind);
        let mut server = bench.start(kind, ENTRIES, false);
        let mut load = connect(&server, kind, clients, Manner::Plain, AT_ONCE)?;
        let mut one = Vec::new();
        for _ in 0..bench.pushes {
            one.push(ms(bench.push(kind, &mut server, &mut load)?));
        }
        let before = load.messages_of_each();
        let add = |n| bench.registry.add(SERVICE, ENTRIES + n, Duration::from_millis(n as u64));
        let puts: Vec<_> = (0..CHANGES).map(add).collect();
        let end = load.until_quiet(QUIET);
        let acknowledged = puts.into_iter().map(|put| bench.registry.acknowledged(put).at);
        let last = acknowledged.max().expect("there are some");
        let after = load.messages_of_each();
        let pushes = after.iter().zip(before).map(|(after, before)| after - before).max();
        let converged = ms(end.saturating_duration_since(last)) / percentile(&mut one, 50);
        bench.note(&cell, "most pushes/stream", f64::from(pushes.expect("there are some")));
        bench.note(&cell, "end/one fan-out", converged);
        load.kill();
    }
    Ok(())
}

/// Measures a change of a service with one client: alone, and right behind a change of a
/// service with many clients.
pub(crate) fn fairness(bench: &mut Bench) -> Outcome {
    let clients = bench.many;
    for kind in bench.ours(false) {
        bench.registry.fill(&[SERVICE.to_owned(), service(0)], ENTRIES);
        let cell = cell("fairness", clients, ENTRIES, Manner::Plain, kind);
        let server = bench.start(kind, ENTRIES, true);
        let mut large = connect(&server, kind, clients, Manner::Plain, AT_ONCE)?;
        let mut small = Load::connect(server.addr, &super::scale::plan(1, 1, 1), WAIT_MAX)?;
        let (mut alone, mut waits, mut fanouts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.pushes * 2 {
            small.expect_one();
            let put = bench.registry.change(&service(0));
            alone.push(ms(small.until_caught_up(WAIT_MAX)? - put.begun));
            bench.registry.acknowledged(put);
            small.expect_one();
            large.expect_one();
            let first = bench.registry.change(SERVICE);
            let second = bench.registry.change_after(&service(0), BEHIND);
            let (small_end, large_end) = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| small.until_caught_up(WAIT_MAX));
                let large_end = large.until_caught_up(WAIT_MAX);
                (waiting.join().expect("it does not panic"), large_end)
            });
            waits.push(ms(small_end?.saturating_duration_since(second.begun)));
            fanouts.push(ms(large_end? - first.begun));
            large.run_for(PAUSE);
        }
        let median = |mut values: Vec<f64>| percentile(&mut values, 50);
        let (waits, fanouts) = (median(waits), median(fanouts));
        bench.note(&cell, "small alone ms", median(alone));
        bench.note(&cell, "small beside large ms", waits);
        bench.note(&cell, "large ms", fanouts);
        bench.note(&cell, "small/large", waits / fanouts);
        large.kill();
    }
    Ok(())
}
