//! Everything that decides the lists of a service's clients.
//!
//! In: nothing. Out: immutable values. A new version is published whenever any part
//! of one changes, so that whoever keeps what was made of it keeps it by version.

use std::ops::Deref;
use std::sync::Arc;

use crate::marks::Drained;
use crate::model::Class;
use crate::settings::ServiceSettings;

use super::ServiceSnapshot;
use super::addresses::{Addresses, Kept};
use super::derived::Derived;

/// A service as it is now. Reads like its snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// A greater one than that of the service's value before. Before the other
    /// parts, so that comparing looks at it first.
    pub version: u64,
    /// Who is registered.
    pub snapshot: Arc<ServiceSnapshot>,
    /// What the operator wants.
    pub settings: Arc<ServiceSettings>,
    /// Which backends marks keep out of the lists.
    pub drained: Drained,
    kept: Derived<Kept>,
}

impl Service {
    /// One whose parts are these.
    #[must_use]
    pub fn new(
        version: u64,
        snapshot: impl Into<Arc<ServiceSnapshot>>,
        settings: impl Into<Arc<ServiceSettings>>,
    ) -> Self {
        let (snapshot, settings) = (snapshot.into(), settings.into());
        let drained = Drained::default();
        Self { version, snapshot, settings, drained, kept: Derived::default() }
    }

    /// The same service with these marks.
    #[must_use]
    pub fn with_drained(self, drained: Drained) -> Self {
        Self { drained, kept: Derived::default(), ..self }
    }

    /// The addresses of a class, if they are kept.
    #[must_use]
    pub fn kept_addresses(&self, class: &Class) -> Option<Arc<Addresses>> {
        self.kept.get(class)
    }

    /// Keeps the addresses of a class for as long as this value lives, or until
    /// others have taken their place.
    pub fn keep_addresses(&self, class: &Class, addresses: &Arc<Addresses>) {
        self.kept.put(class, addresses);
    }
}

impl Deref for Service {
    type Target = ServiceSnapshot;

    fn deref(&self) -> &ServiceSnapshot {
        &self.snapshot
    }
}
