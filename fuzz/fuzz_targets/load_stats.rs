//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/client.rs"]
mod client;
#[path = "../checks/grpc.rs"]
#[allow(dead_code, reason = "its own target has the rest")]
mod grpc;
#[path = "../checks/load_stats.rs"]
mod load_stats;

fuzz_target!(|data: &[u8]| load_stats::check(data));
