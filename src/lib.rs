//! lookaside: registrations in etcd reach unmodified gRPC clients by grpclb.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod load;
pub mod model;
pub mod policy;
pub mod readiness;
pub mod registry;
pub mod telemetry;
