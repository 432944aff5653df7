//! Scene of bursts: other processes slow servers down for a second, and lists cannot react
//! that fast.
//!
//! There are 50 servers with four workers each. In each second another tenth of them is half
//! as fast. The figures are reported beside those of P2C (the client takes the server with
//! fewer pending calls, of two) and Prequal (the client asks servers for calls in flight and
//! latency). They have no limit, because a balancer that sends lists does not compete with
//! such policies. Clients may use them on top.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::super::chance::Chance;
use super::super::goals::{Goal, Must};
use super::super::walker::{Lists, Walker, walkers};
use super::{Scale, percentile};

const SCENE: &str = "bursts";
const SERVERS: usize = 50;
const WORKERS: usize = 4;
const CLIENTS: usize = 100;
/// Seconds that a call takes.
const SERVICE: f64 = 0.01;
const LOAD: f64 = 0.75;
/// Prequal: how many results a client keeps, for how many seconds, and how many servers it
/// asks for each call.
const POOL: usize = 16;
const AGE: f64 = 1.0;
const ASKED: usize = 3;
/// A server from this quantile of calls in flight on is hot.
const HOT: f64 = 0.84;

#[derive(Clone, Copy, PartialEq)]
enum Choice {
    List,
    LeastPending,
    Prequal,
}

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let seconds = if scale.short { 2.0 } else { 30.0 };
    let all = [
        ("lists, equal weights", Choice::List),
        ("P2C by the client's pending calls", Choice::LeastPending),
        ("Prequal", Choice::Prequal),
    ];
    let goals = all.into_iter().flat_map(|(what, choice)| {
        let latencies = simulate(choice, seconds);
        [(0.5, "p50"), (0.99, "p99")].map(|(part, name)| {
            let latency = 1_000.0 * percentile(&latencies, part);
            Goal::new(SCENE, format!("{what}: latency {name}, ms"), latency, Must::Reported)
        })
    });
    goals.collect()
}

/// A server, with the calls that run and wait.
#[derive(Default)]
struct Server {
    running: usize,
    waiting: VecDeque<Call>,
    /// How long calls run, smoothed.
    time: f64,
}

#[derive(Clone, Copy)]
struct Call {
    client: usize,
    begun: f64,
    time: f64,
}

/// A client's result about a server: the time, the server, its calls and its latency.
type Probe = (f64, usize, usize, f64);

struct Client {
    walker: Walker,
    pending: Vec<u32>,
    probes: VecDeque<Probe>,
}

fn simulate(choice: Choice, seconds: f64) -> Vec<f64> {
    let mut chance = Chance::new(7);
    let lists = Lists::new(&[1; SERVERS], 1);
    let client = |walker| Client { walker, pending: vec![0; SERVERS], probes: VecDeque::new() };
    let mut clients: Vec<Client> =
        walkers(&lists, CLIENTS, &mut chance).into_iter().map(client).collect();
    let mut servers: Vec<Server> = (0..SERVERS).map(|_| Server::default()).collect();
    let gap = SERVICE / (LOAD * (SERVERS * WORKERS) as f64);
    // Ends of calls, in nanoseconds, so that they have an order.
    let mut ends: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut calls: Vec<Call> = Vec::new();
    let mut latencies = Vec::new();
    let (mut now, mut next) = (0.0, 0.0);
    let nanos = |time: f64| (time * 1e9) as u64;
    while now < seconds {
        let end = ends.peek().map(|Reverse((at, ..))| *at);
        let started = if end.is_some_and(|end| end <= nanos(next)) {
            let Some(Reverse((at, server, call))) = ends.pop() else { break };
            now = at as f64 / 1e9;
            let Call { client, begun, time } = calls[call as usize];
            clients[client].pending[server] -= 1;
            latencies.push(now - begun);
            let state = &mut servers[server];
            state.time += 0.1 * (time - state.time);
            state.running -= 1;
            state.waiting.pop_front().map(|call| (server, call))
        } else {
            now = next;
            next += chance.exponential(gap);
            let client = chance.below(CLIENTS);
            let server = choose(choice, &mut clients[client], &servers, now, &mut chance);
            clients[client].pending[server] += 1;
            let call = Call { client, begun: now, time: 0.0 };
            if servers[server].running < WORKERS {
                Some((server, call))
            } else {
                servers[server].waiting.push_back(call);
                None
            }
        };
        if let Some((server, mut call)) = started {
            servers[server].running += 1;
            let slow = (server + now as usize).is_multiple_of(10);
            call.time = chance.exponential(SERVICE) * if slow { 2.0 } else { 1.0 };
            ends.push(Reverse((nanos(now + call.time), server, calls.len() as u64)));
            calls.push(call);
        }
    }
    latencies
}

fn choose(
    choice: Choice,
    client: &mut Client,
    servers: &[Server],
    now: f64,
    chance: &mut Chance,
) -> usize {
    match choice {
        Choice::List => client.walker.call().expect("nothing is dropped"),
        Choice::LeastPending => {
            let (a, b) = (chance.below(SERVERS), chance.below(SERVERS));
            if client.pending[b] < client.pending[a] { b } else { a }
        }
        Choice::Prequal => {
            for _ in 0..ASKED {
                let at = chance.below(SERVERS);
                let Server { running, waiting, time } = &servers[at];
                let latency = time * (1.0 + waiting.len() as f64 / WORKERS as f64);
                client.probes.push_back((now, at, running + waiting.len(), latency));
            }
            let old = client.probes.len().saturating_sub(POOL);
            client.probes.drain(..old);
            client.probes.retain(|probe| now - probe.0 < AGE);
            let flights: Vec<f64> = client.probes.iter().map(|probe| probe.2 as f64).collect();
            let hot = percentile(&flights, HOT);
            let all = client.probes.iter().enumerate();
            let cold = all.clone().filter(|one| (one.1.2 as f64) < hot);
            let best = cold
                .min_by(|a, b| a.1.3.total_cmp(&b.1.3))
                .or_else(|| all.min_by_key(|one| one.1.2))
                .map_or(0, |one| one.0);
            client.probes.remove(best).map_or(0, |probe| probe.1)
        }
    }
}
