//! lookaside: registrations in etcd reach unmodified gRPC clients by grpclb.

pub mod balancer;
pub mod catalog;
pub mod load;
pub mod model;
pub mod policy;
pub mod registry;
pub mod serve;
pub mod telemetry;
