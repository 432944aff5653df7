//! Runs a plan in the simulated network.
//!
//! In: a plan. Out: the history, and the tasks and clients that are left at the end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use lookaside::marks::{MarkKey, Timestamp, Value};
use lookaside::model::Zone;
use lookaside::seed;
use lookaside::settings::source;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::spawn_local;
use turmoil::{Builder, Sim};

use crate::agreement::{self, Digest};
use crate::answers::Mood;
use crate::backend;
use crate::balancer::{self, BalancerPlan, Handle, ZONE};
use crate::client;
use crate::etcd::{self, Disk, Order};
use crate::history::{History, Record, What};
use crate::plan::{
    self, BALANCERS, CLIENT_HOSTS, HEAL, Host, MACHINES, Plan, SERVICES, Step, Want,
};
use crate::policies::{self, Act, Document, Mark};
use crate::rng::Rng;
use crate::system;

/// The step of simulated time, in milliseconds.
const TICK: u64 = 20;
/// How often the delays of links change, in milliseconds.
const WEATHER: u64 = 1_000;
/// How often the decisions of balancers are compared, in milliseconds.
const LOOK: u64 = 500;
/// The ports of the large service's backends, where nothing listens.
pub const FLEET_PORTS: u16 = 3_000;
/// How long clients have to disconnect at the end, in milliseconds.
const GOODBYE: u64 = 2_000;

/// The result of a run.
pub struct Outcome {
    pub records: Vec<Record>,
    /// For each balancer, the tasks and clients that are left after all clients hung up.
    pub left: Vec<(usize, usize)>,
    pub addresses: BTreeMap<Host, IpAddr>,
}

struct World<'a> {
    sim: Sim<'a>,
    history: History,
    disk: Disk,
    orders: mpsc::Sender<Order>,
    wants: Vec<watch::Sender<Want>>,
    acts: Vec<watch::Sender<Act>>,
    busy: Vec<watch::Sender<bool>>,
    /// The settings that operators applied last: the document, and whether calls of empty
    /// services fail.
    settings: (Document, bool),
    /// The versions of services by balancer and service that are recorded.
    versions: BTreeMap<(usize, usize), u64>,
    balancers: Vec<Handle>,
    /// The service of each backend.
    services: Vec<usize>,
    /// How many faults cut each link, and take down each host, at present.
    cuts: BTreeMap<(Host, Host), usize>,
    downs: BTreeMap<Host, usize>,
    /// The delay of each slow link, in milliseconds.
    slow: BTreeMap<(Host, Host), u64>,
    weather: Rng,
}

/// Runs a plan to its end.
///
/// # Panics
/// Panics if the product or the simulation panics.
pub fn run(plan: &Plan) -> Outcome {
    seed::fix(plan.seed);
    let sim = Builder::new()
        .rng_seed(plan.seed)
        .tick_duration(Duration::from_millis(TICK))
        .simulation_duration(Duration::from_secs(3_600))
        .tcp_capacity(4_096)
        .build();
    let history = History::default();
    let (orders, orders_rx) = mpsc::channel(256);
    let all = || plan.backends.iter();
    let (wants, wants_rx): (Vec<_>, Vec<_>) = all().map(|_| watch::channel(Want::Dead)).unzip();
    let (acts, acts_rx): (Vec<_>, Vec<_>) = all().map(|_| watch::channel(Act::Serves)).unzip();
    let (busy, busy_rx): (Vec<_>, Vec<_>) = (0..=SERVICES).map(|_| watch::channel(false)).unzip();
    let mut world = World {
        sim,
        history: history.clone(),
        disk: Disk::new(),
        orders,
        wants,
        acts,
        busy,
        settings: (Document::default(), false),
        versions: BTreeMap::new(),
        balancers: vec![Handle::default(); BALANCERS],
        services: plan.backends.iter().map(|backend| backend.service).collect(),
        cuts: BTreeMap::new(),
        downs: BTreeMap::new(),
        slow: BTreeMap::new(),
        weather: Rng::new(plan.seed ^ 0x5eed),
    };
    world.balancers = (0..BALANCERS).map(|_| Handle::default()).collect();
    let (closing, closing_rx) = watch::channel(false);
    world.start_etcd(orders_rx);
    world.start_balancers(plan);
    let backends = plan.backends.iter().cloned().zip(wants_rx).zip(acts_rx);
    let backends = backends.map(|((plan, want), act)| {
        let mood = Mood { act, busy: busy_rx[plan.service].clone() };
        backend::Orders { plan, want, mood }
    });
    world.start_machines(plan, &backends.collect::<Vec<_>>());
    world.start_desks(plan, busy_rx, closing_rx);

    let mut steps = plan.steps.iter().peekable();
    world.until(plan.end, |world, now| {
        while let Some((_, step)) = steps.next_if(|(at, _)| *at <= now) {
            world.step(plan, *step);
        }
        if now.is_multiple_of(LOOK) {
            world.note_decisions();
        }
        if now == HEAL + plan::SETTLE - 3_000 && plan.releases() {
            world.balancers.iter().for_each(Handle::release);
            world.history.note_at(now, What::Released);
        }
    });
    closing.send_replace(true);
    world.until(plan.end + GOODBYE, |_, _| {});
    let left = world.balancers.iter().map(Handle::open).collect();
    let addresses = Host::all().map(|host| (host, world.sim.lookup(host.to_string()))).collect();
    Outcome { records: history.all(), left, addresses }
}

