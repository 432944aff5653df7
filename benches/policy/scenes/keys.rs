//! Scene of keys: 1,000 keys of 10 backends, with and without a bound.
//!
//! The load of keys is even, or by Zipf 1 in a random order. Demand moves: each minute, each
//! key's load is multiplied by a random factor. Then a backend leaves, and comes back.

use std::sync::Arc;

use lookaside::catalog::Candidate;
use lookaside::policy::hash::{hash, pair};
use lookaside::policy::key_loads::KeyLoads;
use lookaside::policy::rendezvous::choose;

use super::super::chance::Chance;
use super::super::goals::{Goal, Must};
use super::{Scale, max_over_mean, mean};

const SCENE: &str = "keys";
const KEYS: usize = 1_000;
const BACKENDS: usize = 10;
/// In percent.
const FACTOR: u32 = 125;
/// The minutes in which demand moves.
const MINUTES: usize = 60;

/// Some keys with their loads, and where they are.
struct World {
    backends: Arc<Vec<Candidate>>,
    keys: Vec<(u64, f64)>,
    loads: KeyLoads,
}

/// The figures of one run.
#[derive(Default)]
struct Outcome {
    unbounded: f64,
    bounded: f64,
    /// The part of the keys that are not at their first choice.
    moved: f64,
    /// How many keys move in a minute while demand moves, in percent of the keys.
    restless: f64,
    /// Max/mean while demand moves.
    moving: f64,
    /// How many keys move when a backend leaves, as a multiple of its part.
    leaving: f64,
}

pub(super) fn run(scale: Scale) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (what, zipf, bound, most) in [("even load", 0.0, 1.26, 1.2), ("Zipf 1", 1.0, f64::NAN, 1.7)]
    {
        let all: Vec<Outcome> = scale.seeds().map(|seed| simulate(zipf, seed)).collect();
        let figure = |of: fn(&Outcome) -> f64| mean(all.iter().map(of));
        let limit = |most: f64| if most.is_nan() { Must::Reported } else { Must::AtMost(most) };
        for (more, measured, must) in [
            ("max/mean without a bound", figure(|one| one.unbounded), Must::Reported),
            ("max/mean with 125 %", figure(|one| one.bounded), limit(bound)),
            ("keys that are not at their first choice, %", figure(|one| one.moved), Must::Reported),
            ("demand moves by 20 %: max/mean", figure(|one| one.moving), limit(bound + 0.04)),
            (
                "the same: keys that move in a minute, %",
                figure(|one| one.restless),
                Must::AtMost(1.0),
            ),
            (
                "a backend leaves: keys that move, of its own",
                figure(|one| one.leaving),
                Must::AtMost(most),
            ),
        ] {
            goals.push(Goal::new(SCENE, format!("{what}: {more}"), measured, must));
        }
    }
    goals
}

impl World {
    fn new(zipf: f64, seed: u64, chance: &mut Chance) -> Self {
        let id = |kind: &str, at: usize| pair(seed, hash(format!("{kind}-{at}").as_bytes()));
        let one = |at| Candidate { endpoint: 0, id: id("backend", at), weight: 1 };
        let backends = Arc::new((0..BACKENDS).map(one).collect::<Vec<_>>());
        let load = |at: usize| ((at + 1) as f64).powf(-zipf);
        let mut keys: Vec<(u64, f64)> = (0..KEYS).map(|at| (id("key", at), load(at))).collect();
        // The order in which keys come into use.
        keys.sort_by_cached_key(|_| chance.unit().to_bits());
        let mut loads = KeyLoads::default();
        loads.update(&backends, FACTOR);
        keys.iter().for_each(|&(key, load)| loads.join(key, load));
        let mut world = Self { backends, keys, loads };
        world.rest();
        world
    }

    fn rest(&mut self) {
        let _ = (0..20).any(|_| !self.loads.rebalance());
    }

    /// Returns the place of the backend of each key.
    fn places(&mut self) -> Vec<u64> {
        let Self { backends, keys, loads } = self;
        let first = |key| choose(key, backends).map_or(0, |at| backends[at].id);
        keys.iter().map(|&(key, _)| loads.moved_to(key).unwrap_or_else(|| first(key))).collect()
    }

    fn ratio(&self, places: &[u64]) -> f64 {
        let load = |one: &Candidate| -> f64 {
            let own = self.keys.iter().zip(places).filter(|(_, at)| **at == one.id);
            own.map(|(key, _)| key.1).sum()
        };
        max_over_mean(&self.backends.iter().map(load).collect::<Vec<_>>())
    }
}

fn simulate(zipf: f64, seed: u64) -> Outcome {
    let mut chance = Chance::new(seed);
    let mut world = World::new(zipf, seed, &mut chance);
    let first: Vec<u64> = world
        .keys
        .iter()
        .map(|&(key, _)| choose(key, &world.backends).map_or(0, |at| world.backends[at].id))
        .collect();
    let places = world.places();
    let differ = |a: &[u64], b: &[u64]| a.iter().zip(b).filter(|(a, b)| a != b).count() as f64;
    let mut outcome = Outcome {
        unbounded: world.ratio(&first),
        bounded: world.ratio(&places),
        moved: 100.0 * differ(&places, &first) / KEYS as f64,
        ..Outcome::default()
    };
    let mut before = places;
    for _ in 0..MINUTES {
        for (key, load) in &mut world.keys {
            let new = *load * (0.2 / 5.0_f64.sqrt() * chance.normal()).exp();
            world.loads.add(*key, new - *load);
            *load = new;
        }
        world.loads.rebalance();
        let after = world.places();
        outcome.restless += 100.0 * differ(&before, &after) / KEYS as f64 / MINUTES as f64;
        outcome.moving += world.ratio(&after) / MINUTES as f64;
        before = after;
    }
    world.rest();
    let before = world.places();
    let gone = world.backends[0].id;
    let own = before.iter().filter(|&&at| at == gone).count() as f64;
    world.backends = Arc::new(world.backends[1..].to_vec());
    world.loads.update(&world.backends, FACTOR);
    world.rest();
    let after = world.places();
    outcome.leaving = differ(&before, &after) / own.max(1.0);
    outcome
}
