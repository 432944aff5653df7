//! Held, guarded and down backends, as values.
//!
//! In: nothing; `guard` and `index` decide. Out: types for the prober and the admin port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::{OrdMap, OrdSet};

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::settings::{ServiceSettings, Settings};

/// The operator's rules for one service: for lost backends, and for backends without a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a backend is held at most. Zero: it leaves at once.
    pub keep_lost: Duration,
    /// The part of a service's last good list that stays whatever probes find, in
    /// percent. Zero: none.
    pub guard: u32,
    /// How often a registration without a lease is probed. Zero: never.
    pub probe_unleased: Duration,
}

/// How a registration was lost. It is unknown whether its backend is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// Its lease expired or was revoked.
    LeaseLost,
    /// Its key was deleted in one sweep with a large share of its service.
    Swept,
    /// Its key was missing when the registry was read again.
    Missing,
    /// Its key had another address when a registry was read that had gone back to an
    /// older state, or was another one.
    WentBack,
}

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The backend takes connections.
    Takes,
    /// The backend refuses connections: no process listens there.
    Refuses,
    /// No answer came in time, or the network reported that there is no route.
    Silent,
}

/// A backend that is listed although its registration was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBackend {
    /// When the registration was lost.
    pub since: Instant,
    /// How the registration was lost.
    pub why: LossReason,
    /// The answer to the newest probe.
    pub answer: Option<ProbeResult>,
}

/// All held, guarded and down backends, and the addresses to probe. A clone is cheap, and
/// successive values share their equal parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Liveness {
    /// The backends that are listed although their registrations were lost.
    pub held: OrdMap<ServiceName, OrdMap<BackendAddr, HeldBackend>>,
    /// The services that keep backends that do not answer, because too few would be left.
    pub guarded: OrdSet<ServiceName>,
    /// The backends without a lease that are not listed, because they refuse connections.
    pub down: OrdMap<ServiceName, Vec<Endpoint>>,
    /// The addresses without a lease that are to be probed, and how often.
    pub unleased: OrdMap<BackendAddr, Duration>,
    /// The addresses of held backends, which are probed every second.
    pub held_addresses: OrdSet<BackendAddr>,
    pub(crate) held_len: usize,
}

impl Rules {
    /// Lost backends leave at once, and nothing is probed.
    pub const OFF: Self =
        Self { keep_lost: Duration::ZERO, guard: 0, probe_unleased: Duration::ZERO };
}

impl From<&ServiceSettings> for Rules {
    fn from(settings: &ServiceSettings) -> Self {
        let ServiceSettings { keep_lost, guard, probe_unleased, .. } = settings.clone();
        Self { keep_lost, guard, probe_unleased }
    }
}

/// Applies the same rules to every service, with the defaults of all other settings.
impl From<Rules> for Arc<Settings> {
    fn from(Rules { keep_lost, guard, probe_unleased }: Rules) -> Self {
        ServiceSettings { keep_lost, guard, probe_unleased, ..ServiceSettings::DEFAULT }.into()
    }
}

impl Liveness {
    /// Returns how many backends are held.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.held_len
    }

    /// Returns how many backends of a service are held.
    #[must_use]
    pub fn held_in(&self, service: &ServiceName) -> usize {
        self.held.get(service).map_or(0, OrdMap::len)
    }

    /// Returns the held backend of a service with this address, if there is one.
    #[must_use]
    pub fn held(&self, service: &ServiceName, addr: BackendAddr) -> Option<&HeldBackend> {
        self.held.get(service)?.get(&addr)
    }
}

impl LossReason {
    /// Returns the reason as text for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeaseLost => "its lease is gone: expired or revoked",
            Self::Swept => "its key was deleted in one stroke with most of its service",
            Self::Missing => "its key was missing when the registry was read again",
            Self::WentBack => "its key had an older value when the registry had gone back",
        }
    }
}

impl ProbeResult {
    /// Returns the answer as text for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Takes => "takes connections",
            Self::Refuses => "refuses connections",
            Self::Silent => "does not answer",
        }
    }
}
