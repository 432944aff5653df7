//! `lookaside serve`: runs the balancer until it is told to stop.
//!
//! In: settings, signals. Out: one line that names the bound addresses, and an
//! exit code. The first signal drains, the second aborts.

use std::io::Write;
use std::process::ExitCode;

use super::bad;
use super::signals::StopSignals;
use crate::app::App;
use crate::config::ServeArgs;

/// Runs the balancer. Needs a tokio runtime with time, I/O and signals.
pub async fn run(args: &ServeArgs) -> ExitCode {
    let config = match args.validate() {
        Ok(config) => config,
        Err(problems) => return bad(&problems),
    };
    // Before anything runs, so that no signal is missed.
    let mut stop = match StopSignals::new() {
        Ok(stop) => stop,
        Err(error) => return fail(&error),
    };
    let app = match App::bind(config).await {
        Ok(app) => app,
        Err(error) => return fail(&error),
    };
    let _ = writeln!(std::io::stdout(), "{}", app.addresses());
    let (drain_tx, drain_rx) = tokio::sync::oneshot::channel();
    let signals = async {
        stop.next().await;
        tracing::info!("told to stop: draining");
        let _ = drain_tx.send(());
        stop.next().await;
    };
    tokio::select! {
        ended = app.run(async { let _ = drain_rx.await; }) => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        () = signals => {
            tracing::warn!("told to stop again: aborting");
            ExitCode::FAILURE
        }
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
