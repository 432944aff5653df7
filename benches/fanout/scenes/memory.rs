//! Measures the cost of clients that all come at once, that do not read, or that idle.
//!
//! In: the number of clients. Out: time, memory and processor time for each server.

use std::time::{Duration, Instant};

use super::{AT_ONCE, Bench, Outcome, SERVICE, cell, connect, ms, wait_until_idle};
use crate::run::client::Manner;
use crate::run::server::{Kind, on_core};

const STORMS: usize = 6;
const ENTRIES: usize = 100;
/// The second list of this length fills a window of 64 KiB.
const LONG: usize = 1_000;
const PUBLISHES: usize = 100;

/// Measures clients that all come at once and leave again; for lookaside, six times.
pub(crate) fn storm(bench: &mut Bench) -> Outcome {
    bench.fill(ENTRIES);
    let clients = bench.many;
    for kind in bench.kinds.clone() {
        let cell = cell("storm", clients, ENTRIES, Manner::Plain, kind);
        let mut server = bench.start(kind, ENTRIES, true);
        let mut first = None;
        for storm in 1..=if kind.is_lookaside() { STORMS } else { 1 } {
            let (fresh, dropped, begun) = (server.cpu(), listen_drops(), Instant::now());
            let mut load = connect(&server, kind, clients, Manner::Plain, usize::MAX / 2)?;
            if storm == 1 {
                let took = begun.elapsed();
                let cpu = (server.cpu() - fresh).as_secs_f64() * 1e6 / clients as f64;
                bench.note(&cell, "all served ms", ms(took));
                bench.note(&cell, "cpu us/stream", cpu);
                bench.note(&cell, "dropped SYNs", (listen_drops() - dropped) as f64);
            }
            bench.push(kind, &mut server, &mut load)?;
            let rss = server.rss() as f64;
            let first = *first.get_or_insert(rss);
            if storm == STORMS {
                bench.note(&cell, "memory sixth/first", rss / first);
            }
            load.kill();
            wait_until_idle(&server);
        }
    }
    Ok(())
}

/// Measures clients that never open their windows again while lists change.
pub(crate) fn stalled(bench: &mut Bench) -> Outcome {
    bench.fill(LONG);
    let clients = bench.many / 5;
    for kind in bench.kinds.clone() {
        // The limit keeps all bytes that it cannot write; go-xds waits for its clients.
        if kind.is_limit() || kind == Kind::GoXds {
            continue;
        }
        let cell = cell("stalled", clients, LONG, Manner::Stalled, kind);
        let mut server = bench.start(kind, LONG, true);
        let mut load = connect(&server, kind, clients, Manner::Stalled, AT_ONCE)?;
        wait_until_idle(&server);
        let before = server.rss();
        for _ in 0..PUBLISHES {
            if kind.is_lookaside() {
                let put = bench.registry.change(SERVICE);
                bench.registry.acknowledged(put);
            } else {
                server.publish();
            }
            load.run_for(Duration::from_millis(20));
        }
        wait_until_idle(&server);
        let more = server.rss().saturating_sub(before) as f64;
        bench.note(&cell, "kB/stream more", more / 1000.0 / clients as f64);
        load.kill();
    }
    Ok(())
}

/// Measures idle clients: no list changes, and each client sends a PING in 20 seconds and a
/// report in 10.
pub(crate) fn idle(bench: &mut Bench) -> Outcome {
    bench.fill(ENTRIES);
    let clients = bench.many;
    for kind in bench.ours(true) {
        let cell = cell("idle", clients, ENTRIES, Manner::Plain, kind);
        let server = bench.start(kind, ENTRIES, true);
        let mut load = connect(&server, kind, clients, Manner::Plain, AT_ONCE)?;
        wait_until_idle(&server);
        let (before, begun) = (server.cpu(), Instant::now());
        let mut said = 0;
        on_core(1, || {
            while begun.elapsed() < bench.time {
                // Each client sends two reports and a PING in twenty seconds. They are sent
                // one by one, because frames that arrive together are cheaper.
                let due = (begun.elapsed().as_secs_f64() / 20.0 * 3.0 * clients as f64) as usize;
                (said..due).for_each(|turn| load.chat(turn % clients, turn / clients % 3 < 2));
                said = due;
                load.run_for(Duration::from_millis(1));
            }
        });
        let used = (server.cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        bench.note(&cell, "% of a core", used * 100.0);
        load.kill();
    }
    Ok(())
}

/// Returns the number of SYNs and handshakes that this system has dropped so far, because
/// of full queues (`ListenOverflows`) and otherwise.
fn listen_drops() -> u64 {
    let text = std::fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "ListenDrops");
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
