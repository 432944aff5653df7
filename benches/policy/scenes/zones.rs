//! Scene of three zones, with 50, 30 and 20 % of the clients, and 30, 40 and 30 backends.

use lookaside::facts::factor::apply;
use lookaside::facts::zones::{Split, ZoneLoad, renew};

use super::super::chance::{Chance, Wander};
use super::super::goals::{Goal, Must};
use super::super::walker::{Kind, Lists, Walker};
use super::{Scale, max_over_mean, mean, most, percentile};

const SCENE: &str = "zones";
const BACKENDS: [usize; 3] = [30, 40, 30];
const CLIENTS: [usize; 3] = [150, 90, 60];

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
        goal("zones lost in five ways, in one push: max/mean", lost, Must::AtMost(1.02)),
        goal("demand moves by 20 %: max/mean, mean", of(&slow, |run| run.mean), Must::AtMost(1.03)),
        goal("the same, p99", of(&slow, |run| run.p99), Must::Reported),
        goal("the same: changes an hour", of(&slow, |run| run.changes), Must::AtMost(3.0)),
        goal("the same: crosses", of(&slow, |run| run.cross), Must::Reported),
        goal(
            "three replicas that do not talk: max/mean, mean",
            of(&three, |run| run.mean),
            Must::AtMost(1.03),
        ),
        goal("the same: changes an hour, of each", of(&three, |run| run.changes), Must::Reported),
        goal("the same: crosses", of(&three, |run| run.cross), Must::Reported),
        goal("demand moves by 50 %: max/mean, mean", of(&fast, |run| run.mean), Must::Reported),
        goal("the same: changes an hour", of(&fast, |run| run.changes), Must::Reported),
        goal("16 equal zones, 20 %: max/mean, mean", of(&many, |run| run.mean), Must::AtMost(1.05)),
        goal("the same: changes an hour", of(&many, |run| run.changes), Must::Reported),
        goal("the same: crosses", of(&many, |run| run.cross), Must::Reported),
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
        let factors = split.factors(Some(home));
        let weights: Vec<_> = zones.iter().map(|&zone| factors[zone]).collect();
        let weights = apply(&vec![1; zones.len()], &weights);
        let own: Vec<f64> =
            homes.iter().zip(&demands).filter(|one| *one.0 == home).map(|one| *one.1).collect();
        for number in 0..10 {
            let lists = Lists::new(&weights, number);
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

struct Moving {
    mean: f64,
    p99: f64,
    /// Changes of lists of one replica in an hour.
    changes: f64,
    cross: f64,
    /// The zones whose backends are in the list of a client, on average over all clients.
    zones: f64,
}

/// Simulates clients in the three zones.
fn moving(sigma: f64, replicas: usize, seed: u64, scale: Scale) -> Moving {
    simulate(&BACKENDS, &CLIENTS, (sigma, 0.8), replicas, seed, scale)
}

/// Simulates clients in 16 equal zones, with about as many calls in each.
fn moving_many(seed: u64, scale: Scale) -> Moving {
    simulate(&[20; 16], &[60; 16], (0.2, 0.0), 1, seed, scale)
}

/// Simulates clients whose demand changes at random. They belong to replicas that do not
/// communicate.
fn simulate(
    backends: &[usize],
    clients: &[usize],
    (sigma, zipf): (f64, f64),
    replicas: usize,
    seed: u64,
    scale: Scale,
) -> Moving {
    const STEP: f64 = 10.0;
    let hours = if scale.short { 0.2 } else { 4.0 };
    let count = backends.len();
    let whole: usize = backends.iter().sum();
    let mut chance = Chance::new(seed);
    let homes: Vec<usize> = (0..count).flat_map(|zone| vec![zone; clients[zone]]).collect();
    let means = chance.zipf(homes.len(), zipf);
    let mut wander: Vec<Wander> =
        means.into_iter().map(|mean| Wander::new(mean, sigma, &mut chance)).collect();
    let mut smooth: Vec<Option<f64>> = vec![None; homes.len()];
    let mut published: Vec<Option<Split>> = vec![None; replicas];
    let (mut ratios, mut crosses, mut changes) = (Vec::new(), Vec::new(), 0);
    let mut lists = Vec::new();
    let steps = (hours * 3_600.0 / STEP) as usize;
    for step in 0..steps {
        let demands: Vec<f64> =
            wander.iter_mut().map(|wander| wander.step(STEP, &mut chance)).collect();
        for (smooth, &demand) in smooth.iter_mut().zip(&demands) {
            let gain = 1.0 - (-STEP / 90.0_f64).exp();
            let old = smooth.unwrap_or(demand);
            *smooth = Some(old + gain * (demand - old));
        }
        let own = |replica: usize, zone: usize, of: &dyn Fn(usize) -> f64| -> f64 {
            (0..homes.len())
                .filter(|&at| at % replicas == replica && homes[at] == zone)
                .map(of)
                .sum()
        };
        let mut calls = vec![0.0; count];
        let mut crossed = 0.0;
        for (replica, published) in published.iter_mut().enumerate() {
            let known = |at: usize| smooth[at].unwrap_or(0.0);
            let known: Vec<f64> = (0..count).map(|zone| own(replica, zone, &known)).collect();
            if step % 3 == 0
                && let Some(new) = renew(published.as_ref(), &loads(backends, &known), 0)
            {
                changes += usize::from(published.is_some());
                *published = Some(new);
            }
            let Some(split) = published else { continue };
            for (home, &clients) in clients.iter().enumerate() {
                let demand = own(replica, home, &|at| demands[at]);
                let listed = split.row(home).iter().filter(|share| **share > 0).count();
                lists.push((listed * clients) as f64 * count as f64 / homes.len() as f64);
                for (zone, &share) in split.row(home).iter().enumerate() {
                    let part = demand * f64::from(share) / 1e6;
                    calls[zone] += part;
                    crossed += if zone == home { 0.0 } else { part };
                }
            }
        }
        let total: f64 = calls.iter().sum();
        let over = |zone: usize| calls[zone] / total * whole as f64 / backends[zone] as f64;
        let over = (0..count).map(over);
        ratios.push(most(over));
        crosses.push(crossed / total);
    }
    Moving {
        mean: mean(ratios.iter().copied()),
        p99: percentile(&ratios, 0.99),
        changes: changes as f64 / hours / replicas as f64,
        cross: mean(crosses),
        zones: mean(lists),
    }
}
