//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/name.rs"]
mod name;

fuzz_target!(|data: &[u8]| name::check(data));
