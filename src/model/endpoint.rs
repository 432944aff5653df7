//! One backend of a service, whatever the format of its registration is.
//!
//! In: the fields of a registration. Out: an [`Endpoint`], with an address that a client
//! can use.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::BackendAddr;

/// The other fields of a registration as text: `zone`, `version` and others. Ordered, so
/// that equal metadata compares equal.
pub type Meta = BTreeMap<String, String>;

/// One backend as it is listed. Endpoints are ordered by id, then by address: this is the
/// order of every list on every replica.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The backend's name: the name in its registration if there is one, else the last
    /// segment of its key.
    pub id: Arc<str>,
    /// The address at which it listens.
    pub addr: BackendAddr,
    /// Its share of calls.
    pub weight: Weight,
    /// The other fields of its registration.
    pub meta: Arc<Meta>,
}

impl Endpoint {
    /// Returns whether the registration allows the backend to be listed. Weight 0 means no
    /// calls at all, and a lame duck wants no new calls.
    #[must_use]
    pub fn takes_calls(&self) -> bool {
        self.weight != Weight(0) && !self.is_lame_duck()
    }

    /// Returns whether the backend says that it is about to stop, by the metadata
    /// `lame-duck=true`.
    #[must_use]
    pub fn is_lame_duck(&self) -> bool {
        self.meta.get("lame-duck").is_some_and(|value| value == "true")
    }
}

/// A backend's share of calls, relative to the other backends of its service. 0 means no
/// calls at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(pub u32);

impl Weight {
    /// The weight of a registration that gives none.
    pub const DEFAULT: Self = Self(1);
}
