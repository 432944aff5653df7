//! lookaside: registrations in etcd reach unmodified gRPC clients by grpclb.

pub mod cli;
pub mod model;
pub mod register;
pub mod registry;
pub mod replica;
