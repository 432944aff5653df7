//! The conformance matrix: runs every client that has grpclb through one list of
//! cases, against the real program, real etcd and real DNS.
//!
//! In: the languages and the cases. Out: a test for each pair, and the table of all.
//! Each cell is a test, named `LANGUAGE/CASE`: `cargo test --test interop python/`
//! runs a column, and `/weights` a row. A complete run writes the table to
//! `target/interop.md`; `make interop` shows it.
#![allow(missing_docs, unreachable_pub)]

mod support;

#[path = "interop/cases.rs"]
mod cases;
#[path = "interop/report.rs"]
mod report;
#[path = "interop/tls.rs"]
mod tls;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use cases::CASES;
use report::{Column, Table};
use support::client::{Driver, Unsupported};
use support::etcd::Etcd;
use support::language::Language;
use support::world::World;

/// The result of one case with one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed(String),
    /// The client lacks a feature that the case needs.
    NotApplicable(String),
    /// This machine lacks something that the case needs.
    Skipped(String),
}

/// The panic payload of a case that cannot run on this machine.
pub struct Skipped(pub String);

/// Ends the case as skipped.
pub fn skipped(reason: Skipped) -> ! {
    panic_any(reason)
}

/// How many cells run at a time, unless `--test-threads` is given. They mostly wait for
/// timers of clients.
const SIDE_BY_SIDE: usize = 6;
/// The longest time of a case. Each wait in a case has a bound; this bounds their sum.
const LIMIT: Duration = Duration::from_secs(300);

thread_local! {
    /// The last panic message of a case's own thread, with its place.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One case with one language.
#[derive(Debug, Clone, Copy)]
struct Cell {
    language: Language,
    column: usize,
    row: usize,
}

/// The parts that the cells share.
#[derive(Default)]
struct Matrix {
    etcd: Mutex<Option<Arc<Etcd>>>,
    outcomes: Mutex<Vec<(Cell, Outcome)>>,
}

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(SIDE_BY_SIDE);
    say_where_cases_panic();
    support::raise_open_files();
    let languages: Vec<_> = Language::all().collect();
    let matrix = Arc::new(Matrix::default());
    let mut trials = Vec::new();
    // Row by row, so that cells that wait for the same timers wait together.
    for row in 0..CASES.len() {
        for (column, &language) in languages.iter().enumerate() {
            let (cell, matrix) = (Cell { language, column, row }, matrix.clone());
            let name = cell.name();
            trials.push(Trial::ignorable_test(name, move || matrix.try_cell(cell)));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    let outcomes = std::mem::take(&mut *lock(&matrix.outcomes));
    if outcomes.len() == languages.len() * CASES.len() {
        let mut table = Table::new(
            languages.iter().map(column).collect(),
            CASES.iter().map(|case| case.name).collect(),
        );
        for (cell, outcome) in outcomes {
            table.fill(cell.row, cell.column, outcome);
        }
        println!("{}", table.text());
        std::fs::write(report::path(), table.markdown()).expect("target/ can be written");
    }
    // Dropping it stops etcd; `exit` would leave etcd running.
    drop(matrix);
    if conclusion.has_failed() {
        std::process::exit(101);
    }
}

impl Cell {
    fn name(&self) -> String {
        format!("{}/{}", self.language.name, CASES[self.row].name)
    }
}

impl Matrix {
    fn try_cell(&self, cell: Cell) -> Result<Completion, Failed> {
        let outcome = match cell.language.obstacle() {
            Some(obstacle) => Outcome::Skipped(obstacle),
            None => run(&cell, &self.etcd()),
        };
        lock(&self.outcomes).push((cell, outcome.clone()));
        match outcome {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::NotApplicable(why) => Ok(Completion::ignored_with(why)),
            Outcome::Failed(why) => Err(why.into()),
            Outcome::Skipped(why) => {
                support::skip(&format!("interop: {}", cell.name()), &why);
                Ok(Completion::Completed)
            }
        }
    }

    fn etcd(&self) -> Arc<Etcd> {
        lock(&self.etcd).get_or_insert_with(|| Arc::new(Etcd::start())).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the language's version, or why it cannot run here.
fn column(language: &Language) -> Column {
    let version = match language.obstacle() {
        Some(obstacle) => Err(obstacle),
        None => Ok(Driver::start(language).version()),
    };
    Column { language: language.name, version }
}

fn run(cell: &Cell, etcd: &Arc<Etcd>) -> Outcome {
    let (outcome_tx, outcome_rx) = sync_channel(1);
    let (language, etcd) = (cell.language, Arc::clone(etcd));
    let case = &CASES[cell.row];
    std::thread::spawn(move || {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let world = World::new(etcd, &language);
            (case.run)(&world, &world.driver());
        }));
        // The receiver is gone if the case took too long.
        let _ =
            outcome_tx.send(ran.map_or_else(|payload| outcome(&*payload), |()| Outcome::Passed));
    });
    outcome_rx
        .recv_timeout(LIMIT)
        .unwrap_or_else(|_| Outcome::Failed(format!("not over after {} s", LIMIT.as_secs())))
}

/// Returns the outcome that a panic of this thread means.
fn outcome(payload: &(dyn std::any::Any + Send)) -> Outcome {
    if let Some(Unsupported(what)) = payload.downcast_ref() {
        return Outcome::NotApplicable(what.clone());
    }
    if let Some(Skipped(why)) = payload.downcast_ref() {
        return Outcome::Skipped(why.clone());
    }
    Outcome::Failed(LAST_PANIC.take())
}

/// Installs a hook that stores a panic's place, because payloads do not contain it.
fn say_where_cases_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().is::<Unsupported>() || info.payload().is::<Skipped>() {
            return;
        }
        LAST_PANIC.set(info.to_string());
        usual(info);
    }));
}
