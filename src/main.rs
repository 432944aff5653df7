//! The program `lookaside`: one subcommand a job.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lookaside::cli::register::{self, RegisterArgs};

/// A lookaside load balancer: registrations in etcd reach gRPC clients by grpclb
#[derive(Debug, Parser)]
#[command(name = "lookaside", version)]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Registers a backend in etcd, and keeps it registered
    Register(Box<RegisterArgs>),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match cli.job {
        Job::Register(args) => register::run(*args).await,
    }
}
