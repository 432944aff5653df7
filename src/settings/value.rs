//! The settings of a service, each with its range. Pure.
//!
//! In: the text of a value, from a flag or a table. Out: a [`Setting`], or the problem
//! with the value and the remedy. Each range is defined only here.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::split::{SplitKey, SplitSetting};
use super::{HealthKind, HealthTls, LoadKind, ZoneMode};

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

/// The name of a setting. A name with a dot is a key of a table: `health.kind`. A name
/// without a dot is also the name of a flag of `serve`.
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
    /// `health.kind`
    HealthKind,
    /// `health.name`
    HealthName,
    /// `health.interval`
    HealthInterval,
    /// `health.timeout`
    HealthTimeout,
    /// `health.rise`
    HealthRise,
    /// `health.fall`
    HealthFall,
    /// `health.panic`
    HealthPanic,
    /// `health.tls`
    HealthTls,
    /// `health.ca`
    HealthCa,
    /// `health.tls-name`
    HealthTlsName,
    /// `load.kind`
    LoadKind,
    /// `load.interval`
    LoadInterval,
    /// A key of the table `split`.
    Split(SplitKey),
    /// `zones.mode`
    ZonesMode,
    /// `zones.key`
    ZonesKey,
}

/// A key and its value, which is within the key's range.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// See [`HealthKind`].
    HealthKind(HealthKind),
    /// The service that `grpc.health.v1` is asked for; empty: the server as a whole.
    HealthName(Arc<str>),
    /// How often a backend is asked.
    HealthInterval(Duration),
    /// How long an answer may take.
    HealthTimeout(Duration),
    /// How many successes in a row make a backend healthy.
    HealthRise(u32),
    /// How many failures in a row make a backend unhealthy.
    HealthFall(u32),
    /// The part of the weight, in percent, below which unhealthy backends are listed too.
    HealthPanic(u32),
    /// See [`HealthTls`].
    HealthTls(HealthTls),
    /// The file with the authority of the backends' certificates; empty: the system's.
    HealthCa(Arc<str>),
    /// The name in the backends' certificates; empty: their addresses.
    HealthTlsName(Arc<str>),
    /// See [`LoadKind`].
    LoadKind(LoadKind),
    /// How often backends are asked to report their load.
    LoadInterval(Duration),
    /// A share of the calls or of the clients for some backends.
    Split(SplitSetting),
    /// See [`ZoneMode`].
    ZonesMode(ZoneMode),
    /// The key of the metadata that names a backend's zone.
    ZonesKey(Arc<str>),
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
/// The shortest timeout of a health check: a round trip across a continent, three times.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// The longest timeout of a health check. A backend that needs longer is not healthy.
const MINUTE: Duration = Duration::from_secs(60);
/// The longest slow start and the longest delay. A backend that needs longer is better
/// registered later.
const HOUR: Duration = Duration::from_secs(3600);

