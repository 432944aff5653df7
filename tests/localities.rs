//! Measures what localities cost real clients of xDS, in every language that has it.
//!
//! A locality is a child policy in the client. A server of this program's own sends the same
//! number of backends in more and fewer localities; the last column is lookaside itself, with
//! unequal weights. One channel connects to all backends, which are one process at many
//! addresses. `cargo bench --bench localities` prints the table of docs/xds.md. Arguments
//! choose languages (`go-xds`), and numbers of backends and of localities (`1000x100`; `5000x0`
//! is lookaside).
#![allow(dead_code, missing_docs, unreachable_pub)]

#[path = "localities/server.rs"]
mod server;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use server::{Localities, Server, host};
use support::backend::Backend;
use support::client::{Calls, Channel, Driver, Options};
use support::etcd::Etcd;
use support::language::{Language, XDS_CPP, XDS_GO, XDS_JAVA, XDS_NODE, XDS_PYTHON};
use support::lookaside::Balancer;
use support::world::{SERVICE, World, metric};

/// Numbers of backends and of localities; 0 is lookaside's own.
const SHAPES: [(usize, usize); 8] = [
    (100, 1),
    (100, 100),
    (1_000, 1),
    (1_000, 100),
    (1_000, 1_000),
    (5_000, 1),
    (BACKENDS, 0),
    (5_000, 5_000),
];
/// The number of backends that lookaside has.
const BACKENDS: usize = 5_000;
/// Their weights are spread from 1 up to this.
const WEIGHT_MAX: u64 = 1_000;
/// The number of changes of one weight that are measured.
const CHANGES: u32 = 3;
/// A client that takes longer for one step is not measured further.
const PATIENCE: Duration = Duration::from_secs(150);
/// A name of one backend, to which each client process connects first.
const WARM: &str = "warm";

/// What sends the backends.
enum Source {
    Own(Server, Localities),
    Lookaside(World, Balancer, u16),
}

/// What was measured of one client, as far as it came.
#[derive(Default)]
struct Costs {
    first_call: Option<Duration>,
    first_cpu: Option<Duration>,
    /// Bytes more than with one backend.
    memory: Option<u64>,
    change_cpu: Option<Duration>,
    /// From a change of weights until calls follow it.
    change: Option<Duration>,
}

fn main() {
    support::raise_open_files();
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let shapes: Vec<_> = arguments.iter().filter_map(|argument| shape(argument)).collect();
    let names: Vec<_> = arguments.iter().filter(|argument| shape(argument).is_none()).collect();
    let shapes = if shapes.is_empty() { SHAPES.to_vec() } else { shapes };
    let etcd = Arc::new(Etcd::start());
    let all_backends = Backend::everywhere();
    let port = all_backends.addr().port();
    println!(
        "| client | backends | localities | first call | its CPU | memory | CPU of a change | until calls follow |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for language in [XDS_GO, XDS_JAVA, XDS_PYTHON, XDS_NODE, XDS_CPP] {
        if !(names.is_empty() || names.iter().any(|name| *name == language.name)) {
            continue;
        }
        if let Some(obstacle) = language.obstacle() {
            println!("| {} | not here: {obstacle} |", language.name);
            continue;
        }
        for &(backends, localities) in &shapes {
            let source = if localities > 0 {
                Source::own(Localities { backends, localities, port, first_weight: 1 })
            } else {
                Source::lookaside(&etcd, &language, port)
            };
            let (version, costs) = source.measure(&language);
            let localities = match localities {
                0 => "as lookaside sends them".to_owned(),
                count => count.to_string(),
            };
            println!("| {version} | {backends} | {localities} | {} |", costs.cells().join(" | "));
        }
    }
}

/// Returns the numbers of backends and of localities in an argument.
fn shape(argument: &str) -> Option<(usize, usize)> {
    let (backends, localities) = argument.split_once('x')?;
    Some((backends.parse().ok()?, localities.parse().ok()?))
}

impl Source {
    fn own(localities: Localities) -> Self {
        Self::Own(Server::start(localities), localities)
    }

