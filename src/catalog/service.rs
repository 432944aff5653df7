//! A service: everything that decides the lists of its clients.
//!
//! In: a snapshot, settings, drained backends, newcomers and health. Out: immutable values. A change
//! of any part is published as a new version, so that a result made from a value can be
//! cached by its version.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use crate::facts::factor::Factor;
use crate::marks::Drained;
use crate::model::{BackendAddr, Class, Endpoint};
use crate::settings::{HealthKind, ServiceSettings};

use super::ServiceSnapshot;
use super::addresses::{AddressCache, Addresses};
use super::derived::Derived;
use super::health::{Health, HealthAnswer};
use super::newcomers::Newcomers;

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
    /// The backends that are not healthy; `None` if there are none.
    pub health: Option<Arc<Health>>,
    address_cache: Derived<AddressCache>,
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
            health: None,
            address_cache: Derived::default(),
        }
    }

    /// Returns the service with these drained backends.
    #[must_use]
    pub fn with_drained(self, drained: Drained) -> Self {
        Self { drained, address_cache: Derived::default(), ..self }
    }

    /// Returns the service with these newcomers.
    #[must_use]
    pub fn with_newcomers(self, newcomers: Option<Arc<Newcomers>>) -> Self {
        Self { newcomers, address_cache: Derived::default(), ..self }
    }

    /// Returns the service with this health.
    #[must_use]
    pub fn with_health(self, health: Option<Arc<Health>>) -> Self {
        Self { health, address_cache: Derived::default(), ..self }
    }

    /// Returns what health checks find wrong with a backend, if they count it as unhealthy.
    #[must_use]
    pub fn unhealthy(&self, endpoint: &Endpoint) -> Option<HealthAnswer> {
        self.health.as_ref()?.unhealthy.get(&endpoint.addr).copied()
    }

    /// Returns the backends that are left out of lists because they are unhealthy, unless a
    /// class has no others.
    #[must_use]
    pub fn left_out(&self) -> Option<&BTreeMap<BackendAddr, HealthAnswer>> {
        let health = self.health.as_ref()?;
        let acts = self.settings.health.kind != HealthKind::Observe && !health.panic;
        Some(&health.unhealthy).filter(|unhealthy| acts && !unhealthy.is_empty())
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

    /// Keeps the addresses of a class until this value is dropped or other classes take
    /// their place.
    pub fn cache_addresses(&self, class: &Class, addresses: &Arc<Addresses>) {
        self.address_cache.put(class, addresses);
    }
}

impl Deref for Service {
    type Target = ServiceSnapshot;

    fn deref(&self) -> &ServiceSnapshot {
        &self.snapshot
    }
}
