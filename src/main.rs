//! `lookaside`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lookaside::cli::run(std::env::args_os())
}
