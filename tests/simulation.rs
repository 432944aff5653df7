//! Runs the real code in a simulated world: etcd, two balancers, backends and
//! clients. Network, time, chance and faults follow from a seed.
//!
//! In: seeds. Each seed is a test, such as `seed_00007`. `LOOKASIDE_SEEDS` (`1000` or
//! `5000..9000`) replaces the usual seeds. Out: the breaches of a seed, with its plan.
//! `LOOKASIDE_SEED=7` runs one seed and prints its whole history.

#![allow(missing_docs, unreachable_pub, reason = "tests document themselves")]

#[path = "simulation/agreement.rs"]
mod agreement;
#[path = "simulation/answers.rs"]
mod answers;
#[path = "simulation/backend.rs"]
mod backend;
#[path = "simulation/balancer.rs"]
mod balancer;
#[path = "simulation/behaviour.rs"]
mod behaviour;
#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/coverage.rs"]
mod coverage;
#[path = "simulation/crowd.rs"]
mod crowd;
#[path = "simulation/decisions.rs"]
mod decisions;
#[path = "simulation/etcd.rs"]
mod etcd;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/policies.rs"]
mod policies;
#[path = "simulation/policy_check.rs"]
mod policy_check;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/scenes.rs"]
mod scenes;
#[path = "simulation/streams.rs"]
mod streams;
#[path = "simulation/world.rs"]
mod world;
#[path = "simulation/xds_client.rs"]
mod xds_client;
#[path = "simulation/zones.rs"]
mod zones;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use coverage::{Coverage, Scene};
use history::{Record, What};
use plan::Plan;

/// The seeds that fit into a minute of CI.
const USUAL: Range<u64> = 0..120;
/// Seeds that failed once. 778: the time of held backends ended while the registry was
/// stale. 124: etcd lost a registration and got it again in one millisecond.
const FOUND: [u64; 2] = [124, 778];
/// How long a seed may run before it counts as endless. A seed takes about 2 s.
const ENDLESS: Duration = Duration::from_secs(120);
/// The number of failed seeds after which the program ends.
const FAILURES_MAX: usize = 5;

thread_local! {
    /// Panics in this thread, because the runtime catches the panics of tasks.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The seeds that are running, and when each began.
static RUNNING: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());
/// What the seeds have reached.
static COVERAGE: Coverage = Coverage::new();

/// The result of a seed.
struct Ran {
    plan: Plan,
    breaches: Vec<String>,
    reached: BTreeSet<Scene>,
    records: Vec<Record>,
}

fn main() {
    if let Ok(seed) = std::env::var("LOOKASIDE_SEED") {
        return show(seed.parse().expect("LOOKASIDE_SEED is a number"));
    }
    let seeds = match std::env::var("LOOKASIDE_SEEDS") {
        Ok(text) => range(&text).expect("LOOKASIDE_SEEDS is COUNT or FROM..TO"),
        Err(_) => USUAL,
    };
    std::thread::spawn(watch_for_endless_seeds);
    let mut trials: Vec<_> = seeds
        .chain(FOUND.into_iter().filter(|_| std::env::var_os("LOOKASIDE_SEEDS").is_none()))
        .map(|seed| Trial::test(format!("seed_{seed:05}"), move || keeps_the_invariants(seed)))
        .collect();
    trials.push(Trial::test("a_seed_is_one_history", || {
        (0..6).for_each(is_one_history);
        Ok(())
    }));
    if std::env::var_os("LOOKASIDE_SEEDS").is_none() {
        // It comes last, because it waits for the seeds that run.
        trials.push(Trial::test("the_usual_seeds_reach_every_scene", reach_every_scene));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Runs a seed and fails if it breaches an invariant.
fn keeps_the_invariants(seed: u64) -> Result<(), Failed> {
    static FAILURES: AtomicUsize = AtomicUsize::new(0);
    COVERAGE.begin(seed);
    let Ran { plan, breaches, reached, .. } = watched(seed);
    COVERAGE.end(seed, reached);
    if breaches.is_empty() {
        return Ok(());
    }
    let text = format!("{}\n{plan}see all: LOOKASIDE_SEED={seed}", breaches.join("\n  "));
    say(&format!("seed {seed} fails:\n  {text}"));
    if FAILURES.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES_MAX {
        say(&format!("{FAILURES_MAX} seeds failed: no more are run"));
        std::process::exit(101);
    }
    Err(text.into())
}

/// Fails if too few of the usual seeds reach a scene. Runs the seeds that no test has run.
fn reach_every_scene() -> Result<(), Failed> {
    for seed in USUAL.filter(|seed| COVERAGE.begin(*seed)) {
        COVERAGE.end(seed, watched(seed).reached);
    }
    match COVERAGE.missing(USUAL) {
        few if few.is_empty() => Ok(()),
        few => Err(format!("too few seeds reach {few:?}").into()),
    }
}

/// Runs a seed while [`watch_for_endless_seeds`] watches.
fn watched(seed: u64) -> Ran {
    lock_running().insert(seed, Instant::now());
    let ran = run(seed);
    lock_running().remove(&seed);
    ran
}

fn is_one_history(seed: u64) {
    let (mut first, mut second) = (run(seed).records, run(seed).records);
    for record in first.iter_mut().chain(&mut second) {
        // etcd numbers the changes of one moment in the order of the tasks that make them.
        if let What::Holds { revision, .. } = &mut record.what {
            *revision = 0;
        }
    }
    // Tokio wakes the tasks that wait for one value in an arbitrary order.
    first.sort();
    second.sort();
    let differ = first.iter().zip(&second).find(|(one, other)| one != other);
    assert_eq!(differ, None, "seed {seed}");
    assert_eq!(first.len(), second.len(), "seed {seed}");
}

/// Aborts the program if a seed does not end: simulated time stands still while a task
/// spins.
fn watch_for_endless_seeds() {
    loop {
        for (seed, began) in &*lock_running() {
            if began.elapsed() > ENDLESS {
                say(&format!("seed {seed} does not end: a task spins"));
                std::process::abort();
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn lock_running() -> std::sync::MutexGuard<'static, BTreeMap<u64, Instant>> {
    RUNNING.lock().expect("no holder panics")
}

/// Runs a seed.
fn run(seed: u64) -> Ran {
    catch_panics();
    let plan = Plan::new(seed);
    PANICS.take();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world::run(&plan)));
    let mut breaches: Vec<_> =
        PANICS.take().into_iter().map(|panic| format!("I5 panic: {panic}")).collect();
    let (reached, records) = match outcome {
        Ok(outcome) => {
            let (more, reached) = check::check(&plan, &outcome);
            breaches.extend(more);
            (reached, outcome.records)
        }
        Err(_) => Default::default(),
    };
    Ran { plan, breaches, reached, records }
}

fn show(seed: u64) {
    let Ran { plan, breaches, reached, records } = run(seed);
    println!("{plan}  reached: {reached:?}");
    for Record { at, what } in &records {
        println!("  {at:>6} {what:?}");
    }
    assert!(breaches.is_empty(), "seed {seed} fails:\n  {}", breaches.join("\n  "));
}

/// Prints at once rather than after the test, because thousands of seeds take long.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}\n");
}

/// Records every panic in [`PANICS`], including those in tasks.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            usual(info);
        }));
    });
}

fn range(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => Some(0..text.parse().ok()?),
    }
}
