//! Sends signals to processes by system call: a bare machine has no `kill`.

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// Sends a signal to the process `id`, which the test started.
#[track_caller]
pub fn send(id: u32, signal: Signal) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id is positive");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {id}: {error}"));
}
