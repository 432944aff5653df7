//! The `lookaside` program.
//!
//! In: command-line arguments. Out: an exit code; see `lookaside::cli::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lookaside::cli::run(std::env::args_os())
}
