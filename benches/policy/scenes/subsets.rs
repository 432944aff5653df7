//! Scene of subsets of large services: cells, clients in cells, and changes of backends.
//!
//! A client calls the backends of its run by a list, at even gaps. Figures of connections
//! count the backends in the lists.

use std::collections::BTreeMap;

use lookaside::policy::cells::{Backend, Placement, Run, Table, bits};
use lookaside::policy::hash::{hash, pair};

use super::super::chance::{Chance, Wander};
use super::super::goals::{Goal, Must};
use super::super::walker::{Kind, Lists, Pace, Walker};
use super::{Scale, max_over_mean, mean, most, percentile};

const SCENE: &str = "subsets";
/// The backends that a cell should have.
const LEAST: usize = 30;
/// Calls per second of a client, in the mean over all clients.
const RATE: f64 = 100.0;

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let goal = |what: String, measured, must| Goal::new(SCENE, what, measured, must);
    let sizes: &[usize] = if scale.short { &[300] } else { &[300, 1_000] };
    let mut goals = Vec::new();
    for &size in sizes {
        let of = |zipf: f64| -> Vec<Service> {
            scale.seeds().map(|seed| Service::new(size, size, zipf, seed)).collect()
        };
        let name = |what: &str| format!("{size} clients, {size} backends: {what}");
        let (even, zipf) = (of(0.0), of(1.0));
        let random = mean(scale.seeds().map(|seed| random_subsets(size, LEAST, seed)));
        goals.push(goal(name("connections of random subsets"), random, Must::Reported));
        let connections = mean(even.iter().map(Service::connections));
        goals.push(goal(name("connections, max/mean"), connections, Must::AtMost(1.11)));
        let calls = mean(zipf.iter().map(Service::calls));
        goals.push(goal(name("calls, Zipf 1, max/mean"), calls, Must::AtMost(1.1)));
        let length = mean(zipf.iter().map(Service::length));
        goals.push(goal(name("the same: backends for a client"), length, Must::Reported));
        let moving: Vec<Moving> =
            scale.seeds().take(2).map(|seed| moving(size, seed, scale)).collect();
        let of = |value: fn(&Moving) -> f64| mean(moving.iter().map(value));
        goals.push(goal(
            name("calls, demand moves by 50 %"),
            of(|run| run.mean),
            Must::AtMost(1.2),
        ));
        goals.push(goal(name("the same, p99"), of(|run| run.p99), Must::Reported));
        let changes = of(|run| run.changes);
        goals.push(goal(name("lists changed per client and hour"), changes, Must::Reported));
        let lost = mean(zipf.iter().map(|service| service.loses(0.3)));
        goals.push(goal(name("30 % fail: calls, max/mean"), lost, Must::Reported));
        goals.push(goal(
            name("a health change: backends that move"),
            even[0].health(),
            Must::AtMost(0.0),
        ));
    }
    let sizes: &[usize] = if scale.short { &[300] } else { &[300, 1_000] };
    for &size in sizes {
        let runs: Vec<Churn> = scale.seeds().take(3).map(|seed| churn(size, seed, scale)).collect();
        let of = |value: fn(&Churn) -> f64| mean(runs.iter().map(value));
        let name = |what: &str| format!("{size} backends: {what}, of 1/n of the connections");
        let both = of(|run| (run.add + run.removal) / 2.0);
        goals.push(goal(name("one more or less"), both, Must::AtMost(1.2)));
        goals.push(goal(name("one more"), of(|run| run.add), Must::AtMost(1.5)));
        let worst = most(runs.iter().map(|run| run.worst));
        goals.push(goal(name("worst single event"), worst, Must::AtMost(6.0)));
        for (what, same) in [("same names", true), ("new names", false)] {
            let ratio = mean(scale.seeds().take(2).map(|seed| restart(size, same, seed, scale)));
            let what = format!("{size} backends, rolling restart, {what}: times the least");
            goals.push(goal(what, ratio, Must::AtMost(2.0)));
        }
    }
    let sizes: &[usize] = if scale.short { &[300] } else { &SIZES };
    let add = most(sizes.iter().map(|&size| churn(size, 1, scale).add));
    let what = "250 to 5,000 backends: one more, the worst size, of 1/n of the connections";
    goals.push(goal(what.to_owned(), add, Must::AtMost(1.5)));
    goals
}

