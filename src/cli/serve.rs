//! `lookaside serve`: runs the balancer until it is told to stop.
//!
//! In: settings, signals, and the file of `--audit-log`. Out: one line with the bound addresses, and an exit code.
//! The first signal to stop drains, the second aborts. SIGHUP makes the balancer read all
//! files that flags name again, and open that file again.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::Notify;

use super::audit_file::AuditFile;
use super::bad;
use super::signals::{self, StopSignals};
use crate::app::App;
use crate::config::ServeArgs;

/// Runs the balancer. Needs a tokio runtime with time, I/O and signals.
pub(super) async fn run(args: &ServeArgs, audit: Option<AuditFile>) -> ExitCode {
    let config = match args.validate() {
        Ok(config) => config,
        Err(problems) => return bad(&problems),
    };
    // The handlers exist before anything runs, so that no signal is missed.
    let (mut stop, mut hangup) = match (StopSignals::new(), signals::hangup()) {
        (Ok(stop), Ok(hangup)) => (stop, hangup),
        (Err(error), _) | (_, Err(error)) => return fail(&error),
    };
    let app = match App::bind(config).await {
        Ok(app) => app,
        Err(error) => return fail(&error),
    };
    let _ = writeln!(std::io::stdout(), "{}", app.addresses());
    let (drain_tx, drain_rx) = tokio::sync::oneshot::channel();
    let reload = Arc::new(Notify::new());
    let hangups = async {
        loop {
            hangup.recv().await;
            if let Some(audit) = &audit {
                audit.reopen();
            }
            reload.notify_one();
        }
    };
    let stops = async {
        stop.next().await;
        tracing::info!("told to stop: draining");
        let _ = drain_tx.send(());
        stop.next().await;
    };
    tokio::select! {
        () = hangups => ExitCode::FAILURE,
        () = signals::reap_orphans() => ExitCode::FAILURE,
        ended = app.run(async { let _ = drain_rx.await; }, reload.clone()) => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        () = stops => {
            tracing::warn!("told to stop again: aborting");
            ExitCode::FAILURE
        }
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
