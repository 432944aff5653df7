//! Scene of three zones, with 50, 30 and 20 % of the clients, and 30, 40 and 30 backends.

use lookaside::facts::factor::apply;
use lookaside::facts::zones::{Split, ZoneLoad, renew};

use super::super::chance::{Chance, Wander};
use super::super::goals::{Goal, Must};
use super::super::walker::{Kind, Lists, Pace, Walker};
use super::{Scale, max_over_mean, mean, most, percentile};

const SCENE: &str = "zones";
const BACKENDS: [usize; 3] = [30, 40, 30];
const CLIENTS: [usize; 3] = [150, 90, 60];

/// This limit and that of the changes exclude each other: see docs.rs.
const NOT_MET_P99: Must = Must::NotMet { limit: 1.07, at_most: 1.08 };

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let goal = |what: &str, measured, must| Goal::new(SCENE, what, measured, must);
    let still = |weights: [usize; 3], zipf| -> [f64; 2] {
        let runs: Vec<[f64; 2]> = scale.seeds().map(|seed| still(weights, zipf, seed)).collect();
        [0, 1].map(|at| mean(runs.iter().map(|run| run[at])))
    };
    let [cross, over] = still(BACKENDS, 0.0);
    let [zipf_cross, zipf_over] = still(BACKENDS, 0.8);
    let losses = [[0, 40, 30], [30, 0, 30], [30, 40, 3], [15, 40, 30], [0, 0, 30]];
    let lost = most(losses.map(|weights| still(weights, 0.0)[1]));
    let moving = |sigma, replicas| -> Vec<Moving> {
        scale.seeds().map(|seed| moving(sigma, replicas, seed, scale)).collect()
    };
    let (slow, fast, three) = (moving(0.2, 1), moving(0.5, 1), moving(0.2, 3));
    let many: Vec<Moving> = scale.seeds().map(|seed| moving_many(seed, scale)).collect();
    let of = |runs: &[Moving], value: fn(&Moving) -> f64| mean(runs.iter().map(value));
    vec![
        goal("even lists: part of the calls that crosses", 2.0 / 3.0, Must::Reported),
        goal("part of the calls that crosses", cross, Must::AtMost(0.22)),
        goal("max/mean of zones", over, Must::AtMost(1.02)),
        goal("clients by Zipf 0.8: crosses", zipf_cross, Must::Reported),
        goal("clients by Zipf 0.8: max/mean", zipf_over, Must::AtMost(1.02)),
        goal("zones lost in five ways, by the next split: max/mean", lost, Must::AtMost(1.02)),
        goal("demand moves by 20 %: max/mean, mean", of(&slow, Moving::mean), Must::AtMost(1.03)),
        goal("the same, p99", of(&slow, Moving::p99), NOT_MET_P99),
        goal("the same: changes an hour", of(&slow, |run| run.changes), Must::AtMost(3.0)),
        goal("the same: crosses", of(&slow, Moving::cross), Must::Reported),
        goal(
            "three replicas that do not talk: max/mean, mean",
            of(&three, Moving::mean),
            Must::AtMost(1.03),
        ),
        goal("the same, p99", of(&three, Moving::p99), Must::AtMost(1.07)),
        goal(
            "the same: changes an hour, of each",
            of(&three, |run| run.changes),
            Must::AtMost(3.0),
        ),
        goal("the same: crosses", of(&three, Moving::cross), Must::Reported),
        goal("demand moves by 50 %: max/mean, mean", of(&fast, Moving::mean), Must::Reported),
        goal("the same: changes an hour", of(&fast, |run| run.changes), Must::Reported),
        goal("16 equal zones, 20 %: max/mean, mean", of(&many, Moving::mean), Must::AtMost(1.05)),
        goal("the same: changes an hour", of(&many, |run| run.changes), Must::Reported),
        goal("the same: crosses", of(&many, Moving::cross), Must::Reported),
        goal("the same: zones in a list", of(&many, |run| run.zones), Must::AtMost(4.0)),
    ]
}

fn loads(backends: &[usize], demands: &[f64]) -> Vec<ZoneLoad> {
    let load = |(&backends, &demand): (&usize, &f64)| ZoneLoad {
        backends,
        weight: backends as u64,
        demand: (1_000.0 * demand) as u64,
    };
    backends.iter().zip(demands).map(load).collect()
}

