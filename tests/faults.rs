//! The fault matrix: each test runs the real program and a real etcd, causes one fault
//! and checks every list that a crowd of clients gets, half of them with xDS.
//!
//! In: faults. Out: failed tests, and under `make soak` the table of all rows.
//! Each test is a row of the table in docs/reliability.md. `cargo test` runs short
//! tests; `make soak` runs long ones and writes the table. The tests need Linux,
//! because the clients use epoll and the measurements come from `/proc`.
#![cfg(target_os = "linux")]
#![allow(missing_docs, unreachable_pub)]

mod support;

#[path = "faults/check.rs"]
mod check;
#[path = "faults/model.rs"]
mod model;
#[path = "faults/raw.rs"]
mod raw;
#[path = "faults/row.rs"]
mod row;
#[path = "faults/scale.rs"]
mod scale;
#[path = "faults/world.rs"]
mod world;
#[path = "faults/writer.rs"]
mod writer;
#[path = "faults/xds_rules.rs"]
mod xds_rules;

#[path = "faults/rows/absent.rs"]
mod absent;
#[path = "faults/rows/attacks.rs"]
mod attacks;
#[path = "faults/rows/cluster.rs"]
mod cluster;
#[path = "faults/rows/floods.rs"]
mod floods;
#[path = "faults/rows/herds.rs"]
mod herds;
#[path = "faults/rows/leases.rs"]
mod leases;
#[path = "faults/rows/load.rs"]
mod load;
#[path = "faults/rows/names.rs"]
mod names;
#[path = "faults/rows/registry.rs"]
mod registry;
#[path = "faults/rows/restart.rs"]
mod restart;
#[path = "faults/rows/state.rs"]
mod state;
