//! The domain's types: names, addresses, endpoints, weights, classes and clients.
//!
//! In: text and numbers from the registry, gRPC, DNS and flags. Out: types that are valid
//! by construction. The layer uses the standard library only (and `thiserror`'s derive):
//! no clock, no randomness, no I/O.

pub mod address;
pub mod class;
pub mod client;
pub mod endpoint;
pub mod identity;
pub mod name;
pub mod network;
pub mod subset;
pub mod text;

pub use address::{BackendAddr, Host, HostPort};
pub use class::{Class, Part};
pub use client::{ClientKind, ClientProfile};
pub use endpoint::{Endpoint, Meta, Weight};
pub use identity::{CertificateNames, ClientIdentity};
pub use name::{NameError, Selector, ServiceName, Target, Zone};
pub use network::Network;
pub use subset::Subset;
