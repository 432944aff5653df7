//! What xDS tells clients beside their backends, as settings. Pure.
//!
//! In: values that are within their ranges. Out: [`XdsSettings`].

use std::sync::Arc;
use std::time::Duration;

/// What xDS tells the clients of a service beside their backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct XdsSettings {
    /// Whether clients report their calls.
    pub reports: bool,
    /// The longest time of a call; zero: what the caller gives it.
    pub timeout: Duration,
    /// Which calls are tried again.
    pub retry: RetrySettings,
    /// How many calls of one client process may be under way.
    pub requests: u32,
    /// When a client leaves out a backend whose calls fail.
    pub outliers: OutlierSettings,
    /// How a client chooses a backend.
    pub balancing: LbSettings,
}

/// Which calls are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetrySettings {
    /// After which statuses; none: no call is.
    pub on: RetryCodes,
    /// How often.
    pub times: u32,
    /// The mean pause before the first time. Each further one is twice as long, up to ten
    /// times.
    pub backoff: Duration,
}

/// A set of statuses: a bit for each that clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryCodes(u8);

/// When a client leaves out a backend whose calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OutlierSettings {
    /// By which measure, if at all.
    pub kind: OutlierKind,
    /// How often backends are looked at.
    pub interval: Duration,
    /// How long a backend is left out for the first time.
    pub ejection: Duration,
    /// The part of the backends that may be left out, in percent.
    pub most: u32,
    /// The percentage of failures beyond which a backend is left out.
    pub threshold: u32,
    /// How far below the mean rate of successes a backend is left out, in thousandths of the
    /// standard deviation.
    pub deviation: u32,
    /// How many backends must have enough calls.
    pub backends: u32,
    /// How many calls of an interval are enough.
    pub requests: u32,
}

/// The measure by which a backend is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutlierKind {
    /// No backend is left out.
    Off,
    /// The percentage of its failures.
    FailurePercentage,
    /// Its rate of successes, compared with those of the other backends.
    SuccessRate,
}

/// How a client chooses a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LbSettings {
    /// By which policy.
    pub kind: LbKind,
    /// The header whose value decides, with [`LbKind::RingHash`].
    pub header: Option<Arc<str>>,
    /// How often backends report their load, with [`LbKind::Weighted`]; zero: with each
    /// call.
    pub interval: Duration,
}

/// The policy by which a client chooses a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LbKind {
    /// Backends take turns, by lookaside's weights.
    RoundRobin,
    /// Calls with the same value of a header go to the same backend.
    RingHash,
    /// Clients weigh backends by the load that these report.
    Weighted,
}

/// The number of calls under way that gRPC's clients take for the limit without a setting.
pub const REQUESTS_DEFAULT: u32 = 1_024;

impl XdsSettings {
    pub(super) const DEFAULT: Self = Self {
        // Each client opens a second stream for them.
        reports: false,
        timeout: Duration::ZERO,
        retry: RetrySettings {
            on: RetryCodes(0),
            // gRPC's defaults.
            times: 1,
            backoff: Duration::from_millis(25),
        },
        requests: REQUESTS_DEFAULT,
        // gRPC's defaults.
        outliers: OutlierSettings {
            kind: OutlierKind::Off,
            interval: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            most: 10,
            threshold: 85,
            deviation: 1_900,
            backends: 5,
            requests: 50,
        },
        balancing: LbSettings { kind: LbKind::RoundRobin, header: None, interval: Duration::ZERO },
    };
}

impl RetryCodes {
    /// The statuses that gRPC's clients know in a retry policy.
    pub(super) const ALL: [&str; 5] =
        ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

    /// Returns whether no call is tried again.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the names of the statuses.
    #[must_use]
    pub fn text(self, between: &str) -> String {
        let names = Self::ALL.iter().enumerate().filter(|(at, _)| self.0 >> at & 1 == 1);
        names.map(|(_, name)| *name).collect::<Vec<_>>().join(between)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        let mut codes = Self(0);
        for name in names {
            let at = Self::ALL.iter().position(|one| *one == name);
            let at = at.ok_or_else(|| {
                let all = Self::ALL.join(", ");
                format!("{name:?} is no status after which clients try again: write some of {all}")
            })?;
            codes.0 |= 1 << at;
        }
        Ok(codes)
    }
}

impl OutlierKind {
    pub(super) const ALL: [Self; 3] = [Self::Off, Self::FailurePercentage, Self::SuccessRate];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::FailurePercentage => "failure-percentage",
            Self::SuccessRate => "success-rate",
        }
    }
}

impl LbKind {
    pub(super) const ALL: [Self; 3] = [Self::RoundRobin, Self::RingHash, Self::Weighted];

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::RingHash => "ring-hash",
            Self::Weighted => "weighted",
        }
    }
}
