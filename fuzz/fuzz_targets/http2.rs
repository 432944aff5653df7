//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/client.rs"]
mod client;
#[path = "../checks/http2.rs"]
mod http2;

fuzz_target!(|data: &[u8]| http2::check(data));
