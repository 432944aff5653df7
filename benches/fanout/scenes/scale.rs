//! Measures a large registry: one change in it, many changes, the start.
//!
//! In: the number of services. Out: processor time and durations of lookaside only,
//! because the other servers know only one service.

use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::{AT_ONCE, Bench, Outcome, cell, ms, service};
use crate::run::client::{Load, Manner, Plan, Protocols};
use crate::run::start::{self, WAIT_MAX};

const BACKENDS: usize = 10;
/// No more messages are expected after this long without one.
const QUIET: Duration = Duration::from_millis(300);
/// Descriptors for everything but the clients.
const SPARE: usize = 500;

/// Measures a change of a service with one client, among more and more services.
pub(crate) fn growth(bench: &mut Bench) -> Outcome {
    for services in [10, bench.services / 10, bench.services] {
        let names: Vec<_> = (0..services).map(service).collect();
        bench.registry.fill(&names, BACKENDS);
        for kind in bench.ours(false) {
            let cell = cell("growth", services, BACKENDS, Manner::Plain, kind);
            let server = bench.start(kind, BACKENDS, true);
            let mut load = Load::connect(server.addr, &plan(1, 1, 1), WAIT_MAX)?;
            let before = server.cpu();
            let changes = bench.pushes * 100;
            for _ in 0..changes {
                load.expect_one();
                let put = bench.registry.change(&names[0]);
                load.until_caught_up(WAIT_MAX)?;
                bench.registry.acknowledged(put);
            }
            let cpu = (server.cpu() - before).as_secs_f64() * 1e6 / changes as f64;
            bench.note(&cell, "cpu us/change", cpu);
            bench.note(&cell, "memory MB", server.rss() as f64 / 1e6);
            load.kill();
        }
    }
    Ok(())
}

/// Measures many services that change all the time, with a few streams each.
pub(crate) fn updates(bench: &mut Bench) -> Outcome {
    let names: Vec<_> = (0..bench.services).map(service).collect();
    bench.registry.fill(&names, BACKENDS);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) as usize;
    // A connection has one stream, or more if descriptors are scarce.
    let streams = bench.streams.div_ceil(files.saturating_sub(SPARE).max(1));
    let connections = bench.streams / streams;
    if streams > 1 {
        println!(
            "  {files} descriptors: {} streams share {connections} connections",
            connections * streams
        );
    }
    for kind in bench.ours(false) {
        let cell = cell("updates", connections * streams, BACKENDS, Manner::Plain, kind);
        let server = bench.start(kind, BACKENDS, false);
        let plan = plan(connections, streams, bench.services);
        let mut load = Load::connect(server.addr, &plan, WAIT_MAX)?;
        let (cpu, messages, begun) = (server.cpu(), load.messages(), Instant::now());
        let churn = bench.registry.churn(names.clone(), bench.rate, bench.time);
        while !churn.is_finished() {
            load.run_for(Duration::from_millis(20));
        }
        let (ended, took) = (Instant::now(), begun.elapsed().as_secs_f64());
        let changes = f64::from(bench.registry.wait(churn)) / took;
        let used = (server.cpu() - cpu).as_secs_f64() / took;
        let pushes = (load.messages() - messages) as f64 / took;
        let behind = load.until_quiet(QUIET).saturating_duration_since(ended);
        bench.note(&cell, "changes/s", changes);
        bench.note(&cell, "pushes/s", pushes);
        bench.note(&cell, "% of a core", used * 100.0);
        bench.note(&cell, "behind at the end ms", ms(behind));
        bench.note(&cell, "streams/connection", streams as f64);
        load.kill();
    }
    Ok(())
}

/// Measures from the start of the program to ready, beside reading the same keys alone.
pub(crate) fn start(bench: &mut Bench) -> Outcome {
    let Some(&kind) = bench.ours(false).first() else { return Ok(()) };
    let cell = cell("start", bench.services, BACKENDS, Manner::Plain, kind);
    let start = start::Start::new(bench.services).round();
    bench.note(&cell, "read alone ms", ms(start.alone));
    bench.note(&cell, "to ready ms", ms(start.ready));
    bench.note(&cell, "memory MB", start.resident as f64);
    Ok(())
}

/// Returns a plan for clients of the first services, in turn.
pub(super) fn plan(connections: usize, streams: usize, services: usize) -> Plan {
    let names = (0..services).map(service).collect();
    let (manner, protocol) = (Manner::Plain, Protocols::Grpclb);
    Plan { connections, streams, manner, protocol, names, at_once: AT_ONCE }
}
