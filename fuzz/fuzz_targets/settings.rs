//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/settings.rs"]
mod settings;

fuzz_target!(|data: &[u8]| settings::check(data));
