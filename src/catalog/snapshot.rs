//! What the rest of the program may know of the world: immutable values.

use std::sync::Arc;
use std::time::Instant;

use crate::model::{Endpoint, ServiceName};

/// What is known of the service that a name means.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// The registry has not been read yet: nothing may be concluded.
    Syncing,
    /// No backend is registered.
    Absent,
    /// These backends are.
    Present(Arc<ServiceSnapshot>),
}

/// A service's backends at one revision: never empty, sorted by id, each
/// address once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSnapshot {
    /// As registered.
    pub name: ServiceName,
    /// The store's revision that brought this content.
    pub revision: i64,
    /// In the order of every list, on every replica.
    pub endpoints: Vec<Endpoint>,
}

/// How far and how fresh the registry has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Whether it has been read completely, at least once.
    pub synced: bool,
    /// The newest revision heard of.
    pub revision: i64,
    /// When the registry was last heard.
    pub heard: Option<Instant>,
    /// Set while the registry cannot be heard: since when, and why.
    pub stale: Option<(Instant, String)>,
    /// Keys read, rejected ones included.
    pub keys: usize,
    /// Set while what is served was saved before the start, and when.
    pub restored: Option<String>,
}