/// Simulates clients with the lists of their zones. Returns the part of the calls that
/// crosses zones, and max/mean over zones of the calls per backend.
fn still(backends: [usize; 3], zipf: f64, seed: u64) -> [f64; 2] {
    let mut chance = Chance::new(seed);
    let zones: Vec<usize> = (0..3).flat_map(|zone| vec![zone; backends[zone]]).collect();
    let homes: Vec<usize> = (0..3).flat_map(|zone| vec![zone; CLIENTS[zone]]).collect();
    let demands = chance.zipf(homes.len(), zipf);
    let demand = |zone: usize| {
        homes.iter().zip(&demands).filter(|one| *one.0 == zone).map(|one| one.1).sum::<f64>()
    };
    let split = Split::best(&loads(&backends, &[0, 1, 2].map(demand)), 0);
    let (mut calls, mut crossed) = ([0.0; 3], 0.0);
    for home in 0..3 {
        let own: Vec<f64> =
            homes.iter().zip(&demands).filter(|one| *one.0 == home).map(|one| *one.1).collect();
        for number in 0..10 {
            let lists = zone_lists(&backends, &split, number).swap_remove(home);
            for (stream, demand) in own.iter().enumerate() {
                let list = lists.list(stream, own.len());
                let mut walker = Walker::new(Kind::Other, list, &mut chance);
                for _ in 0..chance.poisson(100.0 * demand) {
                    let zone = zones[walker.call().expect("nothing is dropped")];
                    calls[zone] += 1.0;
                    crossed += f64::from(u8::from(zone != home));
                }
            }
        }
    }
    let loads: Vec<f64> = (0..3)
        .filter(|&zone| backends[zone] > 0)
        .map(|zone| calls[zone] / backends[zone] as f64)
        .collect();
    // The mean over backends, not over zones.
    let due = calls.iter().sum::<f64>() / zones.len() as f64;
    [crossed / calls.iter().sum::<f64>(), max_over_mean(&loads) * mean(loads.iter().copied()) / due]
}

#[derive(Default)]
struct Moving {
    /// Max/mean over zones of the calls per backend, and the part of the calls that crosses, in
    /// each step.
    ratios: Vec<f64>,
    crosses: Vec<f64>,
    /// The part that must cross, if every backend gets the same load.
    least: Vec<f64>,
    /// Changes of lists of one replica in an hour.
    changes: f64,
    /// The zones whose backends are in the list of a client, on average over all clients.
    zones: f64,
}

impl Moving {
    fn mean(&self) -> f64 {
        mean(self.ratios.iter().copied())
    }

    fn p99(&self) -> f64 {
        percentile(&self.ratios, 0.99)
    }

    fn cross(&self) -> f64 {
        mean(self.crosses.iter().copied())
    }
}

/// Seconds between two reports of a client, and calls per second of a client, in the mean.
const STEP: f64 = 10.0;
const RATE: f64 = 5.0;

/// A client whose demand changes at random.
struct Client {
    home: usize,
    demand: Wander,
    pace: Pace,
    walker: Walker,
    /// Calls per second that it has reported, smoothed.
    known: Option<f64>,
}

/// A replica that knows only its own clients.
struct Replica {
    clients: Vec<Client>,
    split: Split,
    /// The number of its lists.
    number: u64,
    /// The part of all clients that are its own.
    part: f64,
}

/// Simulates clients in the three zones.
fn moving(sigma: f64, replicas: usize, seed: u64, scale: Scale) -> Moving {
    simulate(&BACKENDS, &CLIENTS, (sigma, 0.8), replicas, seed, scale)
}

/// Simulates clients in 16 equal zones, with about as many calls in each.
fn moving_many(seed: u64, scale: Scale) -> Moving {
    simulate(&[20; 16], &[60; 16], (0.2, 0.0), 1, seed, scale)
}

/// Returns the part of the calls that crosses zones over time, and the least that must, with
/// the hours.
pub(crate) fn over_time(scale: Scale) -> [Vec<(f64, f64)>; 2] {
    let Moving { crosses, least, .. } = moving(0.2, 1, 1, scale);
    // Means over five minutes can be read.
    let plot = |all: &[f64]| -> Vec<(f64, f64)> {
        let means = all.chunks(30).map(|some| mean(some.iter().copied())).enumerate();
        means.map(|(at, mean)| ((at + 1) as f64 * 30.0 * STEP / 3_600.0, mean)).collect()
    };
    [plot(&crosses), plot(&least)]
}

