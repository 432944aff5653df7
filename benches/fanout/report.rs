//! The measured values, as tables and JSON.
//!
//! In: values, each with the cell that it belongs to; the goals. Out: Markdown and JSON.
//! Ratios are computed within a round, so that a disturbance of the machine affects both
//! sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::client::Manner;
use super::goals::Goal;
use super::server::Kind;

/// Names a measured value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) scene: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) manner: Manner,
    pub(crate) clients: usize,
    pub(crate) entries: usize,
    pub(crate) server: Kind,
}

/// All values of all rounds, in order.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rounds: BTreeMap<Cell, Vec<f64>>,
}

/// A value with its spread over the rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Report {
    pub(crate) fn add(&mut self, cell: Cell, value: f64) {
        let Cell { scene, metric, manner, clients, entries, server } = &cell;
        let manner = manner.name();
        println!(
            "  {scene:<8} {clients:>5} x {entries:<4} {manner:<7} {server:<13} {metric:<21} {value:>10.2}"
        );
        self.rounds.entry(cell).or_default().push(value);
    }

    pub(crate) fn spread(&self, cell: &Cell) -> Option<Spread> {
        Spread::of(self.rounds.get(cell)?.clone())
    }

    /// Returns one cell over another, round by round.
    pub(crate) fn ratio(&self, cell: &Cell, to: &Cell) -> Option<Spread> {
        let pairs = self.rounds.get(cell)?.iter().zip(self.rounds.get(to)?);
        Spread::of(pairs.filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect())
    }

    /// Returns every value: a table for each scene, with a column for each server.
    pub(crate) fn tables(&self) -> String {
        let scenes: BTreeSet<_> = self.rounds.keys().map(|cell| cell.scene).collect();
        scenes.into_iter().map(|scene| self.table(scene)).collect()
    }

    /// Adds what a former run measured, as its JSON says, of every scene that this run left
    /// out.
    pub(crate) fn keep(&mut self, former: &Value) {
        let scenes: BTreeSet<_> = self.rounds.keys().map(|cell| cell.scene).collect();
        for one in former["measured"].as_array().into_iter().flatten() {
            let number = |name: &str| usize::try_from(one[name].as_u64()?).ok();
            // There are some hundred cells in a run, which ends soon.
            let text = |name: &str| Some(&*one[name].as_str()?.to_owned().leak());
            let cell = || {
                Some(Cell {
                    scene: text("scene").filter(|scene| !scenes.contains(scene))?,
                    metric: text("metric")?,
                    manner: Manner::named(text("manner")?)?,
                    clients: number("clients")?,
                    entries: number("entries")?,
                    server: Kind::named(text("server")?)?,
                })
            };
            let rounds = one["rounds"].as_array().into_iter().flatten().filter_map(Value::as_f64);
            if let Some(cell) = cell() {
                self.rounds.insert(cell, rounds.collect());
            }
        }
    }

    pub(crate) fn json(&self, goals: &[Goal]) -> Value {
        let cell = |(cell, rounds): (&Cell, &Vec<f64>)| {
            json!({
                "scene": cell.scene,
                "metric": cell.metric,
                "manner": cell.manner.name(),
                "clients": cell.clients,
                "entries": cell.entries,
                "server": cell.server.to_string(),
                "rounds": rounds,
            })
        };
        let goal = |goal: &Goal| {
            let Spread { least, median, most } = goal.found;
            json!({
                "what": goal.what, "must": goal.must.to_string(), "met": goal.is_met(),
                "least": least, "median": median, "most": most,
            })
        };
        json!({
            "measured": self.rounds.iter().map(cell).collect::<Vec<_>>(),
            "goals": goals.iter().map(goal).collect::<Vec<_>>(),
        })
    }

    fn table(&self, scene: &str) -> String {
        let cells = || self.rounds.keys().filter(|cell| cell.scene == scene);
        let servers: BTreeSet<_> = cells().map(|cell| cell.server).collect();
        let rows: BTreeSet<_> =
            cells().map(|cell| Cell { server: Kind::Limit, ..cell.clone() }).collect();
        let unit = match scene {
            "growth" | "start" | "loss" => "services",
            "probes" => "in doubt",
            _ => "clients",
        };
        let mut text = format!("\n### {scene}\n\n| | {unit} × entries |");
        servers.iter().for_each(|server| text += &format!(" {server} |"));
        text += &format!("\n|---|---|{}\n", "---|".repeat(servers.len()));
        for row in rows {
            let manner = if row.manner == Manner::Grpc { ", as grpc-go" } else { "" };
            let Cell { metric, clients, entries, .. } = &row;
            let _ = write!(text, "| {metric}{manner} | {clients} × {entries} |");
            for &server in &servers {
                let cell = Cell { server, ..row.clone() };
                let found = self.spread(&cell).map_or(String::new(), |found| found.to_string());
                // The limit keeps nothing for its clients, so only costs in time can be compared.
                let compares = metric.starts_with("cpu") || metric.ends_with(" ms");
                let compares = compares && !server.is_limit();
                let limit = Cell { server: server.limit(), ..row.clone() };
                let ratio = self.ratio(&cell, &limit).filter(|_| compares);
                let ratio = ratio.map_or(String::new(), |ratio| format!("; **×{ratio}**"));
                let _ = write!(text, " {found}{ratio} |");
            }
            text.push('\n');
        }
        text
    }
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        // The median of an even number of values lies between the two in the middle.
        let median = values[(values.len() - 1) / 2].midpoint(values[values.len() / 2]);
        Some(Self { least, median, most })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { least, median, most } = *self;
        write!(f, "{}", short(median))?;
        if least < most { write!(f, " ({}–{})", short(least), short(most)) } else { Ok(()) }
    }
}

/// Returns the value that this percentage of the values does not exceed. `values` must
/// not be empty.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100) - 1]
}

/// Formats a value with three digits, or with all digits before the point.
fn short(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
