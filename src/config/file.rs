//! A file of settings, as further arguments.
//!
//! In: TOML whose keys are named like the flags. Out: the arguments that say
//! the same, except for what flags or environment say already, or every
//! problem. One definition of each setting serves flags, environment and file.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use toml::{Table, Value};

/// The tables of operators' own formats; see `config::formats`.
const FORMATS: &str = "format";

/// The arguments that a file stands for, given the command that knows the
/// settings and what was said on its command line.
///
/// # Errors
/// All problems of the file.
pub fn arguments(
    file: &Path,
    command: &Command,
    said: &ArgMatches,
) -> Result<Vec<String>, Vec<String>> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| vec![format!("--config: cannot read {file:?}: {error}")])?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        vec![format!("--config: {file:?} is no TOML: {error}")]
    })?;
    let mut problems = Vec::new();
    let mut arguments = Vec::new();
    for (key, value) in &table {
        if let (FORMATS, Value::Table(formats)) = (key.as_str(), value) {
            arguments.extend(formats.iter().map(|(name, table)| format(name, table)));
            continue;
        }
        let known = |arg: &&clap::Arg| arg.get_long() == Some(key) && key != "config";
        let Some(arg) = command.get_arguments().find(known) else {
            problems.push(format!("--config: {file:?} has the setting {key:?}, which is unknown"));
            continue;
        };
        let source = said.value_source(arg.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        match values(value) {
            Some(values) => {
                arguments.extend(values.iter().map(|value| format!("--{key}={value}")));
            }
            None => problems.push(format!(
                "--config: {file:?} has {key:?} as {}: expected text, a number or a list of text",
                value.type_str()
            )),
        }
    }
    if problems.is_empty() { Ok(arguments) } else { Err(problems) }
}

/// `[format.NAME]` as an argument like the others.
fn format(name: &str, table: &Value) -> String {
    format!("--{FORMATS}={name}={}", serde_json::to_string(table).unwrap_or_default())
}

fn values(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
