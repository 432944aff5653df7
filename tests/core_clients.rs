//! Tests with unmodified clients: C-core's (Python, C++ and Ruby), and those of
//! languages without grpclb (Node.js, Rust). etcd, DNS and the program are real.
//! The head of each file says what it shows.

#![allow(unreachable_pub, missing_docs)]

#[path = "core_clients/fallback.rs"]
mod fallback;
#[path = "core_clients/official.rs"]
mod official;
#[path = "core_clients/safety.rs"]
mod safety;
#[path = "core_clients/scene.rs"]
mod scene;
#[path = "core_clients/secure.rs"]
mod secure;
#[path = "core_clients/servers.rs"]
mod servers;
#[path = "core_clients/steps.rs"]
mod steps;
#[path = "core_clients/without_grpclb.rs"]
mod without_grpclb;
