//! A row of the table: a fault, the demands on the program, and the figures seen.
//!
//! In: figures and demands of a run. Out: a failed test if a demand is not met; under
//! `make soak`, also a line of the table in docs/reliability.md.

use std::fmt::{Debug, Display, Write as _};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::scale::Scale;

/// The figures and missed demands of one run. The run fills it.
pub struct Row {
    scale: Scale,
    seen: Vec<String>,
    missed: Vec<String>,
    clients: Option<usize>,
}

/// The factor by which a short run may exceed a time bound: it shares the machine,
/// and the program is not optimised.
const LENIENCE: u32 = 5;
/// The smallest time bound of a short run. A real fault exceeds it by far.
const LEAST: Duration = Duration::from_secs(10);

/// Rows that run at a time, however many tests run in parallel: each row delays what the
/// others measure.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

impl Row {
    /// Runs row `number` of the table. Panics if a demand is missed.
    #[track_caller]
    pub fn run(number: u32, fault: &str, must: &str, run: impl FnOnce(&mut Self, Scale)) {
        let waiting = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _permit = waiting.block_on(AT_ONCE.acquire()).expect("it is never closed");
        let scale = Scale::of_this_run();
        let mut row = Self { scale, seen: Vec::new(), missed: Vec::new(), clients: None };
        let ended = catch_unwind(AssertUnwindSafe(|| run(&mut row, scale)));
        if ended.is_err() {
            row.missed.push("it did not come to its end".to_owned());
        }
        println!("{fault}: {}", row.seen.join("; "));
        row.record(number, fault, must);
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
        assert!(row.missed.is_empty(), "{fault}: {:#?}\nseen: {:#?}", row.missed, row.seen);
    }

    /// Sets how many clients the row had.
    pub fn clients(&mut self, count: usize) {
        self.clients = Some(count);
    }

    /// Records a figure.
    pub fn saw(&mut self, what: impl Display) {
        self.seen.push(what.to_string());
    }

    /// Records a demand as missed if it does not hold.
    pub fn must(&mut self, holds: bool, what: impl Display) {
        if !holds {
            self.missed.push(what.to_string());
        }
    }

    /// Records a value and demands that it equals `wanted`.
    pub fn equal<T: PartialEq + Debug>(&mut self, what: &str, seen: T, wanted: T) {
        self.saw(format!("{what}: {seen:?}"));
        self.must(seen == wanted, format!("{what}: {seen:?}, not {wanted:?}"));
    }

    /// Records a duration and demands that it is at most `bound`, which a short run
    /// extends (see `LENIENCE` and `LEAST`).
    pub fn within(&mut self, what: &str, took: Duration, bound: Duration) {
        self.saw(format!("{what} {}", short(took)));
        let bound = self.scale.pick((bound * LENIENCE).max(LEAST), bound);
        self.must(took <= bound, format!("{what}: {took:?}, at most {bound:?}"));
    }

    /// Demands that an event happened within `bound`. `None` means that it never happened.
    pub fn happens_within(&mut self, what: &str, took: Option<Duration>, bound: Duration) {
        match took {
            Some(took) => self.within(what, took, bound),
            None => self.must(false, format!("{what}: never, at most {bound:?}")),
        }
    }

    /// Records a value and demands that it is at most `bound`. No leniency is added,
    /// because noise does not affect such values.
    pub fn at_most(&mut self, what: &str, seen: f64, bound: f64, unit: &str) {
        self.saw(format!("{what} {seen:.1}{unit}"));
        self.must(seen <= bound, format!("{what}: {seen:.1}{unit}, at most {bound:.1}{unit}"));
    }

    /// Records breaches of invariants as missed demands.
    pub fn breaches(&mut self, breaches: Vec<String>) {
        self.missed.extend(breaches);
    }

    fn record(&self, number: u32, fault: &str, must: &str) {
        let Some(path) = Scale::table() else { return };
        let mut seen = self.seen.join("; ");
        if !self.missed.is_empty() {
            write!(seen, "; **MISSED:** {}", self.missed.join("; ")).expect("a string takes it");
        }
        let clients = self.clients.map_or("—".to_owned(), |clients| clients.to_string());
        let verdict = if self.missed.is_empty() { "yes" } else { "**no**" };
        // The thread that runs a test has the test's name.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        let cell = |text: &str| text.replace('|', "/").replace('\n', " ");
        let line = format!(
            "{number:02}\t| {} | {} | {} | {clients} | {verdict} | `{test}` |\n",
            cell(fault),
            cell(must),
            cell(&seen)
        );
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the table can be written");
    }
}

/// Formats a duration for people.
pub fn short(time: Duration) -> String {
    match time {
        _ if time >= Duration::from_secs(10) => format!("{:.0} s", time.as_secs_f64()),
        _ if time >= Duration::from_secs(1) => format!("{:.1} s", time.as_secs_f64()),
        _ if time >= Duration::from_millis(10) => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
    }
}

/// Returns a percentile of values that are sorted from the shortest on.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

/// Formats sorted values such as `median 3 ms, p99 5 ms, longest 7 ms`.
pub fn spread(sorted: &[Duration]) -> String {
    let [median, p99, longest] = [50, 99, 100].map(|percent| short(percentile(sorted, percent)));
    format!("median {median}, p99 {p99}, longest {longest}")
}