impl Key {
    /// Every key, in the order in which they are shown.
    pub const ALL: [Self; 26] = [
        Self::WhenEmpty,
        Self::ReportInterval,
        Self::Guard,
        Self::KeepLost,
        Self::ProbeUnleased,
        Self::SlowStart,
        Self::FlapDelay,
        Self::HealthKind,
        Self::HealthName,
        Self::HealthInterval,
        Self::HealthTimeout,
        Self::HealthRise,
        Self::HealthFall,
        Self::HealthPanic,
        Self::HealthTls,
        Self::HealthCa,
        Self::HealthTlsName,
        Self::LoadKind,
        Self::LoadInterval,
        Self::Split(SplitKey::Select),
        Self::Split(SplitKey::By),
        Self::Split(SplitKey::Percent),
        Self::Split(SplitKey::Ramp),
        Self::Split(SplitKey::Begins),
        Self::ZonesMode,
        Self::ZonesKey,
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
            Self::HealthKind => "health.kind",
            Self::HealthName => "health.name",
            Self::HealthInterval => "health.interval",
            Self::HealthTimeout => "health.timeout",
            Self::HealthRise => "health.rise",
            Self::HealthFall => "health.fall",
            Self::HealthPanic => "health.panic",
            Self::HealthTls => "health.tls",
            Self::HealthCa => "health.ca",
            Self::HealthTlsName => "health.tls-name",
            Self::LoadKind => "load.kind",
            Self::LoadInterval => "load.interval",
            Self::Split(key) => key.as_str(),
            Self::ZonesMode => "zones.mode",
            Self::ZonesKey => "zones.key",
        }
    }

    /// Returns whether any key belongs to a table with this name.
    #[must_use]
    pub fn is_table(name: &str) -> bool {
        Self::ALL
            .into_iter()
            .filter_map(|key| key.as_str().split_once('.'))
            .any(|(table, _)| table == name)
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
            Key::WhenEmpty => one_of(text, &WhenEmpty::ALL, WhenEmpty::as_str).map(Self::WhenEmpty),
            Key::ReportInterval => duration(text, SECOND..=DAY).map(Self::ReportInterval),
            Key::Guard => percent(text).map(Self::Guard),
            Key::KeepLost => duration(text, Duration::ZERO..=DAY).map(Self::KeepLost),
            Key::ProbeUnleased => duration(text, SECOND..=DAY).map(Self::ProbeUnleased),
            Key::SlowStart => duration(text, STEPS..=HOUR).map(Self::SlowStart),
            Key::FlapDelay => duration(text, STEPS..=HOUR).map(Self::FlapDelay),
            Key::HealthKind => {
                one_of(text, &HealthKind::ALL, HealthKind::as_str).map(Self::HealthKind)
            }
            Key::HealthName => name(text).map(Self::HealthName),
            Key::HealthInterval => positive(text, SECOND..=HOUR).map(Self::HealthInterval),
            Key::HealthTimeout => positive(text, TIMEOUT_MIN..=MINUTE).map(Self::HealthTimeout),
            Key::HealthRise => count(text, 1..=100).map(Self::HealthRise),
            Key::HealthFall => count(text, 1..=100).map(Self::HealthFall),
            Key::HealthPanic => percent(text).map(Self::HealthPanic),
            Key::HealthTls => one_of(text, &HealthTls::ALL, HealthTls::as_str).map(Self::HealthTls),
            Key::HealthCa => name(text).map(Self::HealthCa),
            Key::HealthTlsName => server_name(text).map(Self::HealthTlsName),
            Key::LoadKind => one_of(text, &LoadKind::ALL, LoadKind::as_str).map(Self::LoadKind),
            Key::LoadInterval => positive(text, SECOND..=MINUTE).map(Self::LoadInterval),
            Key::Split(key) => SplitSetting::parse(key, text).map(Self::Split),
            Key::ZonesMode => one_of(text, &ZoneMode::ALL, ZoneMode::as_str).map(Self::ZonesMode),
            Key::ZonesKey => metadata_key(text).map(Self::ZonesKey),
        }
    }

    /// Returns its key.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::WhenEmpty(_) => Key::WhenEmpty,
            Self::ReportInterval(_) => Key::ReportInterval,
            Self::Guard(_) => Key::Guard,
            Self::KeepLost(_) => Key::KeepLost,
            Self::ProbeUnleased(_) => Key::ProbeUnleased,
            Self::SlowStart(_) => Key::SlowStart,
            Self::FlapDelay(_) => Key::FlapDelay,
            Self::HealthKind(_) => Key::HealthKind,
            Self::HealthName(_) => Key::HealthName,
            Self::HealthInterval(_) => Key::HealthInterval,
            Self::HealthTimeout(_) => Key::HealthTimeout,
            Self::HealthRise(_) => Key::HealthRise,
            Self::HealthFall(_) => Key::HealthFall,
            Self::HealthPanic(_) => Key::HealthPanic,
            Self::HealthTls(_) => Key::HealthTls,
            Self::HealthCa(_) => Key::HealthCa,
            Self::HealthTlsName(_) => Key::HealthTlsName,
            Self::LoadKind(_) => Key::LoadKind,
            Self::LoadInterval(_) => Key::LoadInterval,
            Self::Split(split) => Key::Split(split.key()),
            Self::ZonesMode(_) => Key::ZonesMode,
            Self::ZonesKey(_) => Key::ZonesKey,
        }
    }
}

