//! A service: everything that decides the lists of its clients.
//!
//! In: a snapshot, settings, drained backends, newcomers and zones. Out: immutable values. A change
//! of any part is published as a new version, so that a result made from a value can be
//! cached by its version.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use crate::facts::factor::Factor;
use crate::facts::zone_shares::ZoneShares;
use crate::marks::Drained;
use crate::model::{Class, Endpoint};
use crate::settings::ServiceSettings;

use super::ServiceSnapshot;
use super::addresses::{AddressCache, Addresses};
use super::derived::Derived;
use super::newcomers::Newcomers;
use super::zones::{ShareCache, Zones};

/// A service as it is now. It dereferences to its snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Grows with each value of the service. It is the first field, so that comparisons
    /// look at it first.
    pub version: u64,
    /// The backends.
    pub snapshot: Arc<ServiceSnapshot>,
    /// The settings in force.
    pub settings: Arc<ServiceSettings>,
    /// The backends that marks keep out of the lists.
    pub drained: Drained,
    /// The backends that are starting or delayed; `None` if there are none.
    pub newcomers: Option<Arc<Newcomers>>,
    /// Set if clients prefer the backends of their own zone.
    pub zones: Option<Arc<Zones>>,
    address_cache: Derived<AddressCache>,
    zone_shares: Derived<ShareCache>,
}

impl Service {
    /// Makes a service without drained backends.
    #[must_use]
    pub fn new(
        version: u64,
        snapshot: impl Into<Arc<ServiceSnapshot>>,
        settings: impl Into<Arc<ServiceSettings>>,
    ) -> Self {
        let (snapshot, settings) = (snapshot.into(), settings.into());
        let drained = Drained::default();
        Self {
            version,
            snapshot,
            settings,
            drained,
            newcomers: None,
            zones: None,
            address_cache: Derived::default(),
            zone_shares: Derived::default(),
        }
    }

    /// Returns the service with these drained backends.
    #[must_use]
    pub fn with_drained(self, drained: Drained) -> Self {
        Self { drained, ..self }.without_caches()
    }

    /// Returns the service with these newcomers.
    #[must_use]
    pub fn with_newcomers(self, newcomers: Option<Arc<Newcomers>>) -> Self {
        Self { newcomers, ..self }.without_caches()
    }

    /// Returns the service as another version.
    #[must_use]
    pub(super) fn numbered(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Returns the service with these zones.
    #[must_use]
    pub fn with_zones(self, zones: Option<Arc<Zones>>) -> Self {
        Self { zones, ..self }.without_caches()
    }

    /// Returns until when a backend is not listed because it came and went too often.
    #[must_use]
    pub fn delayed(&self, endpoint: &Endpoint) -> Option<Instant> {
        self.newcomers.as_ref()?.delayed.get(&endpoint.addr).copied()
    }

    /// Returns the factor of a backend's weight.
    #[must_use]
    pub fn factor(&self, endpoint: &Endpoint) -> Factor {
        let factor = self.newcomers.as_ref().and_then(|all| all.starting.get(&endpoint.addr));
        factor.copied().unwrap_or(Factor::ONE)
    }

    /// Returns the addresses of a class, if they are cached.
    #[must_use]
    pub fn cached_addresses(&self, class: &Class) -> Option<Arc<Addresses>> {
        self.address_cache.get(class)
    }

    /// Returns the split of the calls by zone, which `make` makes at the first call.
    pub fn zone_shares(&self, make: impl FnOnce() -> ZoneShares) -> &ZoneShares {
        self.zone_shares.get_or_init(make)
    }

    /// Keeps the addresses of a class until this value is dropped or other classes take
    /// their place.
    pub fn cache_addresses(&self, class: &Class, addresses: &Arc<Addresses>) {
        self.address_cache.put(class, addresses);
    }

    fn without_caches(self) -> Self {
        Self { address_cache: Derived::default(), zone_shares: Derived::default(), ..self }
    }
}

impl Deref for Service {
    type Target = ServiceSnapshot;

    fn deref(&self) -> &ServiceSnapshot {
        &self.snapshot
    }
}
