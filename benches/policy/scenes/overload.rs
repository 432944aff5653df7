//! Scene of overload: twice the load that a service can serve, for five minutes.
//!
//! Each of ten servers has a queue (first come, first served) of at most two seconds of
//! work. Clients give a call up after a second. The server does not notice, and serves such
//! calls in vain. 300 clients report every 10 s, and every 5 s while calls are shed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use lookaside::facts::shedding::Shedding;

use super::super::chance::Chance;
use super::super::goals::{Goal, Must};
use super::super::walker::{Lists, Walker, walkers};
use super::{Scale, mean};

const SCENE: &str = "overload";
const SERVERS: usize = 10;
const CLIENTS: usize = 300;
/// Calls per second that all servers can serve.
const CAPACITY: f64 = 1_000.0;
/// All times in this file are in milliseconds.
const DEADLINE: u64 = 1_000;
const QUEUE: u64 = 2_000;
const BEGINS: u64 = 60_000;
const ENDS: u64 = 360_000;
const END: u64 = 420_000;
/// The time after which a failed call is retried.
const RETRY: u64 = 500;

#[derive(Clone, Copy)]
struct Conditions {
    shed: bool,
    /// The estimated capacity, as a multiple of the real one.
    wrong: f64,
    /// The part of the failed calls that is retried.
    retries: f64,
    times: f64,
}

const USUAL: Conditions = Conditions { shed: true, wrong: 1.0, retries: 0.0, times: 2.0 };

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (what, conditions, must) in [
        ("2 × the capacity", USUAL, true),
        ("estimate 10 % too high", Conditions { wrong: 1.1, ..USUAL }, true),
        ("estimate 10 % too low", Conditions { wrong: 0.9, ..USUAL }, true),
        ("half of the failed calls tried again", Conditions { retries: 0.5, ..USUAL }, true),
        ("10 % too high, and tried again", Conditions { wrong: 1.1, retries: 0.5, ..USUAL }, true),
        ("5 × the capacity", Conditions { times: 5.0, ..USUAL }, false),
        ("without shedding", Conditions { shed: false, ..USUAL }, false),
    ] {
        let runs: Vec<[f64; 3]> =
            scale.seeds().map(|seed| simulate(conditions, seed, scale)).collect();
        let limit = |least| if must { Must::AtLeast(least) } else { Must::Reported };
        for (at, figure, must) in [
            (0, "goodput of the capacity over 5 min", limit(0.8)),
            (1, "after 60 s", limit(0.9)),
            (2, "in the minute after, of the load", limit(0.9)),
        ] {
            let measured = mean(runs.iter().map(|run| run[at]));
            goals.push(Goal::new(SCENE, format!("{what}: {figure}"), measured, must));
        }
    }
    goals
}

struct Client {
    walker: Walker,
    /// Calls since the last report, and that report.
    started: f64,
    reported: f64,
    last: u64,
    next: u64,
}

/// Returns three goodputs: over the whole overload and from its second minute on, as parts of
/// the capacity, and over the minute after the overload, as a part of the load.
fn simulate(conditions: Conditions, seed: u64, scale: Scale) -> [f64; 3] {
    let Conditions { shed, wrong, retries, times } = conditions;
    let mut chance = Chance::new(seed);
    let lists = |number, percent| Lists::new(&[1; SERVERS], number).with_drops(percent);
    let mut walkers = walkers(&lists(1, 0), CLIENTS, &mut chance);
    let client = |(at, walker): (usize, Walker)| {
        let next = (at * 10_000 / CLIENTS) as u64;
        Client { walker, started: 0.0, reported: 0.0, last: 0, next }
    };
    let mut clients: Vec<Client> = walkers.drain(..).enumerate().map(client).collect();
    let (mut shedding, mut number) = (Shedding::default(), 1);
    let mut free = [0_u64; SERVERS];
    // Microseconds of work in the last seconds.
    let mut busy = [0.0; 5];
    let mut good = [0.0; 3];
    let mut again: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let service = (SERVERS as f64 / CAPACITY * 1e6) as u64;
    let end = if scale.short { BEGINS + 30_000 } else { END };
    for now in 0..end {
        let is_over = (BEGINS..ENDS).contains(&now);
        let rate = CAPACITY * if is_over { times } else { 0.7 } / 1_000.0;
        let mut calls: Vec<usize> =
            (0..chance.poisson(rate)).map(|_| chance.below(CLIENTS)).collect();
        while again.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            calls.extend(again.pop().map(|Reverse((_, client))| client));
        }
        for caller in calls {
            let client = &mut clients[caller];
            client.started += 1.0;
            let mut fails = None;
            if let Some(server) = client.walker.call() {
                let at = now * 1_000;
                let start = free[server].max(at);
                if start - at > QUEUE * 1_000 {
                    fails = Some(now);
                } else {
                    free[server] = start + service;
                    if free[server] - at > DEADLINE * 1_000 {
                        fails = Some(now + DEADLINE);
                    } else {
                        let done = free[server] / 1_000;
                        good[0] += f64::from(u8::from((BEGINS..ENDS).contains(&done)));
                        good[1] += f64::from(u8::from((BEGINS + 60_000..ENDS).contains(&done)));
                        good[2] += f64::from(u8::from((ENDS..END).contains(&done)));
                    }
                }
            } else {
                fails = Some(now);
            }
            if let Some(fails) = fails
                && chance.unit() < retries
            {
                again.push(Reverse((fails + RETRY, caller)));
            }
        }
        // Servers work until they are free.
        let works = free.iter().filter(|&&free| free > now * 1_000).count();
        busy[(now / 1_000 % 5) as usize] += works as f64 / SERVERS as f64 / 1_000.0;
        for client in clients.iter_mut().filter(|client| client.next <= now) {
            let passed = now.saturating_sub(client.last).max(1) as f64 / 1_000.0;
            client.reported = client.started / passed;
            client.started = 0.0;
            client.last = now;
            client.next = now + if shedding.is_active() { 5_000 } else { 10_000 };
        }
        if !shed || now % 1_000 != 999 {
            continue;
        }
        if now % 5_000 == 4_999 {
            shedding.utilisation(mean(busy), now);
        }
        busy[((now + 1) / 1_000 % 5) as usize] = 0.0;
        let demand = clients.iter().map(|client| client.reported).sum();
        if let Some(percent) = shedding.tick(demand, CAPACITY * wrong) {
            number += 1;
            let lists = lists(number, percent);
            for (at, client) in clients.iter_mut().enumerate() {
                client.walker.receive(lists.list(at, CLIENTS), &mut chance);
            }
        }
    }
    let seconds = (ENDS - BEGINS) as f64 / 1_000.0;
    [
        good[0] / seconds / CAPACITY,
        good[1] / (seconds - 60.0) / CAPACITY,
        good[2] / 60.0 / 0.7 / CAPACITY,
    ]
}
