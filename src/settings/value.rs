//! The settings that a service can have, each with its range. Pure.
//!
//! In: the text of a value, from a flag or from a table. Out: a [`Setting`], or what
//! is wrong with the value and the remedy. The one definition of each range.

use std::fmt;
use std::time::Duration;

/// What clients of a service without usable backends see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenEmpty {
    /// Calls that will not wait fail, the others wait.
    Wait,
    /// Every call fails.
    Drop,
    /// Clients use the addresses that DNS gave them.
    Fallback,
}

/// The name of a setting; a flag of `serve` has the same.
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
}

/// A key and its value, which lies within the key's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// See [`WhenEmpty`].
    WhenEmpty(WhenEmpty),
    /// How often clients report their calls.
    ReportInterval(Duration),
    /// The part of a service that stays listed, in percent.
    Guard(u32),
    /// How long a lost backend stays listed.
    KeepLost(Duration),
    /// How often registrations without a lease are probed.
    ProbeUnleased(Duration),
}

/// For [`Setting::ReportInterval`]: C-core takes anything shorter for a second, others
/// take it at its word. For [`Setting::ProbeUnleased`]: more often, and probes are load.
const SECOND: Duration = Duration::from_secs(1);
/// Beyond a day a report says nothing any more, and an address has long been somebody
/// else's.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Key {
    /// Every key, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::WhenEmpty, Self::ReportInterval, Self::Guard, Self::KeepLost, Self::ProbeUnleased];

    /// As written in tables, and after `--`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WhenEmpty => "when-empty",
            Self::ReportInterval => "report-interval",
            Self::Guard => "guard",
            Self::KeepLost => "keep-lost",
            Self::ProbeUnleased => "probe-unleased",
        }
    }

    /// The key of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str() == text)
    }
}

impl Setting {
    /// # Errors
    /// When the value lies outside the key's range: names the value and the range.
    pub fn parse(key: Key, text: &str) -> Result<Self, String> {
        match key {
            Key::WhenEmpty => when_empty(text).map(Self::WhenEmpty),
            Key::ReportInterval => duration(text, SECOND).map(Self::ReportInterval),
            Key::Guard => percent(text).map(Self::Guard),
            Key::KeepLost => duration(text, Duration::ZERO).map(Self::KeepLost),
            Key::ProbeUnleased => duration(text, SECOND).map(Self::ProbeUnleased),
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(self) -> Key {
        match self {
            Self::WhenEmpty(_) => Key::WhenEmpty,
            Self::ReportInterval(_) => Key::ReportInterval,
            Self::Guard(_) => Key::Guard,
            Self::KeepLost(_) => Key::KeepLost,
            Self::ProbeUnleased(_) => Key::ProbeUnleased,
        }
    }
}

/// The value, as [`Setting::parse`] reads it.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WhenEmpty(when_empty) => f.write_str(when_empty.as_str()),
            Self::Guard(percent) => write!(f, "{percent}"),
            Self::ReportInterval(time) | Self::KeepLost(time) | Self::ProbeUnleased(time) => {
                write!(f, "{}", humantime::format_duration(*time))
            }
        }
    }
}

impl WhenEmpty {
    /// As written in flags and tables.
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

/// Zero, or from `least` to a day.
fn duration(text: &str, least: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is no duration ({error}): write a number and a unit, such as 10s or 5m")
    })?;
    if duration.is_zero() || (least..=DAY).contains(&duration) {
        return Ok(duration);
    }
    Err(format!("{text:?} is neither 0s nor from 1s to 1day"))
}
