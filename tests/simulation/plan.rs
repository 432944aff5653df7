//! The plan of a run.
//!
//! In: a seed. Out: all hosts, clients, faults and actions of the run. Pure. The plan is
//! printed when a run fails.

use std::fmt;
use std::time::Duration;

use lookaside::catalog::Rules;

use crate::policies::{Act, FLEET, Mark, Policies};
use crate::rng::Rng;

/// A host of the simulated network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    Etcd,
    Balancer(usize),
    /// A host that runs backends.
    Machine(usize),
    /// A host that runs clients.
    Clients(usize),
}

pub const SERVICES: usize = 4;
pub const BALANCERS: usize = 2;
pub const MACHINES: usize = 3;
pub const CLIENT_HOSTS: usize = 2;
/// When all faults are over, in milliseconds.
pub const HEAL: u64 = 32_000;
/// How long after [`HEAL`] all hosts have found each other again, in milliseconds:
/// backoffs of five seconds, timeouts of two, a lease's time, and all of that a second
/// time for parts that depend on other parts.
pub const SETTLE: u64 = 18_000;

pub struct Plan {
    pub seed: u64,
    pub rules: Rules,
    /// The time to live of leases, in seconds.
    pub ttl: i64,
    pub backends: Vec<Backend>,
    pub clients: Vec<Client>,
    pub crowd: Option<Crowd>,
    pub policies: Policies,
    pub steps: Vec<(u64, Step)>,
    /// When all clients must have converged, in milliseconds.
    pub end: u64,
}

#[derive(Debug, Clone)]
pub struct Backend {
    pub service: usize,
    pub machine: usize,
    pub id: String,
    /// The backend moves from one port to the other.
    pub ports: [u16; 2],
    pub leased: bool,
    /// Whether our own `register` holds its registration. `register` cannot be stopped
    /// without deleting the key.
    pub keeper: bool,
}

#[derive(Debug, Clone)]
pub struct Client {
    pub service: usize,
    pub client_host: usize,
    /// The balancer that it tries first.
    pub first: usize,
    pub protocol: Protocol,
    pub user_agent: &'static str,
    /// When it drops its connection and connects again, in milliseconds.
    pub hangups: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpclb,
    Xds,
}

/// Listeners of a service, inside each balancer.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub service: usize,
    /// The crowd begins with 1 to 60 fewer listeners.
    pub places: u64,
    pub seed: u64,
}

/// The state that a backend shall be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// It serves at one of its ports. `renews`: whether it holds its registration.
    Up { port: usize, renews: bool },
    /// It deletes its registration, then stops.
    Leaves(By),
    /// It is killed.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    Delete,
    Revoke,
}

/// The data that etcd finds when it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disk {
    Same,
    Empty,
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// No packet gets through until the link is restored. Then all delayed packets arrive.
    Cut(Host, Host),
    Mend(Host, Host),
    /// Sets the delay one way in milliseconds; 0 means as usual.
    Slow(Host, Host, u64),
    Crash(Host),
    Start(Host),
    /// Sets the data for the next start of etcd.
    Disk(Disk),
    /// Makes the copy from which etcd may be restored.
    Backup,
    Compact,
    /// An operator deletes all keys of a service.
    Sweep(usize),
    Want(usize, Want),
    /// An operator drains a backend, for ever or up to that second of the run.
    Drain(usize, Option<u64>),
    Undrain(usize),
    /// An operator sets whether calls of services without backends fail or wait.
    Drops(bool),
    /// An operator applies a document of settings.
    Rules(usize),
    /// An operator marks a service for its clients, for ever or up to that second.
    Mark(usize, Mark, Option<u64>),
    Unmark(usize, Mark),
    Act(usize, Act),
    /// Whether a service gets more calls than it can serve.
    Busy(usize, bool),
    /// Whether a backend of the large service is registered.
    Fleet(usize, bool),
}

const USER_AGENTS: [&str; 3] =
    ["grpc-go/1.85.0", "grpc-java-netty/1.85.0", "grpc-c/58.0.0 (linux; chttp2)"];

