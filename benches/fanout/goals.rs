//! The goals of the benchmark, and how a report is compared with them.
//!
//! In: a report. Out: a row for each goal whose values were measured.

use std::fmt::{self, Write as _};

use super::client::Manner::{Grpc, Plain, Stalled};
use super::report::{Cell, Spread};
use super::scenes::Bench;
use super::server::Kind::{GoXds, GrpcGo, Limit, LimitXds, Lookaside, LookasideXds};

pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) must: Must,
    pub(crate) found: Spread,
}

#[derive(Clone, Copy)]
pub(crate) enum Must {
    AtMost(f64),
    AtLeast(f64),
}

use Must::{AtLeast, AtMost};

impl Goal {
    pub(crate) fn is_met(&self) -> bool {
        match self.must {
            AtMost(most) => self.found.median <= most,
            AtLeast(least) => self.found.median >= least,
        }
    }
}

impl fmt::Display for Must {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AtMost(most) => write!(f, "≤ {most}"),
            AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

/// Returns the goals as a table. "N" is the number of clients of the run.
pub(crate) fn table(goals: &[Goal]) -> String {
    let mut text = String::from("| goal | must | measured | |\n|---|---|---|---|\n");
    for goal in goals {
        let met = if goal.is_met() { "met" } else { "**not met**" };
        let _ = writeln!(text, "| {} | {} | {} | {met} |", goal.what, goal.must, goal.found);
    }
    text
}

pub(crate) fn judge(bench: &Bench) -> Vec<Goal> {
    let report = &bench.report;
    let ratios = ratios(bench).into_iter().map(|(what, must, cell, to)| {
        let found = report.ratio(&cell, &to)?;
        Some(Goal { what, must, found })
    });
    let values = values(bench).into_iter().map(|(what, must, cell)| {
        let found = report.spread(&cell)?;
        Some(Goal { what, must, found })
    });
    ratios.chain(values).flatten().collect()
}

/// Returns the goals that compare one cell with another.
fn ratios(bench: &Bench) -> Vec<(&'static str, Must, Cell, Cell)> {
    let many = bench.many;
    let push = |metric, entries, manner, server| Cell {
        scene: "push",
        metric,
        manner,
        clients: many,
        entries,
        server,
    };
    let cpu = |entries, manner, server| push("cpu us/push", entries, manner, server);
    let cpu_limit = |what, most, entries, manner| {
        (what, AtMost(most), cpu(entries, manner, Lookaside), cpu(entries, manner, Limit))
    };
    let cpu_go = |what, most, entries| {
        (what, AtMost(most), cpu(entries, Plain, Lookaside), cpu(entries, Plain, GrpcGo))
    };
    let xds = |what, most, entries, to| {
        (what, AtMost(most), cpu(entries, Plain, LookasideXds), cpu(entries, Plain, to))
    };
    let beside_limit = |what, most, scene, metric| {
        let of = |server| Cell { scene, metric, ..cpu(100, Plain, server) };
        (what, AtMost(most), of(Lookaside), of(Limit))
    };
    let put_xds = |server| Cell { scene: "put", metric: "to last ms", ..cpu(100, Plain, server) };
    let growth = |clients| Cell {
        scene: "growth",
        metric: "cpu us/change",
        clients,
        ..cpu(10, Plain, Lookaside)
    };
    let classes = |clients| Cell { scene: "classes", clients, ..cpu(100, Plain, Lookaside) };
    let loss = |services| Cell {
        scene: "loss",
        metric: "to last ms",
        clients: services,
        entries: bench.lost / services,
        ..cpu(10, Plain, Lookaside)
    };
    let probes = |clients| Cell {
        scene: "probes",
        metric: "cpu us/probe",
        clients,
        ..cpu(1, Plain, Lookaside)
    };
    let memory = |entries| push("kB/stream pushed", entries, Plain, Lookaside);
    vec![
        cpu_limit("CPU per push / limit, 100 entries", 2.0, 100, Plain),
        cpu_limit("the same, clients as grpc-go", 1.9, 100, Grpc),
        cpu_limit("CPU per push / limit, 1,000 entries", 3.6, 1_000, Plain),
        cpu_go("CPU per push / grpc-go, 100 entries", 0.4, 100),
        cpu_go("CPU per push / grpc-go, 1,000 entries", 0.2, 1_000),
        beside_limit("put to the last of N / limit, one core", 2.0, "push", "to last ms"),
        beside_limit("put to the last of N / (etcd + limit), two cores", 1.2, "put", "to last ms"),
        beside_limit("storm: all of N served / limit", 3.0, "storm", "all served ms"),
        beside_limit("storm: CPU per stream / limit", 3.0, "storm", "cpu us/stream"),
        // Where the limit takes 1.1 % of a core, this is 1.5 %.
        beside_limit("idle clients: CPU / limit", 1.36, "idle", "% of a core"),
        xds("xDS: CPU per push / limit, 100 entries", 1.3, 100, LimitXds),
        xds("xDS: CPU per push / limit, 1,000 entries", 1.3, 1_000, LimitXds),
        xds("xDS: CPU per push / go-control-plane, 100 entries", 0.15, 100, GoXds),
        xds("xDS: CPU per push / go-control-plane, 1,000 entries", 0.15, 1_000, GoXds),
        (
            "xDS: put to the last of N / limit, one core",
            AtMost(2.0),
            push("to last ms", 100, Plain, LookasideXds),
            push("to last ms", 100, Plain, LimitXds),
        ),
        (
            "xDS: put to the last of N / (etcd + limit), two cores",
            AtMost(1.2),
            put_xds(LookasideXds),
            put_xds(LimitXds),
        ),
        (
            "CPU per push, N / 1,000 clients",
            AtMost(1.2),
            cpu(100, Plain, Lookaside),
            Cell { clients: 1_000, ..cpu(100, Plain, Lookaside) },
        ),
        ("CPU per push, 16 classes / 1 class", AtMost(1.15), classes(16), classes(1)),
        (
            "CPU per change of a service with one client, 10,000 / 10 services",
            AtMost(1.2),
            growth(bench.services),
            growth(10),
        ),
        ("memory per stream, 1,000 / 10 entries", AtMost(1.1), memory(1_000), memory(10)),
        (
            "loss of all of one service / of the same over 200 services, to the last client",
            AtMost(2.0),
            loss(1),
            loss(200),
        ),
        (
            "CPU per probe, 100,000 / 100 held",
            AtMost(1.5),
            probes(bench.held_addresses),
            probes(100),
        ),
        (
            "the same, 100,000 / 500 held: as many probes a second",
            AtMost(1.5),
            probes(bench.held_addresses),
            probes(500),
        ),
    ]
}

/// Returns the goals for the value of one cell.
fn values(bench: &Bench) -> Vec<(&'static str, Must, Cell)> {
    let of = |scene, metric, clients, entries| Cell {
        scene,
        metric,
        manner: Plain,
        clients,
        entries,
        server: Lookaside,
    };
    let many = |scene, metric| of(scene, metric, bench.many, 100);
    // The number of streams depends on how the limit of descriptors divides it.
    let cells = bench.report.rounds.keys();
    let updates = cells.filter(|cell| cell.scene == "updates").map(|cell| cell.clients).next();
    let updates = |metric| of("updates", metric, updates.unwrap_or(0), 10);
    let stalled =
        Cell { manner: Stalled, ..of("stalled", "kB/stream more", bench.many / 5, 1_000) };
    let rate = f64::from(bench.rate);
    vec![
        (
            "put to the only client later than etcd's delivery, p99, ms",
            AtMost(0.5),
            of("put", "later ms p99", 1, 100),
        ),
        ("memory per stream, 100 entries, kB", AtMost(12.0), many("push", "kB/stream pushed")),
        (
            "xDS: memory per stream, 100 entries, kB",
            AtMost(3.0),
            Cell { server: LookasideXds, ..many("push", "kB/stream pushed") },
        ),
        (
            "xDS: a new client's time to its backends / three round trips",
            AtMost(1.1),
            Cell { server: LookasideXds, ..of("first", "to endpoints/3 trips", 1, 100) },
        ),
        ("memory after six storms / after one", AtMost(1.2), many("storm", "memory sixth/first")),
        ("stalled streams, 100 changes of 1,000 entries: kB more each", AtMost(1.0), stalled),
        ("storm: all of N served, ms", AtMost(1_500.0), many("storm", "all served ms")),
        ("storm: dropped SYNs", AtMost(0.0), many("storm", "dropped SYNs")),
        ("burst of 200: most pushes of a stream", AtMost(5.0), many("burst", "most pushes/stream")),
        (
            "burst of 200: end after the last change / one fan-out",
            AtMost(1.2),
            many("burst", "end/one fan-out"),
        ),
        (
            "small service beside a large fan-out / that fan-out",
            AtMost(0.5),
            many("fairness", "small/large"),
        ),
        // The number of changes may lack the last tick of the clock.
        (
            "another service's change beside the loss of a large one, later than etcd, ms",
            AtMost(100.0),
            of("loss", "beside later ms", 1, bench.lost),
        ),
        (
            "the same, while all that is lost is held",
            AtMost(100.0),
            of("loss", "beside held later ms", 1, bench.lost),
        ),
        ("changes a second, with 40,000 streams", AtLeast(0.99 * rate), updates("changes/s")),
        ("the same: behind at the end, ms", AtMost(500.0), updates("behind at the end ms")),
        (
            "start to ready, 10 keys of each service, ms",
            AtMost(500.0),
            of("start", "to ready ms", bench.services, 10),
        ),
        (
            "N clients over three balancers, at first: % off even",
            AtMost(10.0),
            of("spread", "off even at first %", bench.many, 10),
        ),
        (
            "the same, after one was restarted and clients were asked to move",
            AtMost(10.0),
            of("spread", "off even in the end %", bench.many, 10),
        ),
        (
            "the same: clients on their way in one second, %",
            AtMost(2.0),
            of("spread", "clients at once %", bench.many, 10),
        ),
    ]
}
