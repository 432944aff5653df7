//! The command that a registration belongs to, and the signals it is to get.
//!
//! In: a program and its arguments, signals sent to us. Out: its exit code. The
//! command is a process group of its own: Ctrl-C at a terminal reaches us alone,
//! so that clients are told before the backend stops; in return it cannot read
//! from the terminal. It is never killed: how long it may take to stop is between
//! it and whoever stops us.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::signal::unix::{self, SignalKind};
use tracing::warn;

/// The signals that end a registration.
pub(super) struct Signals {
    int: unix::Signal,
    term: unix::Signal,
    hup: unix::Signal,
    quit: unix::Signal,
}

/// A command that runs, or none.
pub(super) struct Command(Option<Child>);

/// The exit codes that shells and `env` use.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            int: unix::signal(SignalKind::interrupt())?,
            term: unix::signal(SignalKind::terminate())?,
            hup: unix::signal(SignalKind::hangup())?,
            quit: unix::signal(SignalKind::quit())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.int.recv() => Signal::INT,
            _ = self.term.recv() => Signal::TERM,
            _ = self.hup.recv() => Signal::HUP,
            _ = self.quit.recv() => Signal::QUIT,
        }
    }
}

impl Command {
    /// Starts it; with no words there is none. An error comes with the exit code
    /// for it.
    pub(super) fn start(words: &[OsString]) -> Result<Self, (String, u8)> {
        let Some((program, arguments)) = words.split_first() else { return Ok(Self(None)) };
        let child = tokio::process::Command::new(program).args(arguments).process_group(0).spawn();
        child.map(|child| Self(Some(child))).map_err(|error| {
            let missing = error.kind() == ErrorKind::NotFound;
            let code = if missing { NOT_FOUND } else { NOT_EXECUTABLE };
            (format!("cannot start {program:?}: {error}"), code)
        })
    }

    pub(super) fn runs(&self) -> bool {
        self.0.is_some()
    }

    /// Its exit code once it ended; never, if there is none.
    pub(super) async fn ended(&mut self) -> u8 {
        match &mut self.0 {
            None => std::future::pending().await,
            Some(child) => match child.wait().await {
                Ok(status) => code(status),
                Err(error) => {
                    warn!(%error, "cannot learn how the command ended");
                    1
                }
            },
        }
    }

    /// The same, while it gets every further signal.
    pub(super) async fn end_with(&mut self, signals: &mut Signals) -> u8 {
        loop {
            tokio::select! {
                code = self.ended() => return code,
                signal = signals.next() => self.forward(signal),
            }
        }
    }

    /// Sends it and all that it started a signal.
    pub(super) fn forward(&self, signal: Signal) {
        let id = self.0.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        let Some(group) = id.and_then(Pid::from_raw) else { return };
        if let Err(error) = kill_process_group(group, signal) {
            warn!(%error, ?signal, "cannot pass the signal on to the command");
        }
    }
}

/// As shells tell it: 128 and the signal's number, where a signal ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
