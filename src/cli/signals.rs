//! Handles the signals of a running program, and reaps orphans.
//!
//! In: signals. Out: notice of SIGINT and SIGTERM, which ask the program to stop, and of
//! SIGHUP. Signals without a meaning here (SIGUSR1 and others) are caught and do nothing,
//! because by default they would end the program.

use std::io;

use rustix::process::{WaitOptions, getpid, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGINT and SIGTERM from its creation on, so no signal is missed.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Starts to listen, and catches the [`harmless`] signals.
    ///
    /// # Errors
    /// Returns the system's error if it refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        for kind in harmless() {
            // The handler stays until the process ends. Unlike an ignored signal, it is
            // not inherited by programs that this one starts.
            drop(signal(kind)?);
        }
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Listens for SIGHUP.
///
/// # Errors
/// Returns the system's error if it refuses a handler.
pub(super) fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// Returns the signals that end a program by default and are often sent by mistake or by
/// habit.
pub(super) fn harmless() -> Vec<SignalKind> {
    let mut kinds = vec![
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::alarm(),
        SignalKind::io(),
        SignalKind::from_raw(VIRTUAL_ALARM),
        SignalKind::from_raw(PROFILE),
    ];
    if cfg!(target_os = "linux") {
        kinds.push(SignalKind::from_raw(POWER));
        kinds.extend((REAL_TIME.0..=REAL_TIME.1).map(SignalKind::from_raw));
    }
    kinds
}

/// This number and the next are the same on Linux and macOS.
const VIRTUAL_ALARM: i32 = 26;
const PROFILE: i32 = 27;
const POWER: i32 = 30;
/// The real-time signals that the C library does not use itself.
const REAL_TIME: (i32, i32) = (35, 64);

/// Reaps processes whose parents ended, for ever, if this process is the first of a
/// container; else it only waits. Programs that start children must not call it.
pub(super) async fn reap_orphans() {
    let Some(mut ended) = signal(SignalKind::child()).ok().filter(|_| getpid().is_init()) else {
        return std::future::pending().await;
    };
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        ended.recv().await;
    }
}