    fn lookaside(etcd: &Arc<Etcd>, language: &Language, port: u16) -> Self {
        let world = World::new(etcd.clone(), language);
        let mut all: Vec<_> = (0..BACKENDS).map(|at| registration(&world, at, port, 1)).collect();
        all.push((format!("{}{WARM}/0", world.prefix()), format!("{}:{port}", host(0))));
        world.put_all(&all);
        let balancer = world.balancer(&[]);
        Self::Lookaside(world, balancer, port)
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Own(server, _) => serde_json::json!({
                "xds_servers": [{
                    "server_uri": server.addr.to_string(),
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3"],
                }],
                // Node takes no node without a locality.
                "node": {"id": "bench", "cluster": "bench", "locality": {}},
            })
            .to_string(),
            Self::Lookaside(_, balancer, _) => {
                let path = format!("/api/v1/xds/bootstrap?server={}", balancer.grpclb());
                balancer.get(&path).1
            }
        }
    }

    fn measure(&self, language: &Language) -> (String, Costs) {
        let driver = Driver::start_xds(language, &self.bootstrap());
        let version = driver.version();
        // The process has loaded what it needs, and has its stream.
        driver.open(&Options::xds(WARM)).call(&Calls::waiting(1));
        let (cpu, memory) = (settled(&driver), driver.memory());
        let mut costs = Costs::default();
        let begun = Instant::now();
        let channel = driver.open(&Options::xds(SERVICE));
        if channel.call(&Calls::waiting(1).timeout(PATIENCE)).succeeded() < 1 {
            return (version, costs);
        }
        costs.first_call = Some(begun.elapsed());
        let first = settled(&driver);
        costs.first_cpu = Some(first - cpu);
        costs.memory = Some(driver.memory().saturating_sub(memory));
        for change in 1..=CHANGES {
            if !self.change(change + 1) {
                return (version, costs);
            }
            settled(&driver);
        }
        costs.change_cpu = Some((settled(&driver) - first) / CHANGES);
        costs.change = self.until_followed(&channel);
        (version, costs)
    }

    /// Gives a backend, or the first locality, another weight, and waits until the client has
    /// accepted it. Returns false if it does not.
    fn change(&self, weight: u32) -> bool {
        match self {
            Self::Own(server, localities) => {
                let number = server.change(Localities { first_weight: weight, ..*localities });
                within(|| (server.acknowledged() >= number).then_some(())).is_some()
            }
            Self::Lookaside(world, balancer, port) => {
                let accepted = r#"lookaside_xds_responses_accepted_total{type="endpoints"}"#;
                let before = metric(balancer, accepted);
                world.put_all(&[registration(world, BACKENDS / 2, *port, weight.into())]);
                within(|| (metric(balancer, accepted) > before).then_some(())).is_some()
            }
        }
    }

    /// Gives one locality nearly all calls, and returns the time until it has them.
    fn until_followed(&self, channel: &Channel<'_>) -> Option<Duration> {
        let Self::Own(server, localities) = self else { return None };
        if localities.localities < localities.backends {
            return None;
        }
        let first_weight = 1_000 * u32::try_from(localities.backends).expect("few");
        let begun = Instant::now();
        server.change(Localities { first_weight, ..*localities });
        // By chance, two calls in a row hardly go there before.
        within(|| (channel.call(&Calls::waiting(2)).from(&host(0)) == 2).then(|| begun.elapsed()))
    }
}

impl Costs {
    fn cells(&self) -> [String; 5] {
        let time = |time: Option<Duration>| {
            time.map_or_else(|| "–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        let memory = self.memory.map(|bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        [
            time(self.first_call),
            time(self.first_cpu),
            memory.unwrap_or_else(|| "–".to_owned()),
            time(self.change_cpu),
            time(self.change),
        ]
    }
}

/// Returns the registration of a backend whose weight is from 1 to [`WEIGHT_MAX`], times a
/// factor.
fn registration(world: &World, at: usize, port: u16, factor: u64) -> (String, String) {
    // As if by chance: each remainder comes equally often.
    let weight = 1 + at as u64 * 7_919 % WEIGHT_MAX;
    let (host, weight) = (host(at), weight * factor);
    let value = format!(r#"{{"Op":0,"Addr":"{host}:{port}","Metadata":{{"weight":{weight}}}}}"#);
    (world.key(&format!("{at:05}")), value)
}

/// Asks until there is an answer, or the patience ends.
fn within<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the processor time that a client has used, once it is idle.
fn settled(driver: &Driver) -> Duration {
    let deadline = Instant::now() + PATIENCE;
    let mut last = driver.cpu();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = driver.cpu();
        // Timers of an idle client go on ticking.
        if now - last <= Duration::from_millis(20) || Instant::now() > deadline {
            return now;
        }
        last = now;
    }
}
