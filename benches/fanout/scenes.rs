//! The scenes of the benchmark: each function measures one round of one scene.
//!
//! In: a [`Bench`]. Out: values in its report. Within a round the servers take turns,
//! one after the other, with the same clients.

pub(crate) mod change;
pub(crate) mod classes;
pub(crate) mod first;
pub(crate) mod loss;
pub(crate) mod memory;
pub(crate) mod push;
pub(crate) mod scale;
pub(crate) mod spread;

use std::time::{Duration, Instant};

use super::client::{Load, Manner, Plan, Protocols};
use super::registry::Registry;
use super::report::{Cell, Report};
use super::server::{Kind, Server, on_core};
use super::start::WAIT_MAX;

/// Everything that the scenes of a run need.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) report: Report,
    pub(crate) kinds: Vec<Kind>,
    /// The number of many clients, as far as descriptors allow.
    pub(crate) many: usize,
    /// Pushes of a measurement.
    pub(crate) pushes: usize,
    /// Services of a large registry.
    pub(crate) services: usize,
    /// Changes in a second that must be sustained.
    pub(crate) rate: u32,
    /// Streams over all services during these changes.
    pub(crate) streams: usize,
    /// Backends that are lost at once.
    pub(crate) lost: usize,
    /// Held backends that are probed.
    pub(crate) held_addresses: usize,
    /// The duration of scenes that measure for a fixed time.
    pub(crate) time: Duration,
    /// Whether the run only sees whether the scenes work.
    pub(crate) short: bool,
}

pub(crate) type Outcome = Result<(), String>;

/// The service that most clients ask for.
const SERVICE: &str = "bench";
/// The time between two pushes. It is longer than any wait that gathers changes, and
/// long enough to count the work for the clients' answers.
const PAUSE: Duration = Duration::from_millis(120);
/// Connections that are being opened at once, where connecting is not measured.
const AT_ONCE: usize = 100;

impl Bench {
    fn note(&mut self, cell: &Cell, metric: &'static str, value: f64) {
        self.report.add(Cell { metric, ..cell.clone() }, value);
    }

    /// Returns the builds of lookaside that are asked by grpclb, and the limit if wanted.
    fn ours(&self, limit: bool) -> Vec<Kind> {
        let mut kinds = self.ours_by(Protocols::Grpclb);
        kinds.retain(|kind| limit || kind.is_lookaside());
        kinds
    }

    /// Returns the builds of lookaside that are asked by a protocol, and the limit.
    fn ours_by(&self, protocol: Protocols) -> Vec<Kind> {
        let wanted =
            |kind: &Kind| kind.protocol() == protocol && (kind.is_lookaside() || kind.is_limit());
        self.kinds.iter().copied().filter(wanted).collect()
    }

    /// Fills the registry with one service that has this number of backends.
    fn fill(&mut self, entries: usize) {
        self.registry.fill(&[SERVICE.to_owned()], entries);
    }

    fn start(&self, kind: Kind, entries: usize, pinned: bool) -> Server {
        Server::start(kind, entries, &self.registry.url(), pinned)
    }

    /// Publishes a changed list, and returns the time until every client has it. lookaside
    /// gets the change from etcd, and this is a part of its time.
    fn push(
        &mut self,
        kind: Kind,
        server: &mut Server,
        load: &mut Load,
    ) -> Result<Duration, String> {
        load.expect_one();
        let begun = Instant::now();
        let put = kind.is_lookaside().then(|| self.registry.change(SERVICE));
        if put.is_none() {
            server.publish();
        }
        let end = on_core(1, || {
            let end = load.until_caught_up(WAIT_MAX);
            load.run_for(PAUSE);
            end
        })?;
        if let Some(put) = put {
            self.registry.acknowledged(put);
        }
        Ok(end - begun)
    }
}

/// Returns a cell whose metric has no name yet.
fn cell(scene: &'static str, clients: usize, entries: usize, manner: Manner, server: Kind) -> Cell {
    Cell { scene, clients, entries, manner, server, metric: "" }
}

/// Connects clients of the one service, each with a connection of its own.
fn connect(
    server: &Server,
    kind: Kind,
    connections: usize,
    manner: Manner,
    at_once: usize,
) -> Result<Load, String> {
    let names = vec![SERVICE.to_owned()];
    let plan = Plan { connections, streams: 1, manner, protocol: kind.protocol(), names, at_once };
    on_core(1, || Load::connect(server.addr, &plan, WAIT_MAX))
        .map_err(|error| format!("{kind}: {error}"))
}

/// Waits until the server is idle.
fn wait_until_idle(server: &Server) {
    let deadline = Instant::now() + WAIT_MAX;
    let mut before = server.cpu();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = server.cpu();
        if now - before < Duration::from_millis(10) || Instant::now() > deadline {
            return;
        }
        before = now;
    }
}

fn service(index: usize) -> String {
    format!("s{index:05}")
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
