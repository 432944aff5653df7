//! Scene of shares: how far a backend is over its share, and how frequent lists affect
//! clients that start each list at its first entry.

use super::super::chance::Chance;
use super::super::goals::{Goal, Must};
use super::super::walker::{Kind, Lists, Walker, push, walkers};
use super::{Scale, max_over_mean, mean, most, percentile};

const SCENE: &str = "shares";

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let goal = |what: &str, measured, must| Goal::new(SCENE, what, measured, must);
    let sizes: &[usize] = if scale.short { &[30] } else { &[10, 30, 100, 300, 1_000, 1_024] };
    let large: &[usize] = if scale.short { &[] } else { &[5_000] };
    let over = |classes: bool, sizes: &[usize]| {
        let mut worst = 0.0_f64;
        for &backends in sizes {
            for clients in [30, 300] {
                for weights in kinds(classes, backends) {
                    worst = worst.max(over_share(&weights, clients));
                }
            }
        }
        worst
    };
    let seeds = scale.seeds();
    let java = mean(seeds.clone().map(|seed| frequent(seed, 0, scale)[0]));
    let drops = mean(seeds.map(|seed| frequent(seed, 20, scale)[1]));
    vec![
        goal("1:2:4, 3 backends, 700 calls: calls off", small(), Must::AtMost(1.0)),
        goal("most over its share, weights of classes", over(true, sizes), Must::AtMost(0.05)),
        goal("most over its share, any weights", over(false, sizes), Must::AtMost(0.07)),
        goal("the same, 5,000 backends", over(false, large), Must::AtMost(0.1)),
        goal(
            "300 Java clients, 0.5 calls/s, a list each second: max/mean in 10 min",
            java,
            Must::AtMost(1.15),
        ),
        goal("the same, 20 % drops: p95 of clients / 20 %", drops, Must::AtMost(1.25)),
    ]
}

/// Returns the weight of each backend, its share by weight, and the share of the calls that it
/// got from 30 clients, in percent.
pub(crate) fn by_weight() -> Vec<[f64; 3]> {
    const WEIGHTS: [u32; 8] = [1, 1, 2, 2, 3, 4, 6, 8];
    let mut chance = Chance::new(1);
    let mut counts = [0.0; WEIGHTS.len()];
    for mut walker in walkers(&Lists::new(&WEIGHTS, 1), 30, &mut chance) {
        for _ in 0..chance.poisson(100.0) {
            if let Some(backend) = walker.call() {
                counts[backend] += 1.0;
            }
        }
    }
    let (weight, calls) = (WEIGHTS.iter().sum::<u32>(), counts.iter().sum::<f64>());
    let of = |(&own, count): (&u32, f64)| {
        let due = 100.0 * f64::from(own) / f64::from(weight);
        [f64::from(own), due, 100.0 * count / calls]
    };
    WEIGHTS.iter().zip(counts).map(of).collect()
}

/// Returns the largest difference, within 700 calls, between a backend's calls and its share.
fn small() -> f64 {
    let mut chance = Chance::new(1);
    let lists = Lists::new(&[1, 2, 4], 1);
    let mut worst = 0.0_f64;
    for kind in [Kind::Java, Kind::Other] {
        let mut walker = Walker::new(kind, lists.list(7, 30), &mut chance);
        let mut calls = [0.0; 3];
        for call in 1..=700 {
            if let Some(backend) = walker.call() {
                calls[backend] += 1.0;
            }
            for (calls, weight) in calls.iter().zip([1.0, 2.0, 4.0]) {
                worst = worst.max((calls - f64::from(call) * weight / 7.0).abs());
            }
        }
    }
    worst
}

