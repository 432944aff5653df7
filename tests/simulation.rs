//! Runs the real code in a simulated world: etcd, two balancers, backends and
//! clients. Network, time, chance and faults follow from a seed.
//!
//! In: seeds. Each seed is a test, such as `seed_00007`, and runs in a process of its own.
//! `LOOKASIDE_SEEDS` (`1000` or `5000..9000`) replaces the usual seeds. Out: the breaches of a
//! seed, with its plan. `LOOKASIDE_SEED=7` runs one seed and prints its whole history. The
//! tests `one_history_00007` run a seed twice; with `LOOKASIDE_SEEDS` they need
//! `--include-ignored`.

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
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/scenes.rs"]
mod scenes;
#[path = "simulation/streams.rs"]
mod streams;
#[path = "simulation/system.rs"]
mod system;
#[path = "simulation/world.rs"]
mod world;
#[path = "simulation/xds_client.rs"]
mod xds_client;
#[path = "simulation/zones.rs"]
mod zones;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write as _};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use lookaside::clock;
use rustix::time::{ClockId, clock_gettime};

use coverage::{Coverage, Scene};
use history::Record;
use plan::Plan;
use process::{Ended, Order};

/// The seeds that fit into a minute of CI.
const USUAL: Range<u64> = 0..120;
/// The seeds of which each run of the tests sees whether they are one history.
const TWICE: Range<u64> = 0..6;
/// Seeds that failed once. 778: the time of held backends ended while the registry was
/// stale. 124: etcd lost a registration and got it again in one millisecond. 5689: an xDS
/// stream was reset before the registry was read. 6481: zones that settings took away and gave
/// back had no demand for half a minute. 5001: a health check that connected late left no time
/// for the answer, which counted as that of a backend that hangs.
const FOUND: [u64; 5] = [124, 778, 5001, 5689, 6481];
/// How many seconds of processor time a seed may take before it counts as endless. It takes
/// about 2 s, however busy the machine is.
const ENDLESS: i64 = 60;
/// The number of failed seeds after which no more are run.
const FAILURES_MAX: usize = 5;

thread_local! {
    /// Panics in this thread, because the runtime catches the panics of tasks.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// How many seeds have failed.
static FAILURES: AtomicUsize = AtomicUsize::new(0);
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
    if let Some(order) = Order::given() {
        return show(order);
    }
    let given = std::env::var("LOOKASIDE_SEEDS").ok();
    let given = given.map(|text| range(&text).expect("LOOKASIDE_SEEDS is COUNT or FROM..TO"));
    let found = FOUND.into_iter().filter(|_| given.is_none());
    let mut trials: Vec<_> = given
        .clone()
        .unwrap_or(USUAL)
        .chain(found)
        .map(|seed| Trial::test(format!("seed_{seed:05}"), move || keeps_the_invariants(seed)))
        .collect();
    if system::CAN_BE_REPLACED {
        trials.extend(given.clone().unwrap_or(TWICE).map(|seed| {
            let name = format!("one_history_{seed:05}");
            Trial::test(name, move || is_one_history(seed)).with_ignored_flag(given.is_some())
        }));
    }
    if given.is_none() {
        // It comes last, because it waits for the seeds that run.
        trials.push(Trial::test("the_usual_seeds_reach_every_scene", reach_every_scene));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Runs a seed and fails if it breaches an invariant.
fn keeps_the_invariants(seed: u64) -> Result<(), Failed> {
    may_run()?;
    COVERAGE.begin(seed);
    let Ended { breaches, reached } = process::run(seed);
    COVERAGE.end(seed, reached);
    let Some(breaches) = breaches else { return Ok(()) };
    FAILURES.fetch_add(1, Ordering::Relaxed);
    say(&breaches);
    Err(breaches.into())
}

/// Fails if so many seeds have failed that no more are run.
fn may_run() -> Result<(), Failed> {
    match FAILURES.load(Ordering::Relaxed) {
        FAILURES_MAX.. => Err(format!("not run, because {FAILURES_MAX} seeds have failed").into()),
        _ => Ok(()),
    }
}

/// Fails if too few of the usual seeds reach a scene. Runs the seeds that no test has run.
fn reach_every_scene() -> Result<(), Failed> {
    may_run()?;
    for seed in USUAL.filter(|seed| COVERAGE.begin(*seed)) {
        COVERAGE.end(seed, process::run(seed).reached);
    }
    match COVERAGE.missing(USUAL) {
        few if few.is_empty() => Ok(()),
        few => Err(format!("too few seeds reach {few:?}").into()),
    }
}

/// Fails if two runs of a seed differ in anything.
fn is_one_history(seed: u64) -> Result<(), Failed> {
    process::difference(seed).map_or(Ok(()), |difference| Err(difference.into()))
}

/// Runs a seed in this process and prints what came of it.
fn show(Order { seed, whole }: Order) {
    system::replace(seed);
    std::thread::spawn(move || abort_if_endless(seed));
    let Ran { plan, breaches, reached, records } = run(seed);
    let mut text = String::new();
    if whole || !breaches.is_empty() {
        text += &plan.to_string();
    }
    text += &format!("  {}\n", process::line(&reached));
    if whole {
        // They differ between two runs if the system's are not replaced.
        let (clock, chance) = (clock::wall(), RandomState::new().hash_one(0));
        text += &format!("  at the end: clock {clock:?}, chance {chance:016x}\n");
        let line = |Record { at, what }: &Record| format!("  {at:>6} {what:?}\n");
        text.extend(records.iter().map(line));
    }
    if !breaches.is_empty() {
        text += &format!("see all: LOOKASIDE_SEED={seed}\n");
    }
    io::stdout().write_all(text.as_bytes()).expect("standard output takes it");
    if !breaches.is_empty() {
        say(&format!("seed {seed} fails:\n  {}", breaches.join("\n  ")));
        std::process::exit(101);
    }
}

/// Aborts the program if its seed does not end: simulated time stands still while a task spins.
fn abort_if_endless(seed: u64) {
    while clock_gettime(ClockId::ProcessCPUTime).tv_sec < ENDLESS {
        std::thread::sleep(Duration::from_secs(1));
    }
    say(&format!("seed {seed} does not end: a task spins"));
    std::process::abort();
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
