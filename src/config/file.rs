//! A file of settings, as further arguments.
//!
//! In: TOML whose keys are named like the flags. Out: the arguments that say
//! the same, except for what flags or environment say already, every problem
//! with its line and column, and where each setting stands. No problem hides
//! another or shows what may be a secret. One definition of each setting serves
//! flags, environment and file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::model::text::position;
use crate::settings::Document;
use crate::tables::{self, Problem};

/// What a file says.
#[derive(Debug, Clone, Default)]
pub struct FileSettings {
    /// Further arguments.
    pub arguments: Vec<String>,
    /// What is wrong in the file.
    pub problems: Vec<String>,
    /// All of it, and its tables of services.
    pub services: Option<(String, Arc<Document>)>,
    /// Where each setting stands (`FILE:LINE:COLUMN`), by its flag, or by
    /// `[format.NAME]`.
    places: BTreeMap<String, String>,
}

/// The tables of operators' own formats; see `config::formats`.
const FORMATS: &str = "format";

/// What a file says, given the whole command line's definition, the subcommand
/// that knows the settings, and what was said on its command line.
#[must_use]
pub fn read(file: &Path, whole: &Command, command: &Command, said: &ArgMatches) -> FileSettings {
    let mut settings = FileSettings::default();
    match std::fs::read_to_string(file) {
        Ok(text) => settings.take_in(&text, file, whole, command, said),
        Err(error) => {
            settings.problems.push(format!("--config: cannot read {file:?}: {error}"));
        }
    }
    settings
}

impl FileSettings {
    /// The problem with the place in the file that it comes from, if it does.
    #[must_use]
    pub fn located(&self, problem: String) -> String {
        let end = match problem.starts_with('[') {
            true => problem.find(']').map(|at| at + 1),
            false => problem.find([':', ' ']),
        };
        match end.and_then(|end| self.places.get(&problem[..end])) {
            Some(place) => format!("{place}: {problem}"),
            None => problem,
        }
    }

    fn take_in(
        &mut self,
        text: &str,
        file: &Path,
        whole: &Command,
        command: &Command,
        said: &ArgMatches,
    ) {
        let place = |span: Range<usize>| place(file, text, span);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut broken = Vec::new();
        if errors.is_empty() {
            match services(file, text) {
                Ok(document) => self.services = Some((text.to_owned(), document)),
                Err(problems) => self.problems.extend(problems),
            }
        }
        for error in errors {
            let span = error.span().unwrap_or_default();
            broken.push(position(text, span.start).0);
            let place = place(span);
            self.problems.push(format!("{place}: this is no TOML: {}", error.message()));
        }
        for (key, value) in table.into_inner() {
            let (line, _) = position(text, key.span().start);
            let place = place(key.span());
            let key = key.into_inner();
            // Read below, with all that belongs to it.
            if Document::has_key(&key) {
                continue;
            }
            if key == FORMATS && value.get_ref().is_table() {
                self.formats(value.into_inner(), file, text);
                continue;
            }
            let known = |name: &str| {
                let named = |arg: &&clap::Arg| arg.get_long() == Some(name) && name != FORMATS;
                whole.get_arguments().chain(command.get_arguments()).find(named)
            };
            let Some(arg) = known(&key).filter(|_| key != "config") else {
                if broken.contains(&line) {
                    // Told already, and perhaps the rest of a secret that was
                    // meant to be a value.
                    continue;
                }
                let dashed = key.replace('_', "-");
                let remedy = match known(&dashed) {
                    Some(_) if key == "config" => "a file cannot name another".to_owned(),
                    Some(_) => format!("write {dashed}"),
                    None => format!("settings are named like the flags of {}", command.get_name()),
                };
                self.problems.push(format!("{place}: {key:?} is no setting: {remedy}"));
                continue;
            };
            let source = said.value_source(arg.get_id().as_str());
            if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
                continue;
            }
            match values(value.get_ref()) {
                Some(values) => {
                    self.places.insert(format!("--{key}"), place);
                    let arguments = values.iter().map(|value| format!("--{key}={value}"));
                    self.arguments.extend(arguments);
                }
                None => self.problems.push(format!(
                    "{place}: {key} is {}: expected text, a whole number or a list of text",
                    value.get_ref().type_str()
                )),
            }
        }
    }

    /// `[format.NAME]`, each as an argument like the others.
    fn formats(&mut self, formats: DeValue<'_>, file: &Path, text: &str) {
        let DeValue::Table(formats) = formats else { return };
        for (name, table) in formats {
            let place = place(file, text, name.span());
            let name = name.into_inner();
            let json = serde_json::Value::deserialize(ValueDeserializer::from(table));
            let json = json.unwrap_or_default();
            self.places.insert(format!("[{FORMATS}.{name}]"), place);
            self.arguments.push(format!("--{FORMATS}={name}={json}"));
        }
    }
}

/// The tables of services in a file's text.
///
/// # Errors
/// Every problem of theirs, with its place.
pub(super) fn services(file: &Path, text: &str) -> Result<Arc<Document>, Vec<String>> {
    let located = |problem: Problem| format!("{}:{problem}", file.display());
    let (document, problems) = tables::parse(text, Document::within);
    document.map(Arc::new).ok_or_else(|| problems.into_iter().map(located).collect())
}

/// `FILE:LINE:COLUMN`, counted from one.
fn place(file: &Path, text: &str, span: Range<usize>) -> String {
    let (line, column) = position(text, span.start);
    format!("{}:{line}:{column}", file.display())
}

fn values(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::String(text) => Some(vec![text.to_string()]),
        DeValue::Integer(number) if number.radix() == 10 => Some(vec![number.as_str().to_owned()]),
        DeValue::Array(all) => {
            all.iter().map(|one| one.get_ref().as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}
