//! The conformance matrix: runs every client of grpclb and of xDS through one list of
//! cases, against the real program, real etcd and real DNS.
//!
//! In: the clients and the cases. Out: a test for each pair, and the table of all.
//! Each cell is a test, named `CLIENT/CASE`: `cargo test --test interop python/` runs a
//! column, `xds-` all columns of xDS, and `/weights` a row. A cell that shows several cases
//! has the names of all. A complete run writes the table to `target/interop.md`; `make
//! interop` shows it.
#![allow(missing_docs, unreachable_pub)]

mod support;

#[path = "interop/cases.rs"]
mod cases;
#[path = "interop/report.rs"]
mod report;
#[path = "interop/tls.rs"]
mod tls;
#[path = "xds.rs"]
mod xds;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use cases::{CASES, Case, Shown};
use report::{Column, Table};
use support::client::{Driver, Unsupported};
use support::etcd::Etcd;
use support::language::{Language, XDS_CPP, XDS_GO, XDS_JAVA, XDS_NODE, XDS_PYTHON, XDS_RUST};
use support::world::World;
use xds::Scene;

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

/// A column: a language with one protocol.
#[derive(Debug, Clone, Copy)]
struct Client {
    name: &'static str,
    language: Language,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Grpclb,
    Xds,
}

/// The clients of xDS.
const XDS: [(&str, Language); 6] = [
    ("xds-go", XDS_GO),
    ("xds-java", XDS_JAVA),
    ("xds-python", XDS_PYTHON),
    ("xds-cpp", XDS_CPP),
    ("xds-node", XDS_NODE),
    ("xds-rust", XDS_RUST),
];

/// A run of one client, and the cases that it shows.
#[derive(Debug, Clone)]
struct Cell {
    client: Client,
    column: usize,
    /// The case whose function runs.
    row: usize,
    /// That case, and others that its function shows too.
    rows: Vec<usize>,
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
    let clients: Vec<_> = Client::all().collect();
    let cells = cells(&clients);
    let matrix = Arc::new(Matrix::default());
    let trials = cells.iter().map(|cell| {
        let (cell, matrix) = (cell.clone(), matrix.clone());
        Trial::ignorable_test(cell.name(), move || matrix.try_cell(cell))
    });
    let conclusion = libtest_mimic::run(&args, trials.collect());
    let outcomes = std::mem::take(&mut *lock(&matrix.outcomes));
    if outcomes.len() == cells.len() {
        let table = table(&clients, outcomes);
        println!("{}", table.text());
        std::fs::write(report::path(), table.markdown()).expect("target/ can be written");
    }
    // Dropping it stops etcd; `exit` would leave etcd running.
    drop(matrix);
    if conclusion.has_failed() {
        std::process::exit(101);
    }
}

/// Returns what is to run: row by row, so that cells that wait for the same timers wait
/// together.
fn cells(clients: &[Client]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (row, case) in CASES.iter().enumerate() {
        for (column, &client) in clients.iter().enumerate() {
            let shown = |other: &Case| client.shown_in(other) == Some(case.name);
            let rows: Vec<_> = (0..CASES.len()).filter(|&row| shown(&CASES[row])).collect();
            if rows.contains(&row) {
                cells.push(Cell { client, column, row, rows });
            } else {
                let why = "a case is shown in one that does not run";
                assert!(rows.is_empty(), "{}: {}: {why}", client.name, case.name);
            }
        }
    }
    cells
}

fn table(clients: &[Client], outcomes: Vec<(Cell, Outcome)>) -> Table {
    let names = CASES.iter().map(|case| case.name).collect();
    let mut table = Table::new(clients.iter().map(Client::column).collect(), names);
    for (column, client) in clients.iter().enumerate() {
        for (row, case) in CASES.iter().enumerate() {
            if let Some(why) = client.not_shown(case) {
                table.fill(row, column, Outcome::NotApplicable(why.to_owned()));
            }
        }
    }
    for (cell, outcome) in outcomes {
        cell.rows.iter().for_each(|&row| table.fill(row, cell.column, outcome.clone()));
    }
    table
}

impl Client {
    fn all() -> impl Iterator<Item = Self> {
        let grpclb = |language: Language| (language.name, language, Protocol::Grpclb);
        let xds = XDS.map(|(name, language)| (name, language, Protocol::Xds));
        let all = Language::all().map(grpclb).chain(xds);
        all.map(|(name, language, protocol)| Self { name, language, protocol })
    }

    /// Returns the version, or why it cannot run here.
    fn column(&self) -> Column {
        let version = match self.language.obstacle() {
            Some(obstacle) => Err(obstacle),
            None => Ok(Driver::start(&self.language).version()),
        };
        Column { client: self.name, version }
    }

    /// Returns why this client does not show a case.
    fn not_shown(&self, case: &Case) -> Option<&'static str> {
        match (self.protocol, &case.grpclb, &case.xds) {
            (Protocol::Grpclb, Shown::Not(why), _) | (Protocol::Xds, _, Shown::Not(why)) => {
                Some(*why)
            }
            (Protocol::Grpclb, ..) => None,
            (Protocol::Xds, ..) => case.lacking(&self.language),
        }
    }

    /// Returns the case in whose cell this client shows a case.
    fn shown_in(&self, case: &Case) -> Option<&'static str> {
        if self.not_shown(case).is_some() {
            return None;
        }
        match (self.protocol, &case.grpclb, &case.xds) {
            (Protocol::Grpclb, Shown::In(other), _) | (Protocol::Xds, _, Shown::In(other)) => {
                Some(*other)
            }
            _ => Some(case.name),
        }
    }
}

impl Cell {
    fn name(&self) -> String {
        let names: Vec<_> = self.rows.iter().map(|&row| CASES[row].name).collect();
        format!("{}/{}", self.client.name, names.join(" + "))
    }
}

impl Matrix {
    fn try_cell(&self, cell: Cell) -> Result<Completion, Failed> {
        let outcome = match cell.client.language.obstacle() {
            Some(obstacle) => Outcome::Skipped(obstacle),
            None => self.run(&cell),
        };
        lock(&self.outcomes).push((cell.clone(), outcome.clone()));
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

    fn run(&self, cell: &Cell) -> Outcome {
        let Case { grpclb, xds, .. } = &CASES[cell.row];
        let language = cell.client.language;
        match (cell.client.protocol, grpclb, xds) {
            (Protocol::Grpclb, &Shown::By(case), _) => {
                let etcd = self.etcd();
                run(move || {
                    let world = World::new(etcd, &language);
                    case(&world, &world.driver());
                })
            }
            (Protocol::Xds, _, &Shown::By(case)) => run(move || case(&Scene::start(language))),
            _ => unreachable!("{} has no function", CASES[cell.row].name),
        }
    }

    fn etcd(&self) -> Arc<Etcd> {
        lock(&self.etcd).get_or_insert_with(|| Arc::new(Etcd::start())).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a case on a thread of its own, for at most [`LIMIT`].
fn run(case: impl FnOnce() + Send + 'static) -> Outcome {
    let (outcome_tx, outcome_rx) = sync_channel(1);
    std::thread::spawn(move || {
        let ran = catch_unwind(AssertUnwindSafe(case));
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
