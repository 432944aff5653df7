//! lookaside: a balancer that reads registrations from etcd and sends server lists to
//! unmodified gRPC clients by grpclb.

pub mod admin;
pub mod app;
pub mod balancer;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dns;
pub mod health;
pub mod hosts;
pub mod load;
pub mod marks;
pub mod model;
pub mod persist;
pub mod policy;
pub mod readiness;
pub mod register;
pub mod registry;
pub mod reload;
pub mod replica;
pub mod seed;
pub mod serve;
pub mod settings;
pub mod tables;
pub mod telemetry;
