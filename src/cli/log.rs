//! Sets up logging.
//!
//! In: a filter and a format. Out: log lines on standard error; standard output is for
//! results. A log entry is always one line, and its values never control the terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::file::Sources;
use crate::model::text;
use crate::telemetry::audit::TARGET;

use super::audit_file::AuditFile;

/// Flags for logging.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LogArgs {
    /// Log level: error, warn, info, debug, trace, off, or one per module (lookaside::dns=debug)
    /// [default: info; for demo, check and settings warn]
    #[arg(long, global = true, value_name = "FILTER", env = "LOOKASIDE_LOG")]
    log: Option<String>,
    /// Format of log lines: text or json
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        env = "LOOKASIDE_LOG_FORMAT"
    )]
    log_format: String,
}

/// Writes lines of JSON to standard error, with control characters escaped.
struct JsonLines(io::Stderr);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl LogArgs {
    /// Takes over the values in the file of settings.
    pub(super) fn complete(&mut self, sources: &Sources) {
        let (log, format) = sources.log.clone();
        self.log = log.or(self.log.take());
        self.log_format = format.unwrap_or_else(|| std::mem::take(&mut self.log_format));
    }

    /// Starts logging. `usual` is the filter if none is given. Lines about changes go to
    /// `audit` too, whatever the filter says.
    ///
    /// # Errors
    /// Returns a message if the filter or the format is invalid.
    pub(super) fn start(&self, usual: &str, audit: Option<AuditFile>) -> Result<(), String> {
        let text = self.log.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or(usual);
        let (filter, unknown) = filter(text)?;
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(colours(io::stderr().is_terminal(), |name| std::env::var_os(name)))
            .with_writer(io::stderr)
            // Such messages would panic if standard error is closed.
            .log_internal_errors(false);
        let lines = match self.log_format.as_str() {
            "text" => lines.fmt_fields(debug_fn(field).delimited(" ")).boxed(),
            "json" => lines.json().with_writer(|| JsonLines(io::stderr())).boxed(),
            other => return Err(format!("--log-format: {other:?} is neither text nor json")),
        };
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
        match audit {
            None => subscriber.init(),
            Some(file) => {
                let lines = tracing_subscriber::fmt::layer().json().with_ansi(false);
                let lines = lines.with_writer(move || file.clone()).log_internal_errors(false);
                let about_changes = filter_fn(|line| line.target() == TARGET);
                subscriber.with(lines.with_filter(about_changes)).init();
            }
        }
        for module in unknown {
            let remedy = "name a module of lookaside or a library, as in info,lookaside::dns=debug";
            tracing::warn!(module, remedy, "--log names a module that writes no line");
        }
        Ok(())
    }
}

/// Parses a filter. Returns it with the modules in it that do not exist. Unlike `EnvFilter`,
/// it rejects a single word that is neither a level nor `lookaside`.
fn filter(text: &str) -> Result<(EnvFilter, Vec<String>), String> {
    let wrong = |what: &str| {
        format!(
            "--log: {text:?}: {what}: expected a level ({}) or MODULE=LEVEL, separated by commas, \
             as in info,lookaside::dns=debug",
            LEVELS.join(", ")
        )
    };
    let level = |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    // A filter for spans (in brackets) may contain commas; `EnvFilter` alone checks it.
    let directives = if text.contains('[') { Vec::new() } else { text.split(',').collect() };
    let mut unknown = Vec::new();
    for directive in directives {
        let directive = directive.trim();
        let module = match directive.rsplit_once('=') {
            None if level(directive) => continue,
            None if directive == "lookaside" || directive.contains("::") => directive,
            None => return Err(wrong(&format!("{directive:?} is no level"))),
            Some(("", _)) => {
                return Err(wrong(&format!("{directive:?} names no module")));
            }
            Some((_, said)) if !level(said) => {
                return Err(wrong(&format!("{said:?} is no level")));
            }
            Some((module, _)) => module,
        };
        if !is_known(module) {
            unknown.push(module.to_owned());
        }
    }
    let mut rules = if text.contains('[') { text.to_owned() } else { text.replace(' ', "") };
    if !unknown.is_empty() {
        // A filter of only such names would also hide the warning about them.
        rules.push_str(concat!(",", module_path!(), "=warn"));
    }
    let filter = EnvFilter::try_new(&rules).map_err(|error| wrong(&error.to_string()))?;
    Ok((filter, unknown))
}

