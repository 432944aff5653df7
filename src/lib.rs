//! lookaside: registrations in etcd reach unmodified gRPC clients by grpclb.

pub mod catalog;
pub mod cli;
pub mod dns;
pub mod hosts;
pub mod load;
pub mod model;
pub mod policy;
pub mod registry;
pub mod telemetry;
