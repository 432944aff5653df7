//! The conformance matrix: every client that has grpclb, through the same list
//! of cases, against the real program, real etcd and real DNS.
//!
//! `make interop` runs it alone and shows the table; `LOOKASIDE_INTEROP` with a
//! part of `LANGUAGE/CASE` runs some cells only: `python/`, `/weights`.
#![allow(missing_docs, unreachable_pub)]

mod support;

#[path = "interop/cases.rs"]
mod cases;
#[path = "interop/report.rs"]
mod report;
#[path = "interop/tls.rs"]
mod tls;
#[path = "interop/world.rs"]
mod world;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cases::{CASES, Case};
use report::{Column, Table};
use support::client::{Driver, Unsupported};
use support::etcd::Etcd;
use support::language::Language;
use world::World;

/// What came of one case with one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed(String),
    /// The client lacks what the case needs.
    NotApplicable(String),
    /// This machine lacks it.
    Skipped(String),
}

/// What a case ends with that cannot run on this machine.
pub struct Skipped(pub String);

/// Ends the case.
pub fn skipped(reason: Skipped) -> ! {
    panic_any(reason)
}

/// Cells at a time. They mostly wait, for clients' timers above all.
const SIDE_BY_SIDE: usize = 6;
/// A case has waits of its own, each bounded; this bounds their sum.
const LIMIT: Duration = Duration::from_secs(300);

thread_local! {
    /// What a case's own thread last said of a panic, with its place.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Cell {
    language: Language,
    column: usize,
    row: usize,
    number: u16,
}

#[test]
fn every_client_passes_every_case() {
    let selected = std::env::var("LOOKASIDE_INTEROP").unwrap_or_default();
    let chosen = |language: &Language, case: &Case| {
        format!("{}/{}", language.name, case.name).contains(&selected)
    };
    say_where_cases_panic();
    take_every_descriptor();
    let languages: Vec<_> = Language::all()
        .filter(|language| CASES.iter().any(|case| chosen(language, case)))
        .collect();
    let columns: Vec<_> = languages.iter().map(column).collect();
    let mut table = Table::new(columns, CASES.iter().map(|case| case.name).collect());
    let mut cells = VecDeque::new();
    // Case by case, so that what waits for the same timers waits together.
    for (row, case) in CASES.iter().enumerate() {
        for (column, language) in languages.iter().enumerate() {
            if chosen(language, case) && table.obstacle(column).is_none() {
                let number = u16::try_from(1 + row * languages.len() + column).expect("few cells");
                cells.push_back(Cell { language: *language, column, row, number });
            }
        }
    }
    let etcd = Arc::new(Etcd::start());
    let (cells, filled) = (Mutex::new(cells), Mutex::new(&mut table));
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(cell) = next(&cells) {
                    let begun = Instant::now();
                    let outcome = run(&cell, &etcd);
                    let (name, language) = (CASES[cell.row].name, cell.language.name);
                    let seconds = begun.elapsed().as_secs_f32();
                    // Among two hundred that passed nobody would find it.
                    if !matches!(outcome, Outcome::Passed) {
                        eprintln!("{language}/{name}: {outcome:?} ({seconds:.1} s)");
                    }
                    filled.lock().expect("no holder panics").fill(cell.row, cell.column, outcome);
                }
            });
        }
    });
    println!("{}", table.text());
    // A part of it is nobody's table.
    if selected.is_empty() {
        std::fs::write(report::path(), table.markdown()).expect("target/ can be written");
    }
    let failures = table.failures();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for (name, reason) in table.skipped() {
        support::skip(&format!("interop: {name}"), &reason);
    }
}

/// Builds what the language needs and asks for its version.
fn column(language: &Language) -> Column {
    let version = match language.obstacle() {
        Some(obstacle) => Err(obstacle),
        None => Ok(Driver::start(language).version()),
    };
    Column { language: language.name, version }
}

/// Not inlined: a guard in a `while let` would be held for the whole turn.
fn next(cells: &Mutex<VecDeque<Cell>>) -> Option<Cell> {
    cells.lock().expect("no holder panics").pop_front()
}

fn run(cell: &Cell, etcd: &Arc<Etcd>) -> Outcome {
    let (outcome_tx, outcome_rx) = sync_channel(1);
    let (language, number, etcd) = (cell.language, cell.number, Arc::clone(etcd));
    let case = &CASES[cell.row];
    std::thread::spawn(move || {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let world = World::new(etcd, number, &language);
            let driver = Driver::start_with(&language, &world.resolver());
            (case.run)(&world, &driver);
        }));
        // Nobody waits any more where it took too long.
        let _ =
            outcome_tx.send(ran.map_or_else(|payload| outcome(&*payload), |()| Outcome::Passed));
    });
    outcome_rx
        .recv_timeout(LIMIT)
        .unwrap_or_else(|_| Outcome::Failed(format!("not over after {} s", LIMIT.as_secs())))
}

/// What a panic of this thread's means.
fn outcome(payload: &(dyn std::any::Any + Send)) -> Outcome {
    if let Some(Unsupported(what)) = payload.downcast_ref() {
        return Outcome::NotApplicable(what.clone());
    }
    if let Some(Skipped(why)) = payload.downcast_ref() {
        return Outcome::Skipped(why.clone());
    }
    Outcome::Failed(LAST_PANIC.take())
}

/// Payloads do not say where they come from; the hook does.
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

/// A thousand backends are as many connections, here and in the drivers, which
/// inherit the limit.
fn take_every_descriptor() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit anyone may");
}