/// Returns whether a log line can come from this module. As in `EnvFilter`, the beginning
/// of a name suffices.
fn is_known(module: &str) -> bool {
    let crates = include_str!("../../Cargo.lock").lines();
    let crates = crates.filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let libraries = crates.filter(|name| *name != "lookaside").map(|name| name.replace('-', "_"));
    let own = include_str!("../lib.rs").lines();
    let own = own.filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let own = own.map(|name| format!("lookaside::{}", name.trim_end_matches(';')));
    let holds = |name: &str| module.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    module == TARGET || libraries.chain(own).any(|name| name.starts_with(module) || holds(&name))
}

/// Returns whether lines have colours: on a terminal that supports them, unless `NO_COLOR`
/// is set (<https://no-color.org>).
fn colours(terminal: bool, env: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let unwanted = env("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !unwanted && env("TERM").is_none_or(|term| term != "dumb")
}

/// Writes one field as `tracing_subscriber` does, with control characters escaped.
fn field(
    writer: &mut Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    let value = text::shown(&format!("{value:?}"));
    match field.name().trim_start_matches("r#") {
        // The `log` crate's fields about the origin of a line repeat its metadata.
        name if name.starts_with("log.") => Ok(()),
        "message" => writer.write_str(&value),
        name if writer.has_ansi_escapes() => {
            write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}")
        }
        name => write!(writer, "{name}={value}"),
    }
}

impl Write for JsonLines {
    /// Writes a whole line: the subscriber calls this once for each line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (json, end) = text.strip_suffix('\n').map_or((&*text, ""), |json| (json, "\n"));
        self.0.write_all(format!("{}{end}", text::shown_json(json)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_filter_nothing_are_refused() {
        for good in ["info", "WARN", "off", "lookaside::dns=debug", "info,lookaside::dns=debug"] {
            assert!(filter(good).is_ok(), "{good}: {:?}", filter(good));
        }
        for good in ["lookaside", "lookaside::dns", "warn, hyper=info", "lookaside[span]=warn"] {
            assert!(filter(good).is_ok(), "{good}: {:?}", filter(good));
        }
        for bad in ["nonsense=", "inof", "=debug", "info,", "lookaside=loud", "a=b=c", ","] {
            let problem = filter(bad).expect_err(bad);
            assert!(problem.starts_with(&format!("--log: {bad:?}: ")), "{problem}");
        }
    }

    #[test]
    fn a_module_that_there_is_not_is_noticed() {
        let unknown = |text: &str| filter(text).map(|(_, unknown)| unknown.join(" "));
        for good in [
            "info",
            "audit=off",
            "lookaside",
            "look=debug",
            "lookaside::dns=debug",
            "lookaside_http2=debug",
        ] {
            assert_eq!(unknown(good).as_deref(), Ok(""), "{good}");
        }
        for good in
            ["h2=info,hyper=warn,hyper_util::client=off", "tower=off, tonic=info, rustls::x"]
        {
            assert_eq!(unknown(good).as_deref(), Ok(""), "{good}");
        }
        assert_eq!(unknown("nonsense=debug").as_deref(), Ok("nonsense"));
        let several = "info, lookaside::dsn=debug,h2=off,hyper-util=off, lookasides=warn";
        assert_eq!(unknown(several).as_deref(), Ok("lookaside::dsn hyper-util lookasides"));
    }

    #[test]
    fn colours_are_for_terminals_whose_owners_want_them() {
        let env = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| std::ffi::OsString::from(value))
            }
        };
        assert!(colours(true, env(&[])));
        assert!(colours(true, env(&[("NO_COLOR", ""), ("TERM", "xterm")])));
        assert!(!colours(false, env(&[])));
        assert!(!colours(true, env(&[("NO_COLOR", "1")])));
        assert!(!colours(true, env(&[("TERM", "dumb")])));
    }
}
