//! The signals that a running program gets.
//!
//! In: signals. Out: word of SIGINT and SIGTERM, which ask it to stop, and of
//! SIGHUP. From then on those that mean nothing here (SIGUSR1 and the like) are
//! taken in and do nothing: by default they would end the program. As the first
//! process of a container it also takes in its orphans.

use std::io;

use rustix::process::{WaitOptions, getpid, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens from its making on, so that none is missed.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// # Errors
    /// When the system does not let us listen.
    pub(super) fn new() -> io::Result<Self> {
        for kind in harmless() {
            // A handler stays for as long as the process lives. Unlike a signal
            // that is ignored, it is not handed down to other programs.
            drop(signal(kind)?);
        }
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// Waits for the next.
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
/// When the system does not let us listen.
pub(super) fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// What ends a program by default and is sent to many by mistake or by habit.
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

/// The same on Linux and macOS.
const VIRTUAL_ALARM: i32 = 26;
const PROFILE: i32 = 27;
const POWER: i32 = 30;
/// What the C library leaves to programs.
const REAL_TIME: (i32, i32) = (35, 64);

/// For ever: takes in processes whose parents ended, where they are handed to
/// us. Only for programs that start none of their own.
pub(super) async fn reap_orphans() {
    let Some(mut ended) = signal(SignalKind::child()).ok().filter(|_| getpid().is_init()) else {
        return std::future::pending().await;
    };
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        ended.recv().await;
    }
}
