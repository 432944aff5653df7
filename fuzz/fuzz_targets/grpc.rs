//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/client.rs"]
mod client;
#[path = "../checks/grpc.rs"]
mod grpc;

fuzz_target!(|data: &[u8]| grpc::check(data));
