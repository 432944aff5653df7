//! The command that a registration belongs to, and the signals it is to get.
//!
//! In: a program and its arguments, signals sent to us. Out: its exit code. The
//! command is a process group of its own: Ctrl-C at a terminal reaches us alone,
//! so that clients are told before the backend stops; in return it cannot read
//! from the terminal. It is never killed: how long it may take to stop is between
//! it and whoever stops us. Only when we are killed ourselves is it told to stop,
//! on Linux: nobody would keep it registered. As the first process of a container
//! we take in its orphans.

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

/// The signals that we get for the command, or for ourselves.
pub(super) struct Signals(Vec<(Option<Signal>, unix::Signal)>);

/// A command that runs, or none.
pub(super) struct Command(Option<Running>);

struct Running {
    id: Pid,
    /// A child of ours ended: the command, or an orphan that was handed to us.
    ended: unix::Signal,
}

/// Those that end a registration. All others are passed on and nothing more.
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

    /// The next that ends the registration. All others go to the command.
    pub(super) async fn stop(&mut self, command: Option<Pid>) -> Signal {
        loop {
            let signal = self.next().await;
            if STOP.contains(&signal) {
                return signal;
            }
            pass_on(command, signal);
        }
    }

    /// The next of all.
    async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (signal, stream) in &mut self.0 {
                // Those without a name are taken in, and that is all.
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
    /// Starts it; with no words there is none. An error comes with the exit code
    /// for it. To be called by the first thread: the command is told when the
    /// thread that started it ends.
    pub(super) fn start(words: &[OsString]) -> Result<Self, (String, u8)> {
        let Some((program, arguments)) = words.split_first() else { return Ok(Self(None)) };
        // Before it starts, so that its end is not missed.
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

    /// Its process, while it runs.
    pub(super) fn id(&self) -> Option<Pid> {
        self.0.as_ref().map(|running| running.id)
    }

    /// Its exit code once it ended; never, if there is none.
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
                    warn!(%error, "cannot learn how the command ended");
                    return 1;
                }
            }
        }
    }

    /// The same, while it gets every further signal.
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

/// Sends the command and all that it started a signal.
pub(super) fn pass_on(command: Option<Pid>, signal: Signal) {
    let Some(group) = command else { return };
    if let Err(error) = kill_process_group(group, signal) {
        warn!(%error, ?signal, "cannot pass the signal on to the command");
    }
}

/// Has the command told to stop when we are killed.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut std::process::Command) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};
    let us = getpid();
    let before_it_runs = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // We may have ended before.
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

/// As shells tell it: 128 and the signal's number, where a signal ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
