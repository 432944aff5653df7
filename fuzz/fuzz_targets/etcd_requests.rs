//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/etcd_requests.rs"]
mod etcd_requests;
#[path = "../checks/etcd_model.rs"]
mod model;

fuzz_target!(|data: &[u8]| etcd_requests::check(data));