/// Sizes of services whose cells have at least 31 backends.
const SIZES: [usize; 11] = [250, 300, 350, 400, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000];

/// A service with clients in cells.
struct Service {
    table: Table,
    weights: Vec<u64>,
    placement: Placement,
    /// Name and demand of each client.
    clients: Vec<(u64, f64)>,
    /// Which backends are unhealthy.
    lost: Vec<bool>,
    seed: u64,
}

/// The clients of a service, each with its run, the list of that run, and its calls.
struct Callers {
    lists: BTreeMap<Run, Lists>,
    clients: Vec<Option<(Run, Walker, Pace)>>,
    chance: Chance,
}

impl Callers {
    fn new(service: &Service) -> Self {
        let clients = service.clients.iter().map(|_| None).collect();
        Self { lists: BTreeMap::new(), clients, chance: Chance::new(service.seed + 2_000) }
    }

    /// Makes the calls of some seconds. Returns max/mean over the healthy backends.
    fn call(&mut self, service: &Service, seconds: f64) -> f64 {
        let mut counts = vec![0.0; service.lost.len()];
        for (at, &(client, demand)) in service.clients.iter().enumerate() {
            let Some(run) = service.placement.run(client) else { continue };
            let caller = &mut self.clients[at];
            if caller.as_ref().is_none_or(|caller| caller.0 != run) {
                let lists = self.lists.entry(run).or_insert_with(|| service.lists(run));
                let list = lists.list(at, service.clients.len());
                let kind = if at.is_multiple_of(2) { Kind::Java } else { Kind::Other };
                *caller = Some((run, Walker::new(kind, list, &mut self.chance), Pace::default()));
            }
            if let Some((_, walker, pace)) = caller {
                walker.calls(pace.whole(demand * RATE * seconds), &mut counts);
            }
        }
        let healthy = counts.into_iter().zip(&service.lost).filter(|one| !*one.1);
        max_over_mean(&healthy.map(|one| one.0).collect::<Vec<_>>())
    }
}

fn backend(name: u64) -> Backend {
    Backend { id: hash(&name.to_be_bytes()), weight: 1 }
}

impl Service {
    /// Makes a service, and simulates two hours.
    fn new(clients: usize, backends: usize, zipf: f64, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let all: Vec<Backend> = (0..backends).map(|_| backend(chance.bits())).collect();
        let bits = bits(backends, LEAST, None);
        let table = Table::new(&all, bits, backends);
        let weights = table.sums(|_| 1);
        let demands = chance.zipf(clients, zipf);
        let clients: Vec<(u64, f64)> =
            demands.into_iter().map(|demand| (chance.bits(), demand)).collect();
        let mut placement = Placement::new(bits);
        for &(client, _) in &clients {
            placement.join(client, None, &weights);
        }
        for &(client, demand) in &clients {
            placement.report(client, demand);
        }
        (0..120).for_each(|_| placement.rebalance(&weights));
        Self { table, weights, placement, clients, lost: vec![false; backends], seed }
    }

