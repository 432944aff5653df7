//! One backend of a service, whatever format its registration had.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::BackendAddr;

/// What a registration said besides its address, in text: `zone`, `version`
/// and whatever else. Ordered, so that equal metadata is equal.
pub type Meta = BTreeMap<String, String>;

/// One backend as clients may be told of it. Ordered by id, then address: the
/// order of every list, on every replica.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The instance's name: its own where it gave one, else its key's last
    /// segment.
    pub id: Arc<str>,
    /// Where it listens.
    pub addr: BackendAddr,
    /// Its share of the calls.
    pub weight: Weight,
    /// Everything else it said.
    pub meta: Arc<Meta>,
}

impl Endpoint {
    /// Whether it may be listed at all. Weight 0 means no traffic, never a
    /// little.
    #[must_use]
    pub fn takes_calls(&self) -> bool {
        self.weight != Weight(0)
    }
}

/// A backend's share of the calls, relative to its neighbours'. 0 means no
/// traffic at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(pub u32);

impl Weight {
    /// What a registration that says nothing of weight has.
    pub const DEFAULT: Self = Self(1);
}
