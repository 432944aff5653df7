//! Runs a plan in the simulated network.
//!
//! In: a plan. Out: the history, and the tasks and clients that are left at the end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use lookaside::marks::{MarkKey, Timestamp, Value};
use lookaside::model::Zone;
use lookaside::seed;
use lookaside::settings::source;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::spawn_local;
use turmoil::{Builder, Sim};

use crate::backend;
use crate::balancer::{self, Handle, ZONE};
use crate::client;
use crate::etcd::{self, Disk, Order};
use crate::history::{History, Record, What};
use crate::plan::{self, BALANCERS, CLIENT_HOSTS, HEAL, Host, MACHINES, Plan, Step, Want};
use crate::rng::Rng;

/// The step of simulated time, in milliseconds.
const TICK: u64 = 20;
/// How often the delays of links change, in milliseconds.
const WEATHER: u64 = 1_000;
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
    let (orders, orders_rx) = mpsc::channel(64);
    let (wants, wants_rx): (Vec<_>, Vec<_>) =
        plan.backends.iter().map(|_| watch::channel(Want::Dead)).unzip();
    let mut world = World {
        sim,
        history: history.clone(),
        disk: Disk::new(),
        orders,
        wants,
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
    world.start_machines(plan, &wants_rx);
    world.start_desks(plan, closing_rx);

    let mut steps = plan.steps.iter().peekable();
    world.until(plan.end, |world, now| {
        while let Some((_, step)) = steps.next_if(|(at, _)| *at <= now) {
            world.step(*step);
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
            let (handle, history) = (handle.clone(), self.history.clone());
            self.sim.host(Host::Balancer(index).to_string(), move || {
                balancer::run(index, rules, crowd, handle.clone(), history.clone())
            });
        }
    }

    fn start_machines(&mut self, plan: &Plan, wants: &[watch::Receiver<Want>]) {
        for machine in 0..MACHINES {
            let all = plan.backends.iter().cloned().zip(wants.iter().cloned());
            let own: Vec<_> = all.filter(|(backend, _)| backend.machine == machine).collect();
            let (ttl, history) = (plan.ttl, self.history.clone());
            self.sim.host(Host::Machine(machine).to_string(), move || {
                backend::machine(own.clone(), ttl, history.clone())
            });
        }
    }

    fn start_desks(&mut self, plan: &Plan, closing: watch::Receiver<bool>) {
        let shared = client::Shared { history: self.history.clone(), closing };
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
        }
    }

    /// Gives every link a new delay. A delay per message would not follow from the seed:
    /// tokio wakes the tasks that wait for one value in an arbitrary order, so the messages
    /// of a host may be sent in another order.
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

    fn step(&mut self, step: Step) {
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
                if !self.sim.is_host_running(Host::Etcd.to_string()) => {}
            Step::Compact => self.order(Order::Compact),
            Step::Sweep(service) => self.order(Order::Sweep(service)),
            Step::Drain(..) | Step::Undrain(_) | Step::Drops(_) => self.say(step),
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
        self.order(match step {
            Step::Drain(backend, until) => {
                let until = until.map(|until| Timestamp(balancer::BEGAN.0 + until));
                let value = Value { set, until, ..Value::default() };
                Order::Put(key(backend), value.to_json())
            }
            // `marks::writer` writes the same.
            Step::Undrain(backend) => {
                let value = Value { set, until: Some(balancer::BEGAN), ..Value::default() };
                Order::Put(key(backend), value.to_json())
            }
            Step::Drops(drops) => {
                let when_empty = if drops { "drop" } else { "wait" };
                let document = format!("[service.'*']\nwhen-empty = '{when_empty}'\n");
                Order::Put(source::key(&zone), document)
            }
            _ => return,
        });
    }

    fn order(&self, order: Order) {
        self.orders.try_send(order).expect("there is room");
    }

    fn note(&self, what: What) {
        self.history.note_at(self.sim.elapsed().as_millis() as u64, what);
    }
}
