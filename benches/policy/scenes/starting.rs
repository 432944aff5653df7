//! Scene of backends that start, flap or fail, and of canaries.

use lookaside::balancer::cycle;
use lookaside::facts::factor::{Factor, apply};
use lookaside::facts::flapping::Flaps;
use lookaside::facts::panic::{Panic, Rules};
use lookaside::facts::rise_fall::{RiseFall, Thresholds};
use lookaside::facts::slow_start::{SlowStart, Starter};
use lookaside::policy::{CallSplit, rendezvous};

use super::super::chance::Chance;
use super::super::goals::{Goal, Must};
use super::super::walker::{Lists, push, walkers};
use super::{Scale, max_over_mean, mean, most};

const SCENE: &str = "starting";

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let goal = |what: &str, measured, must| Goal::new(SCENE, what, measured, must);
    let joins = if scale.short { 2 } else { 40 };
    let slow: Vec<Start> = (0..joins).map(|seed| slow_start(seed, true)).collect();
    let quick = slow_start(1, false);
    let first: Vec<f64> = slow.iter().map(|start| start.share).collect();
    let mut goals = vec![
        goal(
            "slow start 60 s, 1 of 10: its share in its first 10 s, %",
            mean(first.iter().copied()),
            Must::AtMost(1.4),
        ),
        goal("the same, worst of 40 moments", most(first), Must::Reported),
        goal("the same without slow start", quick.share, Must::Reported),
        goal("the same: pushes", most(slow.iter().map(|start| start.pushes)), Must::AtMost(5.0)),
    ];
    for (what, up, down, must) in [
        ("a backend that flaps each second: pushes in an hour", 1, 1, Must::AtMost(10.0)),
        ("10 s there, 10 s away", 10, 10, Must::AtMost(10.0)),
        // As many as it comes and goes: it is there long enough, so it is not delayed.
        ("60 s there, 60 s away", 60, 60, Must::AtMost(59.0)),
    ] {
        goals.push(goal(what, flapping(up, down)[0], must));
    }
    let restart = flapping(590, 10)[1];
    goals.push(goal("a restart each 10 min: s that it waits", restart, Must::AtMost(0.0)));
    goals.extend(panic());
    goals.extend(canaries(scale));
    goals
}

struct Start {
    /// The newcomer's share of the calls of its first 10 s, in percent.
    share: f64,
    pushes: f64,
    /// Its share of the calls of each second, in percent.
    by_second: Vec<f64>,
}

/// Returns the share of the calls, in percent, that a newcomer gets in each second.
pub(crate) fn newcomer(is_slow: bool) -> Vec<f64> {
    slow_start(1, is_slow).by_second
}

/// Simulates a backend that joins nine others, with 100 clients of ten calls a second each.
fn slow_start(seed: u64, is_slow: bool) -> Start {
    const CLIENTS: usize = 100;
    let mut chance = Chance::new(seed);
    let slow = SlowStart::new(60_000).expect("the window is not 0");
    let joined = chance.below(1_000_000) as u64;
    let mut all: Vec<Starter> = vec![Starter { weight: 100, joined: None }; 9];
    let weights = |all: &[Starter], now| {
        let weights: Vec<u32> = all.iter().map(|one| one.weight).collect();
        if is_slow { apply(&weights, &slow.factors(all, now)) } else { weights }
    };
    let mut number = 1;
    let mut clients = walkers(&Lists::new(&weights(&all, 0), number), CLIENTS, &mut chance);
    all.push(Starter { weight: 100, joined: Some(joined) });
    let (mut next, mut pushes) = (Some(joined), 0.0);
    // Those of the newcomer and of all, by second.
    let mut calls = vec![[0.0; 2]; 75];
    for now in (joined..joined + 75_000).step_by(100) {
        if next.is_some_and(|next| next <= now) {
            number += 1;
            push(&mut clients, &Lists::new(&weights(&all, now), number), &mut chance);
            pushes += 1.0;
            next = slow.next(&all, now).filter(|_| is_slow);
        }
        for client in &mut clients {
            for _ in 0..chance.poisson(1.0) {
                if let Some(backend) = client.call() {
                    let calls = &mut calls[((now - joined) / 1_000) as usize];
                    calls[0] += f64::from(u8::from(backend == 9));
                    calls[1] += 1.0;
                }
            }
        }
    }
    let share = |calls: &[[f64; 2]]| {
        let sum = |at: usize| calls.iter().map(|calls| calls[at]).sum::<f64>();
        100.0 * sum(0) / sum(1)
    };
    let by_second = calls.chunks(1).map(share).collect();
    Start { share: share(&calls[..10]), pushes, by_second }
}