/// Simulates clients whose demand changes at random. They call by their lists, at even gaps.
/// They belong to replicas that do not communicate.
fn simulate(
    backends: &[usize],
    clients: &[usize],
    (sigma, zipf): (f64, f64),
    replicas: usize,
    seed: u64,
    scale: Scale,
) -> Moving {
    let hours = if scale.short { 0.2 } else { 4.0 };
    let mut chance = Chance::new(seed);
    let homes: Vec<usize> =
        clients.iter().enumerate().flat_map(|(zone, &n)| vec![zone; n]).collect();
    let demands = chance.zipf(homes.len(), zipf);
    let mut all: Vec<Replica> = (0..replicas)
        .map(|replica| {
            let own = homes.iter().zip(&demands).skip(replica).step_by(replicas);
            let own = own.map(|(&home, &mean)| (home, Wander::new(mean, sigma, &mut chance)));
            let own: Vec<_> = own.collect();
            Replica::new(backends, own, 1.0 / replicas as f64, &mut chance)
        })
        .collect();
    let zones: Vec<usize> =
        backends.iter().enumerate().flat_map(|(zone, &n)| vec![zone; n]).collect();
    let (mut moving, mut changes, mut listed) = (Moving::default(), 0, Vec::new());
    for step in 1..=(hours * 3_600.0 / STEP) as usize {
        // In the first minute, the demand is not known yet.
        let counts = step > 6;
        let (mut calls, mut crossed) = (vec![0.0; backends.len()], 0.0);
        let mut demands = vec![0.0; backends.len()];
        for Replica { clients, split, .. } in &mut all {
            for Client { home, demand, pace, walker, known } in clients {
                let count = pace.whole(STEP * RATE * demand.step(STEP, &mut chance));
                for _ in 0..count {
                    let zone = zones[walker.call().expect("nothing is dropped")];
                    calls[zone] += 1.0;
                    crossed += f64::from(u8::from(zone != *home));
                }
                demands[*home] += count as f64;
                let (rate, gain) = (count as f64 / STEP, 1.0 - (-STEP / 90.0_f64).exp());
                *known = Some(known.map_or(rate, |known| known + gain * (rate - known)));
                let zones = split.row(*home).iter().filter(|share| **share > 0).count();
                listed.push(zones as f64);
            }
        }
        let whole: f64 = calls.iter().sum();
        let due = |zone: usize| whole * backends[zone] as f64 / zones.len() as f64;
        let away = (0..backends.len()).map(|zone| f64::max(0.0, demands[zone] - due(zone)));
        let away = away.sum::<f64>();
        if counts {
            let loads = (0..backends.len()).map(|zone| calls[zone] / due(zone));
            moving.ratios.push(most(loads));
            moving.crosses.push(crossed / whole);
            moving.least.push(away / whole);
        }
        let renewed = all.iter_mut().filter_map(|one| one.renew(backends, &mut chance));
        changes += renewed.count();
    }
    moving.changes = changes as f64 / hours / replicas as f64;
    moving.zones = mean(listed);
    moving
}

impl Replica {
    /// Makes a replica whose clients have just connected.
    fn new(
        backends: &[usize],
        clients: Vec<(usize, Wander)>,
        part: f64,
        chance: &mut Chance,
    ) -> Self {
        let mut demands = vec![0.0; backends.len()];
        clients.iter().for_each(|(home, _)| demands[*home] += 1.0);
        let split = Split::best(&loads(backends, &demands), 0);
        let lists = zone_lists(backends, &split, 1);
        let count = clients.len();
        let client = |(at, (home, demand)): (usize, (usize, Wander))| {
            let kind = if at.is_multiple_of(2) { Kind::Java } else { Kind::Other };
            let walker = Walker::new(kind, lists[home].list(at, count), chance);
            Client { home, demand, pace: Pace::default(), walker, known: None }
        };
        let clients = clients.into_iter().enumerate().map(client).collect();
        Self { clients, split, number: 1, part }
    }

    /// Sends other lists if that is worth it.
    fn renew(&mut self, backends: &[usize], chance: &mut Chance) -> Option<()> {
        let mut known = vec![0.0; backends.len()];
        let each = self.clients.iter();
        each.for_each(|client| known[client.home] += client.known.unwrap_or(RATE));
        self.split = renew(Some(&self.split), &loads(backends, &known), 0, self.part)?;
        self.number += 1;
        let lists = zone_lists(backends, &self.split, self.number);
        let count = self.clients.len();
        for (at, Client { home, walker, .. }) in self.clients.iter_mut().enumerate() {
            walker.receive(lists[*home].list(at, count), chance);
        }
        Some(())
    }
}

/// Returns the lists of the clients of each zone.
fn zone_lists(backends: &[usize], split: &Split, number: u64) -> Vec<Lists> {
    let lists = |home: usize| {
        let factors = split.factors(Some(home)).into_iter().zip(backends);
        let factors: Vec<_> = factors.flat_map(|(factor, &n)| vec![factor; n]).collect();
        Lists::new(&apply(&vec![1; factors.len()], &factors), number)
    };
    (0..backends.len()).map(lists).collect()
}
