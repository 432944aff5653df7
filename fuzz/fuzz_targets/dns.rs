//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/dns.rs"]
mod dns;

fuzz_target!(|data: &[u8]| dns::check(data));