    /// Returns for each cell the number of clients that use it.
    fn at_cells(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.weights.len()];
        for &(client, _) in &self.clients {
            let Some(run) = self.placement.run(client) else { continue };
            let cells = (0..).zip(&mut sums).filter(|(cell, _)| run.holds(*cell));
            cells.for_each(|(_, sum)| *sum += 1.0);
        }
        sums
    }

    /// Returns max/mean over backends of a value that is the same for all of a cell.
    fn over_backends(&self, of: &[f64]) -> f64 {
        let all = of.iter().zip(&self.weights).filter(|one| *one.1 > 0);
        let (sum, weight) = all.clone().fold((0.0, 0.0), |(sum, weight), (of, &own)| {
            (sum + of * own as f64, weight + own as f64)
        });
        most(all.map(|one| *one.0)) / (sum / weight)
    }

    fn connections(&self) -> f64 {
        self.over_backends(&self.at_cells())
    }

    /// Returns max/mean over backends of the calls of a minute.
    fn calls(&self) -> f64 {
        Callers::new(self).call(self, 60.0)
    }

    /// Returns the lists of the clients that use this run.
    fn lists(&self, run: Run) -> Lists {
        let listed = |(&cell, &lost): (&u32, &bool)| u32::from(run.holds(cell) && !lost);
        let weights: Vec<u32> = self.table.cells().iter().zip(&self.lost).map(listed).collect();
        Lists::new(&weights, 1)
    }

    /// Returns the mean length of a client's list.
    fn length(&self) -> f64 {
        let run = |&(client, _): &(u64, f64)| self.placement.run(client);
        mean(self.clients.iter().filter_map(run).map(|run| listed(run, &self.weights) as f64))
    }

    /// Makes a part of the backends fail. Returns max/mean of the calls of the others.
    fn loses(&self, part: f64) -> f64 {
        let mut chance = Chance::new(self.seed + 1_000);
        let lost: Vec<bool> = self.table.cells().iter().map(|_| chance.unit() < part).collect();
        let weights = self.table.sums(|at| u64::from(!lost[at]));
        let mut placement = self.placement.clone();
        placement.reweigh(&weights);
        let clients = self.clients.clone();
        Self { table: self.table.clone(), weights, placement, clients, lost, seed: 0 }.calls()
    }

    /// Makes one backend fail. Returns how many clients use other cells then.
    fn health(&self) -> f64 {
        let weights = self.table.sums(|at| u64::from(at != 0));
        let mut placement = self.placement.clone();
        placement.reweigh(&weights);
        let moves =
            |&&(client, _): &&(u64, f64)| placement.run(client) != self.placement.run(client);
        self.clients.iter().filter(moves).count() as f64
    }
}

fn listed(run: Run, weights: &[u64]) -> u64 {
    (0..).zip(weights).filter(|(cell, _)| run.holds(*cell)).map(|one| one.1).sum()
}

/// Returns max/mean of connections if each client chooses its backends at random.
fn random_subsets(size: usize, length: usize, seed: u64) -> f64 {
    let mut chance = Chance::new(seed);
    let mut connections = vec![0.0; size];
    for _ in 0..size {
        let mut all: Vec<usize> = (0..size).collect();
        for at in 0..length {
            let other = at + chance.below(size - at);
            all.swap(at, other);
            connections[all[at]] += 1.0;
        }
    }
    max_over_mean(&connections)
}

struct Moving {
    mean: f64,
    p99: f64,
    /// Changed lists per client and hour.
    changes: f64,
}