/// Simulates a backend that comes and goes for an hour. Returns the pushes, and the seconds
/// for which it was registered but not listed.
fn flapping(up: u64, down: u64) -> [f64; 2] {
    let mut hold = Flaps::default();
    let (mut listed, mut is_there) = (true, true);
    let (mut pushes, mut waited) = (0.0, 0.0);
    for second in 0..3_600 {
        let now = second * 1_000;
        let there = second % (up + down) < up;
        match (is_there, there) {
            (true, false) => hold.left(now),
            (false, true) => _ = hold.returned(now, 300_000),
            _ => {}
        }
        is_there = there;
        let lists = there && hold.until(now).is_none();
        pushes += f64::from(u8::from(lists != listed));
        waited += f64::from(u8::from(there && !lists));
        listed = lists;
    }
    [pushes, waited]
}

/// Simulates failed probes of six of ten backends in three rounds. Returns the load of the
/// other four, with and without panic, and the number of pushes.
fn panic() -> Vec<Goal> {
    const BACKENDS: usize = 10;
    let rules = Rules { percent: 50, interval: 10_000 };
    let (mut panic, mut chance) = (Panic::default(), Chance::new(1));
    let mut health: Vec<RiseFall> = (0..BACKENDS).map(|_| RiseFall::new(0)).collect();
    let mut listed = [true; BACKENDS];
    let mut pushes = 0.0;
    for round in 1..=3_u64 {
        for (at, health) in health.iter_mut().enumerate() {
            health.record(at >= 6, Thresholds::default(), round * 10_000);
        }
        let healthy = health.iter().filter(|one| one.is_healthy()).count();
        panic.update(healthy as u64, BACKENDS as u64, rules, round * 10_000);
        let mut now = [false; BACKENDS];
        now.iter_mut().zip(&health).for_each(|(now, health)| {
            *now = panic.lists(true, health.is_healthy());
        });
        pushes += f64::from(u8::from(now != listed));
        listed = now;
    }
    let load = |listed: &[bool]| {
        let weights: Vec<u32> = listed.iter().map(|&listed| u32::from(listed)).collect();
        let mut calls = [0.0; BACKENDS];
        let mut chance = Chance::new(chance.bits());
        let mut all = walkers(&Lists::new(&weights, 1), 30, &mut chance);
        for walker in &mut all {
            for _ in 0..1_000 {
                if let Some(backend) = walker.call() {
                    calls[backend] += 1.0;
                }
            }
        }
        max_over_mean(&calls)
    };
    let mut load = load;
    let without: Vec<bool> = health.iter().map(RiseFall::is_healthy).collect();
    vec![
        Goal::new(SCENE, "60 % of the probes fail: most load", load(&listed), Must::AtMost(1.02)),
        Goal::new(SCENE, "the same without panic", load(&without), Must::Reported),
        Goal::new(SCENE, "the same: pushes", pushes, Must::AtMost(0.0)),
    ]
}

fn canaries(scale: Scale) -> Vec<Goal> {
    let clients = if scale.short { 1_000 } else { 10_000 };
    let mut off = 0.0_f64;
    for backends in [10, 100, 1_000] {
        for percent in [1_u32, 5, 25, 50] {
            let canary = |at: usize| at.is_multiple_of(10);
            let share = Factor::millionths(percent * 10_000);
            let split = CallSplit { share, canaries: (0..backends).map(canary).collect() };
            let weights = cycle::split_counts(&vec![1; backends], &split);
            let mut chance = Chance::new(1);
            let (mut canaries, mut calls) = (0.0, 0.0);
            for number in 0..10 {
                let lists = Lists::new(&weights, number);
                for (at, mut walker) in walkers(&lists, 300, &mut chance).into_iter().enumerate() {
                    for _ in 0..lists.list(at, 300).len() {
                        let backend = walker.call().expect("nothing is dropped");
                        canaries += f64::from(u8::from(canary(backend)));
                        calls += 1.0;
                    }
                }
            }
            off = off.max((100.0 * canaries / calls - f64::from(percent)).abs());
        }
    }
    let mut chance = Chance::new(2);
    let ids: Vec<u64> = (0..clients).map(|_| chance.bits()).collect();
    let share = |percent: u32| Factor::millionths(percent * 10_000);
    let inside =
        |percent| ids.iter().filter(move |&&id| rendezvous::is_in_share(id, 7, share(percent)));
    let left = inside(5).filter(|&&id| !rendezvous::is_in_share(id, 7, share(25))).count();
    let five = 100.0 * inside(5).count() as f64 / clients as f64;
    vec![
        Goal::new(SCENE, "canary of 1 to 50 % of the calls: points off", off, Must::AtMost(0.5)),
        Goal::new(SCENE, "canary of 5 % of the clients: % of them", five, Must::Reported),
        Goal::new(SCENE, "from 5 % to 25 %: clients that leave", left as f64, Must::AtMost(0.0)),
    ]
}
