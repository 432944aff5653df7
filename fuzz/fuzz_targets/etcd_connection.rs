//! Drives the check of the same name with what libFuzzer makes up.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/client.rs"]
mod client;
#[path = "../checks/etcd_connection.rs"]
mod etcd_connection;

fuzz_target!(|data: &[u8]| etcd_connection::check(data));
