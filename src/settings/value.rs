//! The settings of a service, each with its range. Pure.
//!
//! In: the text of a value, from a flag or a table. Out: a [`Setting`], or the problem
//! with the value and the remedy. Each range is defined only here.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What clients see while a service has no usable backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenEmpty {
    /// Calls with wait-for-ready wait; the others fail.
    Wait,
    /// Every call fails.
    Drop,
    /// Clients use the addresses that they got from DNS.
    Fallback,
}

/// The name of a setting, which is also the name of a flag of `serve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `when-empty`
    WhenEmpty,
    /// `report-interval`
    ReportInterval,
    /// `guard`
    Guard,
    /// `keep-lost`
    KeepLost,
    /// `probe-unleased`
    ProbeUnleased,
    /// `slow-start`
    SlowStart,
    /// `flap-delay`
    FlapDelay,
}

/// A key and its value, which is within the key's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// See [`WhenEmpty`].
    WhenEmpty(WhenEmpty),
    /// How often clients report their calls.
    ReportInterval(Duration),
    /// The part of a service that stays listed even if probes find it dead, in percent.
    Guard(u32),
    /// How long a backend stays listed after its registration was lost.
    KeepLost(Duration),
    /// How often registrations without a lease are probed.
    ProbeUnleased(Duration),
    /// How long a backend that joins takes to get its whole share.
    SlowStart(Duration),
    /// The longest delay of a backend that comes and goes.
    FlapDelay(Duration),
}

/// The shortest interval. For [`Setting::ReportInterval`]: C-core treats anything
/// shorter as one second; other clients use it as it is. For
/// [`Setting::ProbeUnleased`]: more frequent probes are a burden for backends.
const SECOND: Duration = Duration::from_secs(1);
/// The longest time. After a day a report is useless, and an address has long been
/// given to another host.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The shortest slow start: five steps of a second, each a push to every client. Also the
/// first delay of a backend that comes and goes.
const STEPS: Duration = Duration::from_secs(5);
/// The longest slow start and the longest delay. A backend that needs longer is better
/// registered later.
const HOUR: Duration = Duration::from_secs(3600);

impl Key {
    /// Every key, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::WhenEmpty,
        Self::ReportInterval,
        Self::Guard,
        Self::KeepLost,
        Self::ProbeUnleased,
        Self::SlowStart,
        Self::FlapDelay,
    ];

    /// Returns the name as written in tables, and after `--`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WhenEmpty => "when-empty",
            Self::ReportInterval => "report-interval",
            Self::Guard => "guard",
            Self::KeepLost => "keep-lost",
            Self::ProbeUnleased => "probe-unleased",
            Self::SlowStart => "slow-start",
            Self::FlapDelay => "flap-delay",
        }
    }

    /// Returns the key with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str() == text)
    }
}

impl Setting {
    /// Parses the value of a key.
    ///
    /// # Errors
    /// If the value is outside the key's range: the value and the range.
    pub fn parse(key: Key, text: &str) -> Result<Self, String> {
        match key {
            Key::WhenEmpty => when_empty(text).map(Self::WhenEmpty),
            Key::ReportInterval => duration(text, SECOND..=DAY).map(Self::ReportInterval),
            Key::Guard => percent(text).map(Self::Guard),
            Key::KeepLost => duration(text, Duration::ZERO..=DAY).map(Self::KeepLost),
            Key::ProbeUnleased => duration(text, SECOND..=DAY).map(Self::ProbeUnleased),
            Key::SlowStart => duration(text, STEPS..=HOUR).map(Self::SlowStart),
            Key::FlapDelay => duration(text, STEPS..=HOUR).map(Self::FlapDelay),
        }
    }

    /// Returns its key.
    #[must_use]
    pub fn key(self) -> Key {
        match self {
            Self::WhenEmpty(_) => Key::WhenEmpty,
            Self::ReportInterval(_) => Key::ReportInterval,
            Self::Guard(_) => Key::Guard,
            Self::KeepLost(_) => Key::KeepLost,
            Self::ProbeUnleased(_) => Key::ProbeUnleased,
            Self::SlowStart(_) => Key::SlowStart,
            Self::FlapDelay(_) => Key::FlapDelay,
        }
    }
}

/// The value in the form that [`Setting::parse`] reads.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WhenEmpty(when_empty) => f.write_str(when_empty.as_str()),
            Self::Guard(percent) => write!(f, "{percent}"),
            Self::ReportInterval(time)
            | Self::KeepLost(time)
            | Self::ProbeUnleased(time)
            | Self::SlowStart(time)
            | Self::FlapDelay(time) => write!(f, "{}", humantime::format_duration(*time)),
        }
    }
}

impl WhenEmpty {
    /// Returns the name as written in flags and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Drop => "drop",
            Self::Fallback => "fallback",
        }
    }
}

fn when_empty(text: &str) -> Result<WhenEmpty, String> {
    let all = [WhenEmpty::Wait, WhenEmpty::Drop, WhenEmpty::Fallback];
    let found = all.into_iter().find(|one| one.as_str() == text);
    found.ok_or_else(|| format!("{text:?} is none of wait, drop and fallback"))
}

fn percent(text: &str) -> Result<u32, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("{text:?} is no number from 0 to 100"))
}

/// Parses a duration, which must be zero or within a range.
fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is no duration ({error}): write a number and a unit, such as 10s or 5m")
    })?;
    if duration.is_zero() || range.contains(&duration) {
        return Ok(duration);
    }
    let least = humantime::format_duration((*range.start()).max(SECOND));
    let most = humantime::format_duration(*range.end());
    Err(format!("{text:?} is neither 0s nor from {least} to {most}"))
}
