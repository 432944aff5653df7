//! What is known of backends whose registration and whose life disagree.
//!
//! Values for those who probe and those who show; `guard` and `index` decide.

use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::{OrdMap, OrdSet};

use crate::model::{BackendAddr, Endpoint, ServiceName};
use crate::settings::{ServiceSettings, Settings};

/// What the operator decides about doubt, for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a backend whose registration went in doubt stays listed at
    /// most; zero: it goes at once.
    pub keep: Duration,
    /// The part of a service's last good list that stays whatever probes say,
    /// in percent; zero: none.
    pub share: u32,
    /// How often a registration without a lease is probed; zero: never.
    pub probe_unleased: Duration,
}

/// Why a registration is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Its lease is gone, expired or revoked.
    LeaseLost,
    /// It was deleted in one stroke with a large share of its service.
    Swept,
    /// It was not there when the registry was read again.
    Missing,
    /// Its key had another address when a registry was read that had gone back
    /// to an older state, or was another one.
    WentBack,
}

/// What a probe of a backend came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It takes connections.
    Takes,
    /// It refuses them: nobody listens there.
    Refuses,
    /// Nothing came back in time, or the network said that there is no way.
    Silent,
}

/// A listed backend whose registration is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Since when it is gone.
    pub since: Instant,
    /// Why that is in doubt.
    pub why: Doubt,
    /// What the newest probe came to.
    pub answer: Option<Answer>,
}

/// All of it. A copy costs next to nothing, and two that follow each other share
/// what is equal in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubts {
    /// Listed though the registration is gone.
    pub held: OrdMap<ServiceName, OrdMap<BackendAddr, Held>>,
    /// Services that keep backends which do not answer, for too few would be
    /// left.
    pub guarded: OrdSet<ServiceName>,
    /// Registered without a lease and not listed: they refuse connections.
    pub down: OrdMap<ServiceName, Vec<Endpoint>>,
    /// Registered without a lease and to be probed, and how often.
    pub unleased: OrdMap<BackendAddr, Duration>,
    /// To be probed now and again, closely: those that are held.
    pub suspects: OrdSet<BackendAddr>,
    pub(crate) held_len: usize,
}

impl Rules {
    /// What is in doubt goes, and nothing is probed.
    pub const OFF: Self = Self { keep: Duration::ZERO, share: 0, probe_unleased: Duration::ZERO };
}

impl From<&ServiceSettings> for Rules {
    fn from(settings: &ServiceSettings) -> Self {
        let ServiceSettings { keep_lost: keep, guard: share, probe_unleased, .. } = *settings;
        Self { keep, share, probe_unleased }
    }
}

/// The same rules for every service, and the defaults of everything else.
impl From<Rules> for Arc<Settings> {
    fn from(Rules { keep, share, probe_unleased }: Rules) -> Self {
        let (keep_lost, guard) = (keep, share);
        ServiceSettings { keep_lost, guard, probe_unleased, ..ServiceSettings::DEFAULT }.into()
    }
}

impl Doubts {
    /// How many backends are held.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.held_len
    }

    /// How many backends of a service are held.
    #[must_use]
    pub fn held_in(&self, service: &ServiceName) -> usize {
        self.held.get(service).map_or(0, OrdMap::len)
    }

    /// Why one is held, if it is.
    #[must_use]
    pub fn held(&self, service: &ServiceName, addr: BackendAddr) -> Option<&Held> {
        self.held.get(service)?.get(&addr)
    }
}

impl Doubt {
    /// For people.
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

impl Answer {
    /// For people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Takes => "takes connections",
            Self::Refuses => "refuses connections",
            Self::Silent => "does not answer",
        }
    }
}