/// Simulates four hours in which the demand of clients changes at random, and 2 % of them
/// are replaced each minute.
fn moving(size: usize, seed: u64, scale: Scale) -> Moving {
    let minutes = if scale.short { 10 } else { 240 };
    let mut chance = Chance::new(seed + 100);
    let mut service = Service::new(size, size, 1.0, seed);
    let mut wander: Vec<Wander> =
        service.clients.iter().map(|&(_, demand)| Wander::new(demand, 0.5, &mut chance)).collect();
    let mut smooth: Vec<f64> = service.clients.iter().map(|one| one.1).collect();
    let (mut ratios, mut changes) = (Vec::new(), 0);
    let mut callers = Callers::new(&service);
    for minute in 0..minutes {
        for _ in 0..6 {
            for ((wander, smooth), client) in
                wander.iter_mut().zip(&mut smooth).zip(&mut service.clients)
            {
                client.1 = wander.step(10.0, &mut chance);
                *smooth += (1.0 - (-10.0 / 60.0_f64).exp()) * (client.1 - *smooth);
            }
            ratios.push(callers.call(&service, 10.0));
        }
        let Service { placement, weights, clients, .. } = &mut service;
        for ((client, _), smooth) in clients.iter_mut().zip(&smooth) {
            if chance.unit() < 0.02 {
                placement.leave(*client, weights);
                *client = pair(*client, minute);
                placement.join(*client, None, weights);
            }
            placement.report(*client, *smooth);
        }
        let runs = |service: &Service| -> Vec<Option<Run>> {
            service.clients.iter().map(|one| service.placement.run(one.0)).collect()
        };
        let before = runs(&service);
        service.placement.rebalance(&service.weights);
        changes += runs(&service).iter().zip(before).filter(|(now, before)| *now != before).count();
    }
    Moving {
        mean: mean(ratios.iter().copied()),
        p99: percentile(&ratios, 0.99),
        changes: changes as f64 / size as f64 / (minutes as f64 / 60.0),
    }
}

/// How many backends get a cell or change it, on average for an addition, on average for a
/// removal, and at most. One is the least possible for an addition.
struct Churn {
    add: f64,
    removal: f64,
    worst: f64,
}

/// The backends of a service in the order of their registration, with their cells.
struct World {
    names: Vec<u64>,
    table: Table,
    bits: u32,
    /// The number of backends after each event. The last 20 stand for ten minutes.
    sizes: Vec<usize>,
}

impl World {
    fn new(size: usize, chance: &mut Chance) -> Self {
        let names: Vec<u64> = (0..size).map(|_| chance.bits()).collect();
        let bits = bits(size, LEAST, None);
        let mut world = Self { names, table: Table::new(&[], bits, size), bits, sizes: vec![size] };
        world.change(|_| {});
        world
    }

    /// Changes the backends. Returns how many are new in their cell.
    fn change(&mut self, change: impl FnOnce(&mut Vec<u64>)) -> f64 {
        let before: std::collections::HashMap<u64, u32> =
            self.names.iter().copied().zip(self.table.cells().iter().copied()).collect();
        change(&mut self.names);
        self.sizes.push(self.names.len());
        let peak = self.sizes.iter().rev().take(20).max().copied().unwrap_or(0);
        let all: Vec<Backend> = self.names.iter().map(|&name| backend(name)).collect();
        self.table = Table::new(&all, self.bits, peak);
        let cells = self.names.iter().zip(self.table.cells());
        cells.filter(|(name, cell)| before.get(name) != Some(cell)).count() as f64
    }
}

fn churn(size: usize, seed: u64, scale: Scale) -> Churn {
    let events = if scale.short { 20 } else { 400 };
    let mut chance = Chance::new(seed);
    let mut world = World::new(size, &mut chance);
    let (mut adds, mut removals) = (Vec::new(), Vec::new());
    for _ in 0..events {
        let place = chance.below(2 * size);
        // The number of backends stays near `size`.
        if place < world.names.len() {
            removals.push(world.change(|names| _ = names.remove(place)));
        } else {
            let name = chance.bits();
            adds.push(world.change(|names| names.push(name)));
        }
    }
    let worst = most(adds.iter().chain(&removals).copied());
    Churn { add: mean(adds), removal: mean(removals), worst }
}

/// Restarts every backend once. Returns the number of opened connections, as a multiple of
/// the least possible number: one backend's connections for each restart.
fn restart(size: usize, same: bool, seed: u64, scale: Scale) -> f64 {
    let restarts = if scale.short { 10 } else { size };
    let mut chance = Chance::new(seed);
    let mut world = World::new(size, &mut chance);
    let mut moved = 0.0;
    for _ in 0..restarts {
        let mut gone = 0;
        moved += world.change(|names| gone = names.remove(0));
        let name = if same { gone } else { chance.bits() };
        moved += world.change(|names| names.push(name));
    }
    moved / restarts as f64
}
