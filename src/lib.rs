//! lookaside: a balancer that reads registrations from etcd and sends server lists to
//! unmodified gRPC clients by grpclb.
//!
//! # In your own program
//!
//! A backend in Rust registers itself with [`register::hold`]. The key is there while the
//! result lives, comes back whenever it is lost, and is removed at the end.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use lookaside::model::{HostPort, Meta, ServiceName, Weight};
//! use lookaside::register;
//! use lookaside::registry::Registration;
//! use lookaside::registry::etcd::Connect;
//! use lookaside::registry::record::Format;
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let connect = Connect::new(&["http://127.0.0.1:2379"], None, None)
//!     .map_err(|errors| format!("{errors:?}"))?;
//! let held = register::hold(register::Options {
//!     connect,
//!     prefix: "/etcd3_naming/".into(),
//!     registration: Registration {
//!         service: ServiceName::new("hello")?,
//!         id: "hello-1".into(),
//!         address: HostPort::parse("10.0.0.7:50051")?,
//!         weight: Weight::DEFAULT,
//!         meta: Arc::new(Meta::new()),
//!     },
//!     ttl: register::TTL_DEFAULT,
//!     format: Format::Auto,
//! })
//! .await?;
//! // Serve, then let clients know before the listener closes.
//! held.withdraw().await?;
//! # Ok(())
//! # }
//! ```
//!
//! All else is the program itself, and its interface may change with any release.
//!
//! # How the program works
//!
//! | step | modules |
//! |---|---|
//! | a key in etcd becomes a value | [`registry`], [`marks`], [`settings`], [`replica`] |
//! | one task makes immutable services of them | [`catalog`], with [`health`], [`health_check`], [`hosts`] and [`persist`] as further sources |
//! | a pure function decides which backends a class of clients is sent | [`policy`] |
//! | the decision becomes bytes once, and streams deliver the newest | [`balancer`], [`serve`] |
//! | the same decision as DNS answers, and as JSON, metrics and a dashboard | [`dns`], [`admin`] |
//! | flags, the parts and their tasks, commands | [`config`], [`app`], [`cli`] |
//!
//! `ARCHITECTURE.md` in the repository is the map.

pub mod admin;
pub mod app;
pub mod backend_channel;
pub mod balancer;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dns;
pub mod facts;
pub mod health;
pub mod health_check;
pub mod hosts;
pub mod load;
pub mod load_reports;
pub mod marks;
pub mod model;
pub mod persist;
pub mod placements;
pub mod policy;
pub mod readiness;
pub mod register;
pub mod registry;
pub mod reload;
pub mod replica;
pub mod seed;
pub mod serve;
pub mod settings;
mod streams;
pub mod tables;
pub mod telemetry;
mod warning_limit;
pub mod xds;
