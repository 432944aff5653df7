//! The table of clients and cases.
//!
//! In: the outcome of each cell. Out: text for a terminal, and Markdown for documents.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// A client, with its version or why it cannot run here.
pub struct Column {
    pub client: &'static str,
    pub version: Result<String, String>,
}

/// A table with a row for each case and a column for each client. A cell that did not
/// run is empty.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<(&'static str, Vec<Option<Outcome>>)>,
}

/// Returns the file to which a complete run writes its table.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop.md")
}

impl Table {
    pub fn new(columns: Vec<Column>, cases: Vec<&'static str>) -> Self {
        let unrun = |column: &Column| column.version.clone().err().map(Outcome::Skipped);
        let row = |case| (case, columns.iter().map(unrun).collect());
        let rows = cases.into_iter().map(row).collect();
        Self { columns, rows }
    }

    pub fn fill(&mut self, row: usize, column: usize, outcome: Outcome) {
        self.rows[row].1[column] = Some(outcome);
    }

    /// Returns the table as text with aligned columns, and the reasons below it.
    pub fn text(&self) -> String {
        let (grid, notes) = self.grid();
        let width = |column: usize| grid.iter().map(|row| row[column].chars().count()).max();
        let mut text = String::from("\n");
        for row in &grid {
            for (column, cell) in row.iter().enumerate() {
                let width = width(column).unwrap_or(0);
                write!(text, "{cell:width$}  ").expect("a string takes it");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text + "\n" + &notes.join("\n")
    }

    /// Returns the table as Markdown, with the reasons below it.
    pub fn markdown(&self) -> String {
        let (grid, notes) = self.grid();
        let mut text = String::new();
        for (index, row) in grid.iter().enumerate() {
            writeln!(text, "| {} |", row.join(" | ")).expect("a string takes it");
            if index == 0 {
                writeln!(text, "|{}", "---|".repeat(row.len())).expect("a string takes it");
            }
        }
        for note in notes {
            write!(text, "\n{note}\n").expect("a string takes it");
        }
        text
    }

    /// Returns all cells as words, and the notes to which they refer by number.
    fn grid(&self) -> (Vec<Vec<String>>, Vec<String>) {
        let mut notes: Vec<String> = Vec::new();
        let mut head = vec!["case".to_owned()];
        head.extend(self.columns.iter().map(|Column { client, version }| match version {
            Ok(version) => format!("{client}: {version}"),
            Err(_) => (*client).to_owned(),
        }));
        let mut grid = vec![head];
        for (case, cells) in &self.rows {
            let mut row = vec![(*case).to_owned()];
            for cell in cells {
                let (word, note) = match cell {
                    None => ("", None),
                    Some(Outcome::Passed) => ("ok", None),
                    Some(Outcome::Failed(why)) => ("FAILED", Some(in_short(why))),
                    Some(Outcome::NotApplicable(why)) => ("n/a", Some(in_short(why))),
                    Some(Outcome::Skipped(why)) => ("skipped", Some(in_short(why))),
                };
                row.push(match note {
                    None => word.to_owned(),
                    Some(note) => {
                        let known = notes.iter().position(|known| *known == note);
                        let index = known.unwrap_or_else(|| {
                            notes.push(note);
                            notes.len() - 1
                        });
                        format!("{word} ({})", index + 1)
                    }
                });
            }
            grid.push(row);
        }
        let notes = notes.iter().enumerate().map(|(i, note)| format!("({}) {note}", i + 1));
        (grid, notes.collect())
    }
}

/// Returns a message on one line of at most 300 characters, without the line that says
/// where a panic happened.
fn in_short(why: &str) -> String {
    let said = why.lines().filter(|line| !line.starts_with("panicked at"));
    let line = said.map(str::trim).collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}
