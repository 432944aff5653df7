//! The settings of a service, each with its range. Pure.
//!
//! In: the text of a value, from a flag or a table. Out: a [`Setting`], or the problem
//! with the value and the remedy. Each range is defined only here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ranges::{
    balance_factor, count, duration, metadata_key, name, one_of, percent, positive, server_name,
};
use super::split::{SplitKey, SplitSetting};
use super::xds_keys::{XdsKey, XdsSetting};
use super::{Clients, HealthKind, HealthTls, LoadKind, ShedMode, SubsetMode, WhenEmpty, ZoneMode};

/// The name of a setting. A name with a dot is a key of a table: `health.kind`. A name
/// without a dot is also the name of a flag of `serve`, but for `timeout`.
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
    /// `hash.balance-factor`
    HashBalance,
    /// `zones.mode`
    ZonesMode,
    /// `zones.key`
    ZonesKey,
    /// `subset.mode`
    SubsetMode,
    /// `subset.least`
    SubsetLeast,
    /// `shed.mode`
    ShedMode,
    /// `shed.most`
    ShedMost,
    /// `clients`
    Clients,
    /// A key of what xDS tells clients beside their backends.
    Xds(XdsKey),
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
    /// The most that a backend gets of the keys, in percent of its share; 0: no bound.
    HashBalance(u32),
    /// See [`ZoneMode`].
    ZonesMode(ZoneMode),
    /// The key of the metadata that names a backend's zone.
    ZonesKey(Arc<str>),
    /// See [`SubsetMode`].
    SubsetMode(SubsetMode),
    /// The fewest backends that a client of a large service gets.
    SubsetLeast(u32),
    /// See [`ShedMode`].
    ShedMode(ShedMode),
    /// The largest part of the calls that clients drop by overload, in percent.
    ShedMost(u32),
    /// See [`Clients`].
    Clients(Clients),
    /// What xDS tells clients beside their backends.
    Xds(XdsSetting),
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
    pub const ALL: [Self; 49] = [
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
        Self::HashBalance,
        Self::ZonesMode,
        Self::ZonesKey,
        Self::SubsetMode,
        Self::SubsetLeast,
        Self::ShedMode,
        Self::ShedMost,
        Self::Clients,
        Self::Xds(XdsKey::Reports),
        Self::Xds(XdsKey::Timeout),
        Self::Xds(XdsKey::RetryOn),
        Self::Xds(XdsKey::RetryTimes),
        Self::Xds(XdsKey::RetryBackoff),
        Self::Xds(XdsKey::Requests),
        Self::Xds(XdsKey::OutlierKind),
        Self::Xds(XdsKey::OutlierInterval),
        Self::Xds(XdsKey::OutlierEjection),
        Self::Xds(XdsKey::OutlierMost),
        Self::Xds(XdsKey::OutlierThreshold),
        Self::Xds(XdsKey::OutlierDeviation),
        Self::Xds(XdsKey::OutlierBackends),
        Self::Xds(XdsKey::OutlierRequests),
        Self::Xds(XdsKey::LbKind),
        Self::Xds(XdsKey::LbHeader),
        Self::Xds(XdsKey::LbInterval),
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
            Self::HashBalance => "hash.balance-factor",
            Self::ZonesMode => "zones.mode",
            Self::ZonesKey => "zones.key",
            Self::SubsetMode => "subset.mode",
            Self::SubsetLeast => "subset.least",
            Self::ShedMode => "shed.mode",
            Self::ShedMost => "shed.most",
            Self::Clients => "clients",
            Self::Xds(key) => key.as_str(),
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
            Key::HashBalance => balance_factor(text).map(Self::HashBalance),
            Key::ZonesMode => one_of(text, &ZoneMode::ALL, ZoneMode::as_str).map(Self::ZonesMode),
            Key::ZonesKey => metadata_key(text).map(Self::ZonesKey),
            Key::SubsetMode => {
                one_of(text, &SubsetMode::ALL, SubsetMode::as_str).map(Self::SubsetMode)
            }
            Key::SubsetLeast => count(text, 8..=10_000).map(Self::SubsetLeast),
            Key::ShedMode => one_of(text, &ShedMode::ALL, ShedMode::as_str).map(Self::ShedMode),
            Key::ShedMost => count(text, 1..=95).map(Self::ShedMost),
            Key::Clients => Clients::parse(text).map(Self::Clients),
            Key::Xds(key) => XdsSetting::parse(key, text).map(Self::Xds),
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
            Self::HashBalance(_) => Key::HashBalance,
            Self::ZonesMode(_) => Key::ZonesMode,
            Self::ZonesKey(_) => Key::ZonesKey,
            Self::SubsetMode(_) => Key::SubsetMode,
            Self::SubsetLeast(_) => Key::SubsetLeast,
            Self::ShedMode(_) => Key::ShedMode,
            Self::ShedMost(_) => Key::ShedMost,
            Self::Clients(_) => Key::Clients,
            Self::Xds(setting) => Key::Xds(setting.key()),
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
            Self::SubsetMode(mode) => f.write_str(mode.as_str()),
            Self::ShedMode(mode) => f.write_str(mode.as_str()),
            Self::HealthTls(tls) => f.write_str(tls.as_str()),
            Self::Split(split) => split.fmt(f),
            Self::Clients(clients) => clients.fmt(f),
            Self::Xds(setting) => setting.fmt(f),
            Self::Guard(number)
            | Self::HealthPanic(number)
            | Self::HashBalance(number)
            | Self::SubsetLeast(number)
            | Self::ShedMost(number)
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
