//! Sends signals to processes by system call: a bare machine has no `kill`.

use rustix::process::{Pid, kill_process, kill_process_group};

pub use rustix::process::Signal;

/// Sends a signal to the process `id`, which the test started.
#[track_caller]
pub fn send(id: u32, signal: Signal) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id is positive");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {id}: {error}"));
}

/// Sends a signal to the processes of the group `id`, which the test started.
#[track_caller]
pub fn send_group(id: u32, signal: Signal) {
    let group = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id is positive");
    kill_process_group(group, signal)
        .unwrap_or_else(|error| panic!("{signal:?} to group {id}: {error}"));
}
