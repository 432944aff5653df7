//! lookaside: registrations in etcd reach unmodified gRPC clients by grpclb.

pub mod model;
pub mod registry;
