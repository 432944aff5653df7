//! A service: everything that decides the lists of its clients.
//!
//! In: a snapshot, settings, marks and facts. Out: immutable values. A change
//! of any part is published as a new version, so that a result made from a value can be
//! cached by its version.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::facts::cells::Cells;
use crate::facts::factor::Factor;
use crate::facts::zone_shares::ZoneShares;
use crate::marks::ServiceMarks;
use crate::model::{BackendAddr, Class, Endpoint};
use crate::settings::{HealthKind, ServiceSettings};

use super::ServiceSnapshot;
use super::addresses::Addresses;
use super::cells::CellSizes;
use super::class_cache::ClassCache;
use super::derived::Derived;
use super::health::{Health, HealthAnswer};
use super::load::LoadFactors;
use super::newcomers::Newcomers;
use super::split::{Candidate, Split};
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
    /// What operators' marks say about its backends and clients.
    pub marks: ServiceMarks,
    /// What is known of its backends besides.
    pub facts: Facts,
    /// Made when it is first needed: of many services, clients ask for few.
    caches: Derived<OnceLock<Box<Caches>>>,
}

/// The results that policy makes from a value and keeps with it.
#[derive(Default)]
struct Caches {
    addresses: ClassCache<Addresses>,
    candidates: ClassCache<Vec<Candidate>>,
    zone_shares: ShareCache,
    cells: OnceLock<Cells>,
}

/// What is known of a service's backends besides their registrations. Cheap to clone. Each
/// part is `None` if it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The backends that are starting or delayed.
    pub newcomers: Option<Arc<Newcomers>>,
    /// The backends that are not healthy.
    pub health: Option<Arc<Health>>,
    /// The backends whose reported load changes their shares.
    pub load: Option<Arc<LoadFactors>>,
    /// The share that the ramp of its split has reached; `None` without a ramp.
    pub ramp_share: Option<Factor>,
    /// What is known of zones, if clients prefer the backends of their own.
    pub zones: Option<Arc<Zones>>,
    /// The sizes of its cells, if clients get a part of its backends.
    pub cells: Option<Arc<CellSizes>>,
    /// How often this balancer has placed clients on other cells, or moved keys, so that each
    /// such change is a new value of the service.
    pub placed: u64,
    /// The part of their calls that clients drop because it is overloaded, in percent.
    pub overload_shed: Option<u32>,
}

impl Service {
    /// Makes a service without marks and facts.
    #[must_use]
    pub fn new(
        version: u64,
        snapshot: impl Into<Arc<ServiceSnapshot>>,
        settings: impl Into<Arc<ServiceSettings>>,
    ) -> Self {
        let (snapshot, settings) = (snapshot.into(), settings.into());
        let marks = ServiceMarks::default();
        let (facts, caches) = Default::default();
        Self { version, snapshot, settings, marks, facts, caches }
    }

    /// Returns the service with these marks.
    #[must_use]
    pub fn with_marks(self, marks: ServiceMarks) -> Self {
        Self { marks, caches: Derived::default(), ..self }
    }

    /// Returns the service with these facts.
    #[must_use]
    pub fn with_facts(self, facts: Facts) -> Self {
        Self { facts, caches: Derived::default(), ..self }
    }

    /// Returns the service as another version.
    #[must_use]
    pub(super) fn numbered(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Returns what health checks find wrong with a backend, if they count it as unhealthy.
    #[must_use]
    pub fn unhealthy(&self, endpoint: &Endpoint) -> Option<HealthAnswer> {
        self.facts.health.as_ref()?.unhealthy.get(&endpoint.addr).copied()
    }

    /// Returns the backends that are left out of lists because they are unhealthy, unless a
    /// class has no others.
    #[must_use]
    pub fn left_out(&self) -> Option<&BTreeMap<BackendAddr, HealthAnswer>> {
        let health = self.facts.health.as_ref()?;
        let acts = self.settings.health.kind != HealthKind::Observe && !health.panic;
        Some(&health.unhealthy).filter(|unhealthy| acts && !unhealthy.is_empty())
    }

    /// Returns the split in force; `None` if nothing is split.
    #[must_use]
    pub fn split(&self) -> Option<Split<'_>> {
        Split::new(&self.settings, self.facts.ramp_share)
    }

    /// Returns until when a backend is not listed because it came and went too often.
    #[must_use]
    pub fn delayed(&self, endpoint: &Endpoint) -> Option<Instant> {
        self.facts.newcomers.as_ref()?.delayed.get(&endpoint.addr).copied()
    }

    /// Returns the factor of a backend's weight by its reported load.
    #[must_use]
    pub fn load_factor(&self, endpoint: &Endpoint) -> Factor {
        let factor = self.facts.load.as_ref().and_then(|all| all.0.get(&endpoint.addr));
        factor.copied().unwrap_or(Factor::ONE)
    }

    /// Returns the factor of a backend's weight by slow start.
    #[must_use]
    pub fn factor(&self, endpoint: &Endpoint) -> Factor {
        let factor = self.facts.newcomers.as_ref().and_then(|all| all.starting.get(&endpoint.addr));
        factor.copied().unwrap_or(Factor::ONE)
    }

    /// Returns the addresses of a class, if they are cached.
    #[must_use]
    pub fn cached_addresses(&self, class: &Class) -> Option<Arc<Addresses>> {
        self.caches.get()?.addresses.get(class)
    }

    /// Returns the split of the calls by zone, which `make` makes at the first call.
    pub fn zone_shares(&self, make: impl FnOnce() -> ZoneShares) -> &ZoneShares {
        self.caches().zone_shares.get_or_init(make)
    }

    /// Returns the cells of its backends, which `make` makes at the first call.
    pub fn cells(&self, make: impl FnOnce() -> Cells) -> &Cells {
        self.caches().cells.get_or_init(make)
    }

    /// Returns the cells of its backends, if they were made.
    #[must_use]
    pub fn cached_cells(&self) -> Option<&Cells> {
        self.caches.get()?.cells.get()
    }

    /// Keeps the addresses of a class until this value is dropped or other classes take
    /// their place.
    pub fn cache_addresses(&self, class: &Class, addresses: &Arc<Addresses>) {
        self.caches().addresses.put(class, addresses);
    }

    /// Returns the backends to which keys of a class can be assigned, if they are cached.
    #[must_use]
    pub fn cached_candidates(&self, class: &Class) -> Option<Arc<Vec<Candidate>>> {
        self.caches.get()?.candidates.get(class)
    }

    /// Keeps the candidates of a class, as [`Self::cache_addresses`] keeps addresses.
    pub fn cache_candidates(&self, class: &Class, candidates: &Arc<Vec<Candidate>>) {
        self.caches().candidates.put(class, candidates);
    }

    fn caches(&self) -> &Caches {
        self.caches.get_or_init(Box::default)
    }
}

impl Deref for Service {
    type Target = ServiceSnapshot;

    fn deref(&self) -> &ServiceSnapshot {
        &self.snapshot
    }
}
