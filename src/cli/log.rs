//! Where logs go, and which.
//!
//! In: a filter and a format. Out: lines on standard error; standard output is
//! for what was asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LogArgs {
    /// Which log lines: error, warn, info, debug, trace, or per module (lookaside::dns=debug)
    /// [default: info; for the demo warn]
    #[arg(long, global = true, value_name = "FILTER", env = "LOOKASIDE_LOG")]
    log: Option<String>,
    /// How log lines look: text or json
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        env = "LOOKASIDE_LOG_FORMAT"
    )]
    log_format: String,
}

impl LogArgs {
    /// Begins to log; `usual` is what is logged if nobody says.
    ///
    /// # Errors
    /// In words, when filter or format make no sense.
    pub(super) fn start(&self, usual: &str) -> Result<(), String> {
        let text = self.log.as_deref().unwrap_or(usual);
        let filter = EnvFilter::try_new(text)
            .map_err(|error| format!("--log: {text:?} is no filter: {error}"))?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        match self.log_format.as_str() {
            "text" => lines.init(),
            "json" => lines.json().init(),
            other => return Err(format!("--log-format: {other:?} is neither text nor json")),
        }
        Ok(())
    }
}