impl World<'_> {
    fn start_etcd(&mut self, orders: mpsc::Receiver<Order>) {
        let orders = Rc::new(Mutex::new(orders));
        let (disk, history) = (self.disk.clone(), self.history.clone());
        self.sim.host(Host::Etcd.to_string(), move || {
            etcd::run(disk.clone(), orders.clone(), history.clone())
        });
    }

    fn start_balancers(&mut self, plan: &Plan) {
        for (index, handle) in self.balancers.iter().enumerate() {
            let (rules, crowd) = (plan.rules, plan.crowd);
            let plan = BalancerPlan { rules, crowd, saves: plan.policies.saves };
            let (handle, history) = (handle.clone(), self.history.clone());
            self.sim.host(Host::Balancer(index).to_string(), move || {
                balancer::run(index, plan, handle.clone(), history.clone())
            });
        }
    }

    fn start_machines(&mut self, plan: &Plan, all: &[backend::Orders]) {
        for machine in 0..MACHINES {
            let own = all.iter().filter(|one| one.plan.machine == machine);
            let own: Vec<_> = own.cloned().collect();
            let (ttl, history) = (plan.ttl, self.history.clone());
            self.sim.host(Host::Machine(machine).to_string(), move || {
                backend::machine(own.clone(), ttl, history.clone())
            });
        }
    }

    fn start_desks(
        &mut self,
        plan: &Plan,
        busy: Vec<watch::Receiver<bool>>,
        closing: watch::Receiver<bool>,
    ) {
        let shared = client::Shared { history: self.history.clone(), busy, closing };
        for client_host in 0..CLIENT_HOSTS {
            let all = plan.clients.iter().cloned().enumerate();
            let own: Vec<_> = all.filter(|(_, client)| client.client_host == client_host).collect();
            let (seed, shared) = (plan.seed, shared.clone());
            self.sim.host(Host::Clients(client_host).to_string(), move || {
                let (own, shared) = (own.clone(), shared.clone());
                async move {
                    for (index, plan) in own {
                        spawn_local(client::run(index, plan, seed, shared.clone()));
                    }
                    std::future::pending().await
                }
            });
        }
    }

    /// Lets time pass until `end`. Calls `before` before each tick.
    fn until(&mut self, end: u64, mut before: impl FnMut(&mut Self, u64)) {
        loop {
            let now = self.sim.elapsed().as_millis() as u64;
            if now >= end {
                return;
            }
            if now.is_multiple_of(WEATHER) {
                self.blow();
            }
            before(self, now);
            self.sim.step().expect("no host ends by itself");
            system::set_clocks(self.sim.elapsed());
        }
    }

    /// Gives every link a new delay.
    fn blow(&mut self) {
        let hosts: Vec<_> = Host::all().collect();
        for (index, a) in hosts.iter().enumerate() {
            for b in &hosts[index + 1..] {
                let usual = self.weather.pick(&[1, 2, 5, 10, 20, 50]);
                let delay = self.slow.get(&(*a, *b)).copied().unwrap_or(usual);
                self.delay(*a, *b, delay);
            }
        }
    }

    fn delay(&self, a: Host, b: Host, delay: u64) {
        self.sim.set_link_latency(a.to_string(), b.to_string(), Duration::from_millis(delay));
    }

    fn step(&mut self, plan: &Plan, step: Step) {
        match step {
            Step::Cut(a, b) => {
                let cuts = self.cuts.entry((a, b)).or_default();
                *cuts += 1;
                if *cuts == 1 {
                    self.sim.hold(a.to_string(), b.to_string());
                }
            }
            Step::Mend(a, b) => {
                let cuts = self.cuts.entry((a, b)).or_default();
                *cuts -= 1;
                if *cuts == 0 {
                    self.sim.release(a.to_string(), b.to_string());
                }
            }
            Step::Slow(a, b, 0) => drop(self.slow.remove(&(a, b))),
            Step::Slow(a, b, delay) => {
                self.slow.insert((a, b), delay);
                self.delay(a, b, delay);
            }
            Step::Crash(host) => {
                let downs = self.downs.entry(host).or_default();
                *downs += 1;
                if *downs == 1 {
                    self.sim.crash(host.to_string());
                    self.note(What::Crashed(host));
                }
            }
            Step::Start(host) => {
                let downs = self.downs.entry(host).or_default();
                *downs -= 1;
                if *downs == 0 {
                    self.note(What::Started(host));
                    self.sim.bounce(host.to_string());
                }
            }
            Step::Disk(plan::Disk::Same) => {}
            Step::Disk(plan::Disk::Empty) => self.disk.wipe(),
            Step::Disk(plan::Disk::Copy) => self.disk.restore(),
            Step::Backup => self.disk.back_up(),
            // These need etcd, and it is down.
            Step::Compact
            | Step::Sweep(_)
            | Step::Drain(..)
            | Step::Undrain(_)
            | Step::Drops(_)
            | Step::Rules(_)
            | Step::Mark(..)
            | Step::Unmark(..)
            | Step::Fleet(..)
                if !self.sim.is_host_running(Host::Etcd.to_string()) => {}
            Step::Compact => self.order(Order::Compact),
            Step::Sweep(service) => self.order(Order::Sweep(service)),
            Step::Rules(number) => {
                self.settings.0 = plan.policies.documents[number];
                self.say(step);
            }
            Step::Drops(drops) => {
                self.settings.1 = drops;
                self.say(step);
            }
            Step::Drain(..) | Step::Undrain(_) | Step::Mark(..) | Step::Unmark(..) => {
                self.say(step);
            }
            Step::Fleet(one, up) => {
                let ip = self.sim.lookup(Host::Machine(one % MACHINES).to_string());
                let addr = SocketAddr::new(ip, FLEET_PORTS + one as u16);
                let zone = plan.policies.layout.zone(one);
                self.order(Order::Fleet { id: format!("f{one}"), addr, zone, up });
            }
            Step::Busy(service, busy) => {
                self.busy[service].send_replace(busy);
                self.note(What::Busy { service, busy });
            }
            Step::Act(backend, act) => {
                self.acts[backend].send_replace(act);
                self.note(What::Acts { backend, act });
            }
            Step::Want(backend, want) => drop(self.wants[backend].send_replace(want)),
        }
    }

    /// Writes an operator's mark or settings into etcd.
    fn say(&self, step: Step) {
        let zone = Zone::new(ZONE).expect("a zone");
        let key = |backend: usize| {
            let key = format!("drain/s{}/i{backend}", self.services[backend]);
            MarkKey::parse(&key).expect("a mark").in_etcd(&zone)
        };
        self.note(What::Decided(step));
        let set = Some(balancer::BEGAN.after(self.sim.elapsed()));
        let until_second = |until: Option<u64>| until.map(|at| Timestamp(balancer::BEGAN.0 + at));
        self.order(match step {
            Step::Drain(backend, until) => {
                let until = until_second(until);
                let value = Value { set, until, ..Value::default() };
                Order::Put(key(backend), value.to_json())
            }
            // `marks::writer` writes the same.
            Step::Undrain(backend) => {
                let value = Value { set, until: Some(balancer::BEGAN), ..Value::default() };
                Order::Put(key(backend), value.to_json())
            }
            Step::Mark(service, mark, until) => {
                let percent = match mark {
                    Mark::Shed(percent) => Some(percent),
                    Mark::Fallback => None,
                };
                let value = Value { set, until: until_second(until), percent, ..Value::default() };
                Order::Put(mark_key(service, mark).in_etcd(&zone), value.to_json())
            }
            Step::Unmark(service, mark) => {
                let value = Value { set, until: Some(balancer::BEGAN), ..Value::default() };
                Order::Put(mark_key(service, mark).in_etcd(&zone), value.to_json())
            }
            Step::Drops(_) | Step::Rules(_) => {
                let (document, drops) = &self.settings;
                let client_host = |index| self.sim.lookup(Host::Clients(index).to_string());
                let clients = std::array::from_fn(client_host);
                Order::Put(source::key(&zone), policies::toml(document, *drops, clients))
            }
            _ => return,
        });
    }

    /// Records what each balancer decides, where that may have changed.
    fn note_decisions(&mut self) {
        for balancer in 0..BALANCERS {
            if !self.sim.is_host_running(Host::Balancer(balancer).to_string()) {
                self.versions.retain(|(one, _), _| *one != balancer);
                continue;
            }
            for (service, now) in self.balancers[balancer].services().into_iter().enumerate() {
                let version = now.as_ref().map_or(0, |now| now.version);
                if self.versions.insert((balancer, service), version) != Some(version) {
                    let digest = now.map_or_else(Digest::default, |now| agreement::digest(&now));
                    self.note(What::Decides { balancer, service, digest });
                }
            }
        }
    }

    fn order(&self, order: Order) {
        self.orders.try_send(order).expect("there is room");
    }

    fn note(&self, what: What) {
        self.history.note_at(self.sim.elapsed().as_millis() as u64, what);
    }
}

fn mark_key(service: usize, mark: Mark) -> MarkKey {
    let kind = match mark {
        Mark::Shed(_) => "shed",
        Mark::Fallback => "fallback",
    };
    MarkKey::parse(&format!("{kind}/s{service}")).expect("a mark")
}