impl Plan {
    pub fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let keep = rng.pick(&[0, 5, 15, 600, 600, 600]);
        let share = rng.pick(&[0, 50, 50, 50, 80]);
        let rules = Rules {
            keep_lost: Duration::from_secs(keep),
            guard: share,
            probe_unleased: Duration::ZERO,
        };
        let backends = backends(rng);
        let mut clients = clients(rng);
        let crowd = crowd(seed);
        let mut steps = Vec::new();
        for index in 0..backends.len() {
            if rng.percent(90) {
                let up = Want::Up { port: 0, renews: true };
                steps.push((rng.between(0, 2_000), Step::Want(index, up)));
            }
        }
        for _ in 0..rng.between(2, 8) {
            fault(rng, &mut steps);
        }
        for _ in 0..rng.between(5, 25) {
            life(rng, backends.len(), &mut steps);
        }
        if rng.percent(40) {
            registrars_die(rng, &backends, &mut steps);
        }
        // At the end, most backends are set up again, also after a dead registrar.
        for index in 0..backends.len() {
            let want = match rng.below(10) {
                0 => Want::Dead,
                1 => Want::Leaves(By::Delete),
                2 => continue,
                _ => Want::Up { port: rng.below(2), renews: true },
            };
            steps.push((HEAL, Step::Want(index, want)));
        }
        operator_decisions(seed, backends.len(), &mut steps);
        let policies = Policies::new(seed, &backends, &mut clients, &mut steps);
        if policies.fleet {
            clients.extend(fleet_clients(seed, clients.len()));
        }
        steps.sort_by_key(|(at, _)| *at);
        let keep_ms = if keep > 60 { 0 } else { keep * 1000 };
        let (ttl, end) = (rng.between(5, 9) as i64, HEAL + SETTLE + keep_ms);
        Self { seed, rules, ttl, backends, clients, crowd, policies, steps, end }
    }

    /// Returns whether held backends are released before the end, because they would stay
    /// for longer than a run lasts.
    pub fn releases(&self) -> bool {
        self.rules.keep_lost > Duration::from_secs(60)
    }
}

fn backends(rng: &mut Rng) -> Vec<Backend> {
    let mut backends = Vec::new();
    for service in 0..SERVICES {
        let size = rng.pick(&[1, 2, 4, 6, 8]);
        for _ in 0..size {
            let index = backends.len();
            backends.push(Backend {
                service,
                machine: rng.below(MACHINES),
                id: format!("i{index}"),
                ports: [1_000 + index as u16, 2_000 + index as u16],
                leased: rng.percent(90),
                keeper: rng.percent(20),
            });
        }
    }
    backends
}

fn clients(rng: &mut Rng) -> Vec<Client> {
    (0..10).map(|index| client(rng, index, index % SERVICES)).collect()
}

/// Returns clients of the large service.
fn fleet_clients(seed: u64, from: usize) -> Vec<Client> {
    let rng = &mut Rng::new(seed ^ 0xf1ee);
    let clients = (from..from + 6).map(|index| {
        let client_host = rng.below(CLIENT_HOSTS);
        Client { client_host, ..client(rng, index, FLEET) }
    });
    clients.collect()
}

fn client(rng: &mut Rng, index: usize, service: usize) -> Client {
    Client {
        service,
        client_host: index % CLIENT_HOSTS,
        first: rng.below(BALANCERS),
        protocol: if index % 3 == 2 { Protocol::Xds } else { Protocol::Grpclb },
        user_agent: rng.pick(&USER_AGENTS),
        hangups: (0..rng.below(4)).map(|_| rng.between(3_000, HEAL)).collect(),
    }
}

/// Returns a crowd for most seeds. Its random numbers are its own, so that the rest of
/// the plan is as without it. A slab grows to these sizes, and a slice is 128 listeners.
fn crowd(seed: u64) -> Option<Crowd> {
    let rng = &mut Rng::new(seed ^ 0xc0bd);
    let service = rng.below(SERVICES);
    let places = rng.pick(&[0, 0, 256, 256, 512, 1_024]);
    (places > 0).then(|| Crowd { service, places, seed: rng.next() })
}

/// Adds operators' marks and settings, with random numbers of its own. The last ones
/// come after [`HEAL`], because an etcd that lost its data has lost the earlier ones.
fn operator_decisions(seed: u64, backends: usize, steps: &mut Vec<(u64, Step)>) {
    let rng = &mut Rng::new(seed ^ 0x3a2c);
    let mut drained = Vec::new();
    for _ in 0..rng.pick(&[0, 0, 1, 2, 4]) {
        let (backend, at) = (rng.below(backends), rng.between(2_000, HEAL - 1_000));
        let lasts = rng.pick(&[0, 0, 2, 5, 15]);
        let until = (lasts > 0).then_some(at / 1_000 + lasts);
        steps.push((at, Step::Drain(backend, until)));
        if rng.percent(40) {
            steps.push((rng.between(at + 100, HEAL), Step::Undrain(backend)));
        }
        if !drained.contains(&backend) {
            drained.push(backend);
        }
    }
    for backend in drained {
        let last =
            if rng.percent(50) { Step::Drain(backend, None) } else { Step::Undrain(backend) };
        steps.push((HEAL + 500, last));
    }
    let drops = rng.pick(&[0, 0, 1, 3]);
    for _ in 0..drops {
        steps.push((rng.between(1_000, HEAL), Step::Drops(rng.percent(60))));
    }
    if drops > 0 {
        steps.push((HEAL + 500, Step::Drops(rng.percent(50))));
    }
}