/// The value in the form that [`Setting::parse`] reads.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WhenEmpty(when_empty) => f.write_str(when_empty.as_str()),
            Self::HealthKind(kind) => f.write_str(kind.as_str()),
            Self::LoadKind(kind) => f.write_str(kind.as_str()),
            Self::HealthName(text)
            | Self::HealthCa(text)
            | Self::HealthTlsName(text)
            | Self::ZonesKey(text) => f.write_str(text),
            Self::ZonesMode(mode) => f.write_str(mode.as_str()),
            Self::HealthTls(tls) => f.write_str(tls.as_str()),
            Self::Split(split) => split.fmt(f),
            Self::Guard(number)
            | Self::HealthPanic(number)
            | Self::HealthRise(number)
            | Self::HealthFall(number) => write!(f, "{number}"),
            Self::ReportInterval(time)
            | Self::KeepLost(time)
            | Self::ProbeUnleased(time)
            | Self::SlowStart(time)
            | Self::HealthInterval(time)
            | Self::LoadInterval(time)
            | Self::HealthTimeout(time)
            | Self::FlapDelay(time) => write!(f, "{}", humantime::format_duration(*time)),
        }
    }
}

impl WhenEmpty {
    const ALL: [Self; 3] = [Self::Wait, Self::Drop, Self::Fallback];

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

/// Parses one of some words.
fn one_of<T: Copy>(text: &str, all: &[T], as_str: fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| as_str(*one) == text);
    found.ok_or_else(|| {
        let words: Vec<_> = all.iter().map(|one| as_str(*one)).collect();
        let (last, others) = words.split_last().unwrap_or((&"", &[]));
        format!("{text:?} is none of {} and {last}", others.join(", "))
    })
}

fn name(text: &str) -> Result<Arc<str>, String> {
    match text.chars().find(|character| character.is_control()) {
        Some(control) => Err(format!("{text:?} holds the control character {control:?}")),
        None => Ok(text.into()),
    }
}

/// Parses the name of a server in a certificate; empty is none.
fn server_name(text: &str) -> Result<Arc<str>, String> {
    let odd = |character: char| !(character.is_ascii_alphanumeric() || "-._:".contains(character));
    match text.chars().find(|&character| odd(character)) {
        Some(odd) => Err(format!("{text:?} is no name of a server: {odd:?} may not be in one")),
        None => Ok(text.into()),
    }
}

/// Parses a key of metadata. Letter case is ignored, as in names that clients ask for.
fn metadata_key(text: &str) -> Result<Arc<str>, String> {
    if text.is_empty() {
        return Err("\"\" is no key of metadata: write one such as zone".to_owned());
    }
    name(&text.to_lowercase())
}

fn count(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = range.into_inner();
    number.ok_or_else(|| format!("{text:?} is no number from {least} to {most}"))
}

fn percent(text: &str) -> Result<u32, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("{text:?} is no number from 0 to 100"))
}

/// Parses a duration, which must be zero or within a range.
fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() || range.contains(&duration) {
        return Ok(duration);
    }
    let least = (*range.start()).max(SECOND)..=*range.end();
    Err(format!("{text:?} is neither 0s nor {}", from_to(&least)))
}

/// Parses a duration, which must be within a range.
fn positive(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    let told = || format!("{text:?} is not {}", from_to(&range));
    range.contains(&duration).then_some(duration).ok_or_else(told)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is no duration ({error}): write a number and a unit, such as 10s or 5m")
    })
}

fn from_to(range: &RangeInclusive<Duration>) -> String {
    let text = |duration: &Duration| humantime::format_duration(*duration).to_string();
    format!("from {} to {}", text(range.start()), text(range.end()))
}
