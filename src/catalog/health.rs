//! The health of backends, as values.
//!
//! In: nothing; `health_tracker` decides. Out: types for the health checks, the policy and
//! the admin port.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdSet;

use crate::model::{BackendAddr, ServiceName};
use crate::settings::HealthCheck;

/// The result of one health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthAnswer {
    /// It says SERVING.
    Serving,
    /// It takes connections, and that is all that can be asked of it.
    Alive,
    /// It says that it is not serving.
    NotServing,
    /// It says that it does not know the service whose health is asked for.
    UnknownName,
    /// It refuses connections: no process listens there.
    Refuses,
    /// It takes connections, and does not answer in time.
    Silent,
    /// It takes connections, and its answer is an error.
    Fails,
    /// No connection is made in time, or there is no route.
    Unreachable,
    /// It takes connections, and speaks no gRPC, or its certificate is wrong.
    Broken,
}

/// The backends of a service that are not healthy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The unhealthy backends, and why they are.
    pub unhealthy: BTreeMap<BackendAddr, HealthAnswer>,
    /// The backends that this balancer cannot reach and that count as healthy for now,
    /// because clients report that their calls are answered.
    pub unconfirmed: BTreeMap<BackendAddr, HealthAnswer>,
    /// Whether too little of the service is healthy, so that unhealthy backends are listed
    /// too.
    pub panic: bool,
}

/// A check of one backend. Services may share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HealthTarget {
    /// The backend.
    pub addr: BackendAddr,
    /// What it is asked.
    pub check: Arc<HealthCheck>,
}

/// All backends whose health is checked. A clone is cheap, and successive values share
/// their equal parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthTargets {
    /// The checks.
    pub all: OrdSet<HealthTarget>,
    /// The services for which the reports of clients are needed, because some of their
    /// backends cannot be reached.
    pub in_question: OrdSet<ServiceName>,
}

impl HealthAnswer {
    /// Returns whether the backend is healthy by this answer.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Serving | Self::Alive)
    }

    /// Returns whether one answer suffices: the backend itself says that it does not serve.
    #[must_use]
    pub fn is_explicit(self) -> bool {
        matches!(self, Self::NotServing | Self::UnknownName)
    }

    /// Returns whether the answer comes from the backend or its host, whichever network it
    /// came through. The other failures may be those of the balancer's network or settings.
    #[must_use]
    pub fn is_own_word(self) -> bool {
        !matches!(self, Self::Unreachable | Self::Broken)
    }

    /// Returns the answer as text for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "it says that it is serving",
            Self::Alive => "it takes connections",
            Self::NotServing => "it says that it is not serving",
            Self::UnknownName => "it does not know the service that health.name gives",
            Self::Refuses => "it refuses connections",
            Self::Silent => "it takes connections, and does not answer in time",
            Self::Fails => "it answers health checks with an error",
            Self::Unreachable => "it cannot be reached",
            Self::Broken => "it takes connections, and TLS or HTTP/2 fails",
        }
    }
}
