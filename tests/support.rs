//! Shared parts of the tests: real etcds, real clients, backends, and the program.
//!
//! Each test binary uses some of them.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

pub mod ads;
pub mod backend;
pub mod certificates;
pub mod client;
pub mod cluster;
#[cfg(target_os = "linux")]
pub mod crowd;
pub mod dns;
pub mod etcd;
pub mod grpc_proxy;
pub mod language;
pub mod lookaside;
pub mod namespace;
pub mod network;
mod open_files;
mod port;
pub mod proxy;
pub mod raw_call;
pub mod signal;
mod skip;
pub mod wire;
pub mod world;

use std::time::{Duration, Instant};

pub use open_files::raise_open_files;
pub use port::free_port;
pub use skip::skip;

/// How long a test waits for an expected event. Clients that have backed off take half a
/// minute on a busy machine.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Calls `ask` until it returns an answer: at first every 20 ms, and the longer it takes, the
/// less often. Panics with `what` after [`WAIT_MAX`].
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    try_eventually(ask).unwrap_or_else(|| panic!("gave up waiting: {what}"))
}

/// Calls `ask` like [`eventually`], but returns `None` after [`WAIT_MAX`].
pub fn try_eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + WAIT_MAX;
    let mut pause = Duration::from_millis(20);
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        std::thread::sleep(pause);
        // What many tests ask for takes more processor time than what they wait for.
        pause = (pause * 5 / 4).min(Duration::from_millis(200));
    }
}

/// Returns the processor time that a process and its children have used so far.
pub fn cpu(process: u32) -> Duration {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok()).map(cpu);
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("its name is in parentheses");
    let ticks: u64 =
        fields.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
    // USER_HZ is 100 on every Linux.
    Duration::from_millis(ticks * 10) + children.sum::<Duration>()
}

/// Returns the memory of a process (RSS), in bytes.
pub fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has some");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
