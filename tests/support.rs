//! What several tests need: real etcds to start, stop and cut off.
//!
//! Each test binary uses a part of it.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod cluster;
pub mod etcd;
pub mod proxy;

use std::time::{Duration, Instant};

/// How long anything that must happen may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until the answer is there.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port nobody listens on just now. Whoever takes it must be ready to lose
/// the race and ask again.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
