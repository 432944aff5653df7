//! Runs the command of `lookaside register` and passes signals on to it.
//!
//! In: a program and its arguments, and signals to this process. Out: the command's exit
//! code. The command has a process group of its own, so Ctrl-C reaches only this process,
//! which removes the key before the backend stops; in return the command cannot read from
//! the terminal. This process never kills the command. If this process is killed, the
//! command gets SIGTERM (on Linux), because its registration would expire. As the first
//! process of a container, this process reaps orphans.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;
use std::task::Poll;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use tokio::signal::unix::{self, SignalKind};
use tracing::warn;

use crate::cli::signals::{harmless, reap_orphans};

/// The signals that this process receives.
pub(super) struct Signals(Vec<(Option<Signal>, unix::Signal)>);

/// The running command, or none.
pub(super) struct Command(Option<Running>);

struct Running {
    id: Pid,
    /// SIGCHLD: the command ended, or an orphan that this process adopted.
    ended: unix::Signal,
}

/// The signals that end a registration. All others are only passed on.
const STOP: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
/// The exit codes that shells and `env` use.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let stop = STOP.into_iter().map(|signal| SignalKind::from_raw(signal.as_raw()));
        let all = stop.chain(harmless()).chain([SignalKind::window_change()]);
        let one = |kind: SignalKind| {
            Ok((Signal::from_named_raw(kind.as_raw_value()), unix::signal(kind)?))
        };
        all.map(one).collect::<io::Result<_>>().map(Self)
    }

    /// Waits for the next signal that ends the registration. Passes all others on to the
    /// command.
    pub(super) async fn stop(&mut self, command: Option<Pid>) -> Signal {
        loop {
            let signal = self.next().await;
            if STOP.contains(&signal) {
                return signal;
            }
            pass_on(command, signal);
        }
    }

    /// Waits for the next signal of any kind.
    async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (signal, stream) in &mut self.0 {
                // Signals without a name cannot be passed on, and are dropped.
                while stream.poll_recv(cx).is_ready() {
                    if let Some(signal) = *signal {
                        return Poll::Ready(signal);
                    }
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Command {
    /// Starts the command, if there are words. An error comes with its exit code. Call this
    /// on the main thread: the command gets its signal when the thread that started it ends.
    pub(super) fn start(words: &[OsString]) -> Result<Self, (String, u8)> {
        let Some((program, arguments)) = words.split_first() else { return Ok(Self(None)) };
        // The handler exists before the command starts, so that its end is not missed.
        let ended = unix::signal(SignalKind::child())
            .map_err(|error| (format!("cannot listen for the command's end: {error}"), 1))?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).process_group(0);
        die_with_us(&mut command);
        let child = command.spawn().map_err(|error| {
            let missing = error.kind() == ErrorKind::NotFound;
            let code = if missing { NOT_FOUND } else { NOT_EXECUTABLE };
            (format!("cannot start {program:?}: {error}"), code)
        })?;
        Ok(Self(Some(Running { id: Pid::from_child(&child), ended })))
    }

    /// Returns the command's process id while it runs.
    pub(super) fn id(&self) -> Option<Pid> {
        self.0.as_ref().map(|running| running.id)
    }

    /// Waits for the command's end and returns its exit code. Never returns without a
    /// command.
    pub(super) async fn ended(&mut self) -> u8 {
        let Some(Running { id, ended }) = &mut self.0 else {
            reap_orphans().await;
            return std::future::pending().await;
        };
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((child, status))) if child == *id => {
                    self.0 = None;
                    return code(ExitStatus::from_raw(status.as_raw()));
                }
                // An orphan.
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => drop(ended.recv().await),
                Err(error) => {
                    warn!(%error, "cannot get the command's exit code");
                    return 1;
                }
            }
        }
    }

    /// Waits like [`Self::ended`], and passes every further signal on to the command.
    pub(super) async fn end_with(&mut self, signals: &mut Signals) -> u8 {
        loop {
            let id = self.id();
            tokio::select! {
                code = self.ended() => return code,
                signal = signals.next() => pass_on(id, signal),
            }
        }
    }
}

/// Sends a signal to the command's process group.
pub(super) fn pass_on(command: Option<Pid>, signal: Signal) {
    let Some(group) = command else { return };
    if let Err(error) = kill_process_group(group, signal) {
        warn!(%error, ?signal, "cannot pass the signal on to the command");
    }
}

/// Asks the system to send the command SIGTERM when this process is killed.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut std::process::Command) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};
    let us = getpid();
    let before_it_runs = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // This process may have ended before the call above.
        if getppid() == Some(us) { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
    };
    #[expect(unsafe_code, reason = "two system calls, which may be made between fork and exec")]
    // SAFETY: the closure makes system calls only; it neither allocates nor locks.
    unsafe {
        command.pre_exec(before_it_runs);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_us(_: &mut std::process::Command) {}

/// Returns the exit code as shells do: 128 plus the signal's number if a signal ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