/// Adds a fault that is mended by [`HEAL`].
fn fault(rng: &mut Rng, steps: &mut Vec<(u64, Step)>) {
    let at = rng.between(3_000, HEAL - 3_000);
    let mut until = |longest: u64| (at + rng.between(300, longest)).min(HEAL);
    let (short, long) = (until(8_000), until(20_000));
    let balancer = Host::Balancer(rng.below(BALANCERS));
    let machine = Host::Machine(rng.below(MACHINES));
    let client_host = Host::Clients(rng.below(CLIENT_HOSTS));
    let mut cut = |a, b, until| {
        steps.push((at, Step::Cut(a, b)));
        steps.push((until, Step::Mend(a, b)));
    };
    match rng.below(14) {
        0 | 1 => cut(Host::Etcd, balancer, long),
        2 => cut(balancer, client_host, short),
        3 => cut(balancer, machine, long),
        4 => cut(Host::Etcd, machine, long),
        // etcd hangs: all connections to it stay open, and it answers none.
        5 | 6 => everyone().for_each(|other| cut(Host::Etcd, other, long)),
        7 | 8 => {
            let disk = rng.pick(&[Disk::Same, Disk::Same, Disk::Empty, Disk::Copy]);
            steps.push((at, Step::Crash(Host::Etcd)));
            steps.push((short, Step::Disk(disk)));
            steps.push((short, Step::Start(Host::Etcd)));
            steps.push((rng.between(1_000, at), Step::Backup));
        }
        9 => {
            steps.push((at, Step::Crash(balancer)));
            steps.push((short, Step::Start(balancer)));
        }
        10 => {
            steps.push((at, Step::Crash(machine)));
            steps.push((long, Step::Start(machine)));
        }
        11 => {
            let (a, b) =
                rng.pick(&[(Host::Etcd, balancer), (balancer, client_host), (Host::Etcd, machine)]);
            steps.push((at, Step::Slow(a, b, rng.between(100, 1_500))));
            steps.push((long, Step::Slow(a, b, 0)));
        }
        12 => steps.push((at, Step::Sweep(rng.below(SERVICES)))),
        _ => steps.push((at, Step::Compact)),
    }
}

fn everyone() -> impl Iterator<Item = Host> {
    (0..BALANCERS).map(Host::Balancer).chain((0..MACHINES).map(Host::Machine))
}

/// Adds a change of one backend's state.
fn life(rng: &mut Rng, backends: usize, steps: &mut Vec<(u64, Step)>) {
    let index = rng.below(backends);
    let at = rng.between(3_000, HEAL - 1_000);
    let want = match rng.below(8) {
        0 | 1 => Want::Leaves(By::Delete),
        2 => Want::Leaves(By::Revoke),
        3 => Want::Dead,
        4 => Want::Up { port: 0, renews: false },
        _ => Want::Up { port: rng.below(2), renews: true },
    };
    steps.push((at, Step::Want(index, want)));
}

/// Adds a fault of one service: its backends live on without renewing their leases, or
/// all die.
fn registrars_die(rng: &mut Rng, backends: &[Backend], steps: &mut Vec<(u64, Step)>) {
    let service = rng.below(SERVICES);
    let (at, die) = (rng.between(5_000, HEAL - 15_000), rng.percent(30));
    for (index, backend) in backends.iter().enumerate() {
        if backend.service == service {
            let want = match die {
                true => Want::Dead,
                false => Want::Up { port: 0, renews: false },
            };
            steps.push((at + rng.between(0, 2_000), Step::Want(index, want)));
        }
    }
}

impl Host {
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Etcd).chain(everyone()).chain((0..CLIENT_HOSTS).map(Self::Clients))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd => f.write_str("etcd"),
            Self::Balancer(index) => write!(f, "balancer{index}"),
            Self::Machine(index) => write!(f, "machine{index}"),
            Self::Clients(index) => write!(f, "desk{index}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, rules, ttl, end, .. } = self;
        writeln!(
            f,
            "seed {seed}: keep {:?}, guard {} %, leases of {ttl} s, until {end} ms",
            rules.keep_lost, rules.guard
        )?;
        for (index, Backend { service, machine, id, leased, keeper, .. }) in
            self.backends.iter().enumerate()
        {
            let lease = match (*keeper, *leased) {
                (true, _) => ", by register",
                (false, true) => "",
                (false, false) => ", without a lease",
            };
            writeln!(f, "  backend {index} ({id}) of s{service} on machine{machine}{lease}")?;
        }
        for (index, client) in self.clients.iter().enumerate() {
            writeln!(f, "  client {index}: {client:?}")?;
        }
        if let Some(Crowd { service, places, .. }) = self.crowd {
            writeln!(f, "  a crowd of about {places} at each balancer for s{service}")?;
        }
        let Policies { documents, fleet, layout, saves } = &self.policies;
        writeln!(f, "  a large service: {fleet}, {layout:?}, balancers save their state: {saves}")?;
        for (index, document) in documents.iter().enumerate() {
            for (service, policy) in document.iter().enumerate() {
                writeln!(f, "  document {index}, s{service}: {policy:?}")?;
            }
        }
        for (at, step) in &self.steps {
            writeln!(f, "  {at:>6} {step:?}")?;
        }
        Ok(())
    }
}
