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
/// The load before and after the overload, as a part of the capacity.
const CALM: f64 = 0.7;
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
        ("2 × the capacity", USUAL, LIMITS),
        ("estimate 10 % too high", Conditions { wrong: 1.1, ..USUAL }, LIMITS),
        ("estimate 10 % too low", Conditions { wrong: 0.9, ..USUAL }, LIMITS),
        ("half of the failed calls tried again", Conditions { retries: 0.5, ..USUAL }, LIMITS),
        (
            "10 % too high, and tried again",
            Conditions { wrong: 1.1, retries: 0.5, ..USUAL },
            LIMITS,
        ),
        (
            "5 × the capacity",
            Conditions { times: 5.0, ..USUAL },
            [Must::Reported, Must::Reported, Must::AtLeast(0.8)],
        ),
        ("without shedding", Conditions { shed: false, ..USUAL }, [Must::Reported; 3]),
    ] {
        let runs: Vec<Goodput> =
            scale.seeds().map(|seed| simulate(conditions, seed, scale)).collect();
        let of = |value: fn(&Goodput) -> f64| mean(runs.iter().map(value));
        for (figure, measured, must) in [
            ("goodput of the capacity over 5 min", of(Goodput::whole), must[0]),
            ("after 60 s", of(Goodput::settled), must[1]),
            ("in the minute after, of the load", of(Goodput::after), must[2]),
        ] {
            goals.push(Goal::new(SCENE, format!("{what}: {figure}"), measured, must));
        }
    }
    goals
}

/// The limits of the three figures of a run.
const LIMITS: [Must; 3] = [Must::AtLeast(0.8), Must::AtLeast(0.9), Must::AtLeast(0.9)];

/// Returns the calls that are answered in time in each second, as a part of the capacity.
pub(crate) fn over_time(shed: bool, scale: Scale) -> Vec<f64> {
    simulate(Conditions { shed, ..USUAL }, 1, scale).0
}

/// Returns the corners of the load over time, as a part of the capacity, with the seconds.
pub(crate) fn load() -> [(f64, f64); 6] {
    let second = |time: u64| time as f64 / 1_000.0;
    let (begins, ends) = (second(BEGINS), second(ENDS));
    let most = USUAL.times;
    [(0.0, CALM), (begins, CALM), (begins, most), (ends, most), (ends, CALM), (second(END), CALM)]
}

/// The calls that are answered in time in each second, as a part of the capacity.
struct Goodput(Vec<f64>);

impl Goodput {
    /// Returns the mean over the whole overload.
    fn whole(&self) -> f64 {
        self.mean(BEGINS, ENDS)
    }

    /// Returns the mean from the second minute of the overload on.
    fn settled(&self) -> f64 {
        self.mean(BEGINS + 60_000, ENDS)
    }

    /// Returns the mean over the minute after the overload, as a part of the load.
    fn after(&self) -> f64 {
        self.mean(ENDS, END) / CALM
    }

    fn mean(&self, begins: u64, ends: u64) -> f64 {
        mean(self.0[(begins / 1_000) as usize..(ends / 1_000) as usize].iter().copied())
    }
}

struct Client {
    walker: Walker,
    /// Calls since the last report, and that report.
    started: f64,
    reported: f64,
    last: u64,
    next: u64,
}

fn simulate(conditions: Conditions, seed: u64, scale: Scale) -> Goodput {
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
    let mut good = vec![0.0; (END / 1_000) as usize];
    let mut again: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let service = (SERVERS as f64 / CAPACITY * 1e6) as u64;
    let end = if scale.short { BEGINS + 30_000 } else { END };
    for now in 0..end {
        let is_over = (BEGINS..ENDS).contains(&now);
        let rate = CAPACITY * if is_over { times } else { CALM } / 1_000.0;
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
                        let second = free[server] / 1_000_000;
                        // The last calls end after the run.
                        if let Some(good) = good.get_mut(second as usize) {
                            *good += 1.0 / CAPACITY;
                        }
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
    Goodput(good)
}
