//! How the health of a service's backends is checked, as settings. Pure.
//!
//! In: values that are within their ranges. Out: [`HealthSettings`], and the
//! [`HealthCheck`] that they ask for. Services with equal checks share the checks of a
//! backend that they share.

use std::sync::Arc;
use std::time::Duration;

/// How the health of a service's backends is checked, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HealthSettings {
    /// How it is checked, if at all.
    pub kind: HealthKind,
    /// The service that `grpc.health.v1` is asked for; `None`: the server as a whole.
    pub name: Option<Arc<str>>,
    /// How often a backend is asked.
    pub interval: Duration,
    /// How long a connection may take, and then an answer.
    pub timeout: Duration,
    /// How many successes in a row make a backend healthy.
    pub rise: u32,
    /// How many failures in a row make a backend unhealthy.
    pub fall: u32,
    /// The part of the weight, in percent, below which unhealthy backends are listed too.
    /// 0: only if no backend is healthy.
    pub panic: u32,
    /// Whether backends are asked by TLS.
    pub tls: HealthTls,
    /// The file with the authority that signed the backends' certificates; `None`: the
    /// system's authorities.
    pub ca: Option<Arc<str>>,
    /// The name in the backends' certificates; `None`: their addresses.
    pub tls_name: Option<Arc<str>>,
}

/// How the balancer learns whether a backend is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthKind {
    /// Backends are not asked.
    Off,
    /// By `grpc.health.v1`, or by a connection where the backend does not have it.
    Grpc,
    /// By a connection.
    Tcp,
    /// As by [`Self::Grpc`], but no list changes: the result is only shown.
    Observe,
}

/// Whether backends are asked by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthTls {
    /// In plain text.
    Off,
    /// By TLS.
    On,
}

/// What is asked of one backend, and how often.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HealthCheck {
    /// The service that `grpc.health.v1` is asked for, or empty for the server as a whole.
    /// `None`: nothing is asked, a connection suffices.
    pub grpc: Option<Arc<str>>,
    /// How often it is asked.
    pub interval: Duration,
    /// How long a connection may take, and then an answer.
    pub timeout: Duration,
    /// Set if `grpc.health.v1` is asked by TLS.
    pub tls: Option<CheckTls>,
}

/// How the certificate of a backend is checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckTls {
    /// The file with the authority that signed it; `None`: the system's authorities.
    pub ca: Option<Arc<str>>,
    /// The name in it; `None`: the backend's address.
    pub name: Option<Arc<str>>,
}

impl HealthSettings {
    pub(super) const DEFAULT: Self = Self {
        kind: HealthKind::Off,
        name: None,
        // A hundred checks a second for 1,000 backends.
        interval: Duration::from_secs(10),
        // Across a continent, a tenth of that suffices.
        timeout: Duration::from_secs(1),
        rise: 1,
        // One lost packet makes no backend unhealthy.
        fall: 2,
        // The same number as `guard` has.
        panic: 50,
        tls: HealthTls::Off,
        ca: None,
        tls_name: None,
    };

    /// Returns how the certificate of a backend is checked.
    #[must_use]
    pub fn tls_of_check(&self) -> CheckTls {
        CheckTls { ca: self.ca.clone(), name: self.tls_name.clone() }
    }

    /// Returns the check that backends need; `None` if they are not checked.
    #[must_use]
    pub fn check(&self) -> Option<HealthCheck> {
        let grpc = match self.kind {
            HealthKind::Off => return None,
            HealthKind::Tcp => None,
            HealthKind::Grpc | HealthKind::Observe => Some(self.name.clone().unwrap_or_default()),
        };
        let tls = (self.tls == HealthTls::On && grpc.is_some()).then(|| self.tls_of_check());
        Some(HealthCheck { grpc, interval: self.interval, timeout: self.timeout, tls })
    }
}

impl HealthKind {
    pub(super) const ALL: [Self; 4] = [Self::Off, Self::Grpc, Self::Tcp, Self::Observe];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Observe => "observe",
        }
    }
}

impl HealthTls {
    pub(super) const ALL: [Self; 2] = [Self::Off, Self::On];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}