/// Makes sets of weights: with a few classes of backends, or of any size.
fn kinds(classes: bool, backends: usize) -> Vec<Vec<u32>> {
    let mut chance = Chance::new(backends as u64);
    let mut make = |weight: &mut dyn FnMut(usize, &mut Chance) -> f64| -> Vec<u32> {
        (0..backends).map(|at| (1_000.0 * weight(at, &mut chance)).max(1.0) as u32).collect()
    };
    let tenth = |at: usize| at.is_multiple_of(10);
    if classes {
        return vec![
            make(&mut |at, _| if at % 2 == 0 { 3.0 } else { 1.0 }),
            make(&mut |at, _| if tenth(at) { 4.0 } else { 1.0 }),
            make(&mut |at, _| [1.0, 1.0, 1.5, 2.0][at % 4]),
            make(&mut |at, _| (at % 10 + 1) as f64),
            make(&mut |at, _| if tenth(at) { 0.1 } else { 1.0 }),
        ];
    }
    vec![
        make(&mut |_, chance| 0.5 + chance.unit()),
        make(&mut |at, chance| [1.0, 1.0, 1.5, 2.0][at % 4] * (0.9 + 0.2 * chance.unit())),
        make(&mut |_, chance| (0.25 * chance.normal()).exp()),
        make(&mut |_, chance| (0.5 * chance.normal()).exp()),
    ]
}

/// Returns how far over its share the most favoured backend is, after each client has
/// walked ten lists once.
fn over_share(weights: &[u32], clients: usize) -> f64 {
    let mut chance = Chance::new(clients as u64);
    let mut calls = vec![0.0; weights.len()];
    let mut all = Vec::new();
    let mut entries = 0.0;
    for number in 0..10 {
        let lists = Lists::new(weights, number);
        if number == 0 {
            all = walkers(&lists, clients, &mut chance);
        } else {
            push(&mut all, &lists, &mut chance);
        }
        entries = lists.entries() as f64;
        for (at, walker) in all.iter_mut().enumerate() {
            let length = lists.list(at, clients).len();
            for _ in 0..length {
                if let Some(backend) = walker.call() {
                    calls[backend] += 1.0 / length as f64;
                }
            }
        }
    }
    let (weight, total): (f64, f64) =
        (weights.iter().copied().map(f64::from).sum(), calls.iter().sum());
    let due = |weighs: u32| f64::from(weighs) / weight;
    // A backend whose share is less than one entry still has one, so it does not count.
    let counts = weights.iter().zip(&calls).filter(|one| due(*one.0) * entries >= 1.0);
    most(counts.map(|(&weighs, &calls)| calls / total / due(weighs) - 1.0))
}

/// Simulates 300 Java clients that each make a call every two seconds and get a list every
/// second. Returns max/mean of the backends' calls, and the 95th percentile over clients of
/// the dropped part of the calls, divided by the wanted part.
fn frequent(seed: u64, drop_percent: u32, scale: Scale) -> [f64; 2] {
    const CLIENTS: usize = 300;
    const BACKENDS: usize = 100;
    let seconds = if scale.short { 60 } else { 600 };
    let mut chance = Chance::new(seed);
    let weights = [1; BACKENDS];
    let lists = |number| Lists::new(&weights, number).with_drops(drop_percent);
    let java =
        |stream| Walker::new(Kind::Java, lists(0).list(stream, CLIENTS), &mut Chance::new(1));
    let mut all: Vec<Walker> = (0..CLIENTS).map(java).collect();
    let mut calls = vec![0.0; BACKENDS];
    let mut dropped = vec![[0.0; 2]; CLIENTS];
    for second in 1..=seconds {
        push(&mut all, &lists(second), &mut chance);
        for (walker, dropped) in all.iter_mut().zip(&mut dropped) {
            for _ in 0..chance.poisson(0.5) {
                dropped[1] += 1.0;
                match walker.call() {
                    Some(backend) => calls[backend] += 1.0,
                    None => dropped[0] += 1.0,
                }
            }
        }
    }
    let due = f64::from(drop_percent.max(1)) / 100.0;
    let ratios: Vec<f64> =
        dropped.iter().map(|[dropped, calls]| dropped / f64::max(*calls, 1.0) / due).collect();
    [max_over_mean(&calls), percentile(&ratios, 0.95)]
}
