//! Parses the command line and runs a subcommand. Each subcommand has its own file.
//!
//! In: arguments and environment. Out: an exit code: 0 success, 1 the program could not
//! start or a vital part died, 3 the backend asked about is not in the list, 64 bad flags
//! or configuration.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::ServeArgs;
use crate::model::text;
use audit_file::AuditFile;

pub mod admin_client;
mod audit_file;
pub mod check;
pub mod clients;
pub mod demo;
pub mod dns_records;
pub mod drain;
pub mod explain;
mod log;
pub mod marks;
pub mod register;
pub mod release;
pub mod serve;
pub mod services;
pub mod settings;
pub mod shed;
mod signals;
pub mod watch;
pub mod xds_bootstrap;

/// A lookaside load balancer: registrations in etcd reach unmodified gRPC clients
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    log: log::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the balancer
    Serve(Box<ServeArgs>),
    /// Runs a balancer, DNS and three backends on this machine, to try things out
    Demo(demo::DemoArgs),
    Register(Box<register::RegisterArgs>),
    Services(services::Args),
    Clients(clients::Args),
    Watch(watch::Args),
    Explain(explain::Args),
    Drain(drain::DrainArgs),
    Undrain(drain::UndrainArgs),
    Release(release::Args),
    Shed(shed::ShedArgs),
    Unshed(shed::UnshedArgs),
    Fallback(shed::FallbackArgs),
    Unfallback(shed::UnfallbackArgs),
    Marks(marks::Args),
    Settings(Box<settings::Args>),
    DnsRecords(dns_records::DnsRecordsArgs),
    XdsBootstrap(xds_bootstrap::Args),
    Check(Box<check::CheckArgs>),
}

impl Cli {
    /// Opens the file of `--audit-log`, if `serve` is given one.
    fn audit(&self) -> Result<Option<AuditFile>, String> {
        let Command::Serve(args) = &self.command else { return Ok(None) };
        let Some(path) = &args.access.audit_log else { return Ok(None) };
        let opened = AuditFile::open(Path::new(path));
        opened.map(Some).map_err(|error| format!("--audit-log: cannot open {path:?}: {error}"))
    }
}

impl Command {
    /// Returns the settings of `serve`, if the subcommand has them.
    fn serve_args(&mut self) -> Option<&mut ServeArgs> {
        match self {
            Self::Serve(args) => Some(args),
            Self::Check(args) => Some(&mut args.serve),
            _ => None,
        }
    }
}

/// Bad flags or configuration (`EX_USAGE` of sysexits.h).
pub const BAD_FLAGS: u8 = 64;

/// Runs the program and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // The output of these commands is for people: info lines would hide it.
    let quiet = matches!(cli.command, Command::Demo(_) | Command::Check(_) | Command::Settings(_));
    let usual = if quiet { "warn" } else { "info" };
    let audit = cli.audit();
    let started = match &audit {
        Ok(audit) => cli.log.start(usual, audit.clone()),
        Err(problem) => Err(problem.clone()),
    };
    if let Err(problem) = started {
        let Some(args) = cli.command.serve_args() else { return bad(&[problem]) };
        // Validation reports this problem together with those of the other settings.
        args.sources.problems.push(args.sources.located(problem));
    }
    match cli.command {
        Command::Services(args) => return exit_code(services::run(&args)),
        Command::Clients(args) => return exit_code(clients::run(&args)),
        Command::Watch(args) => return exit_code(watch::run(&args)),
        Command::Explain(args) => {
            return match explain::run(&args) {
                Ok(false) => ExitCode::from(explain::NOT_LISTED),
                result => exit_code(result.map(drop)),
            };
        }
        Command::Drain(args) => return exit_code(drain::drain(&args)),
        Command::Undrain(args) => return exit_code(drain::undrain(&args)),
        Command::Shed(args) => return exit_code(shed::shed(&args)),
        Command::Unshed(args) => return exit_code(shed::unshed(&args)),
        Command::Fallback(args) => return exit_code(shed::fallback(&args)),
        Command::Unfallback(args) => return exit_code(shed::unfallback(&args)),
        Command::Release(args) => return exit_code(release::run(&args)),
        Command::Marks(args) => return exit_code(marks::run(&args)),
        Command::Settings(args) => return settings::run(&args),
        Command::DnsRecords(args) => return dns_records::run(&args),
        Command::XdsBootstrap(args) => return xds_bootstrap::run(&args),
        Command::Serve(_) | Command::Demo(_) | Command::Register(_) | Command::Check(_) => {}
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match cli.command {
        Command::Serve(args) => runtime.block_on(serve::run(&args, audit.ok().flatten())),
        Command::Demo(args) => runtime.block_on(demo::run(&args)),
        Command::Register(args) => runtime.block_on(register::run(*args)),
        Command::Check(args) => runtime.block_on(check::run(&args)),
        _ => ExitCode::SUCCESS,
    };
    // Tasks that still run were asked to end, and their time is over.
    runtime.shutdown_background();
    code
}

/// Turns the result of a request to a running balancer into an exit code, and prints the
/// error.
fn exit_code(result: Result<(), admin_client::AdminError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", text::shown(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints every problem on a line of its own. Returns [`BAD_FLAGS`].
pub(crate) fn bad(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("error: {}", text::shown(problem));
    }
    ExitCode::from(BAD_FLAGS)
}

/// Reads the arguments and the file of settings that they name.
fn parse(arguments: Vec<OsString>) -> Result<Cli, ExitCode> {
    let matches = command().try_get_matches_from(arguments).map_err(|error| show(&error))?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| show(&error))?;
    if let (Some(args), Some((_, said))) = (cli.command.serve_args(), matches.subcommand()) {
        args.complete(said);
        cli.log.complete(&args.sources);
    }
    Ok(cli)
}

/// Returns the definition of the command line. It fixes the usage lines, because clap
/// would list a flag that the environment sets as if it were required.
fn command() -> clap::Command {
    let mut built = Cli::command();
    built.build();
    let mut command = Cli::command();
    for sub in built.get_subcommands_mut() {
        let usage = sub.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").trim().to_owned();
        let name = sub.get_name().to_owned();
        // Building adds the subcommand `help`, which the unbuilt command lacks.
        if command.find_subcommand(&name).is_some() {
            command = command.mut_subcommand(name, |sub| sub.override_usage(usage));
        }
    }
    command
}

fn show(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    // Help and version are not errors.
    if error.use_stderr() { ExitCode::from(BAD_FLAGS) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests;
