//! The words of the domain: what a service, a backend and a client are.
//!
//! In: text and numbers from the doors (registry, gRPC, DNS, flags). Out: types
//! that cannot be wrong. Standard library only; no clock, no randomness, no I/O.

pub mod address;
pub mod class;
pub mod client;
pub mod endpoint;
pub mod name;
pub mod text;

pub use address::{BackendAddr, Host, HostPort};
pub use class::Class;
pub use client::{ClientKind, ClientProfile};
pub use endpoint::{Endpoint, Meta, Weight};
pub use name::{NameError, Selector, ServiceName, Target, Zone};
