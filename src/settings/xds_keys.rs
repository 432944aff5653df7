//! The keys of the settings for xDS, each with its range. Pure.
//!
//! In: text of single values, and the settings of one table. Out: an [`XdsSetting`], or the
//! problem with the value and the remedy. All of gRPC's clients accept every value within
//! its range.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ranges::{count, duration, header_name, one_of, positive};
use super::xds::{LbKind, OutlierKind, RetryCodes, XdsSettings};
use super::{Key, Setting};

/// A key of the settings for xDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum XdsKey {
    /// `xds-reports`
    Reports,
    /// `timeout`
    Timeout,
    /// `retry.on`
    RetryOn,
    /// `retry.times`
    RetryTimes,
    /// `retry.backoff`
    RetryBackoff,
    /// `circuit-breaking.requests`
    Requests,
    /// `outlier-detection.kind`
    OutlierKind,
    /// `outlier-detection.interval`
    OutlierInterval,
    /// `outlier-detection.ejection`
    OutlierEjection,
    /// `outlier-detection.most`
    OutlierMost,
    /// `outlier-detection.threshold`
    OutlierThreshold,
    /// `outlier-detection.deviation`
    OutlierDeviation,
    /// `outlier-detection.backends`
    OutlierBackends,
    /// `outlier-detection.requests`
    OutlierRequests,
    /// `lb-policy.kind`
    LbKind,
    /// `lb-policy.header`
    LbHeader,
    /// `lb-policy.interval`
    LbInterval,
}

/// The value of an [`XdsKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdsSetting {
    key: XdsKey,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Switch(bool),
    Time(Duration),
    Number(u32),
    Codes(RetryCodes),
    Outliers(OutlierKind),
    Policy(LbKind),
    Header(Option<Arc<str>>),
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// gRPC tries a call five times at most.
const RETRIES_MAX: u32 = 4;
/// More than any client can have under way. Java reads a number of 32 bits with a sign.
const REQUESTS_MAX: u32 = 1_000_000_000;

impl XdsSettings {
    /// Returns the setting of a key.
    #[must_use]
    pub fn get(&self, key: XdsKey) -> XdsSetting {
        let Self { retry, outliers, balancing, .. } = self;
        let value = match key {
            XdsKey::Reports => Value::Switch(self.reports),
            XdsKey::Timeout => Value::Time(self.timeout),
            XdsKey::RetryOn => Value::Codes(retry.on),
            XdsKey::RetryTimes => Value::Number(retry.times),
            XdsKey::RetryBackoff => Value::Time(retry.backoff),
            XdsKey::Requests => Value::Number(self.requests),
            XdsKey::OutlierKind => Value::Outliers(outliers.kind),
            XdsKey::OutlierInterval => Value::Time(outliers.interval),
            XdsKey::OutlierEjection => Value::Time(outliers.ejection),
            XdsKey::OutlierMost => Value::Number(outliers.most),
            XdsKey::OutlierThreshold => Value::Number(outliers.threshold),
            XdsKey::OutlierDeviation => Value::Number(outliers.deviation),
            XdsKey::OutlierBackends => Value::Number(outliers.backends),
            XdsKey::OutlierRequests => Value::Number(outliers.requests),
            XdsKey::LbKind => Value::Policy(balancing.kind),
            XdsKey::LbHeader => Value::Header(balancing.header.clone()),
            XdsKey::LbInterval => Value::Time(balancing.interval),
        };
        XdsSetting { key, value }
    }

    /// Replaces one setting.
    pub fn set(&mut self, setting: XdsSetting) {
        let Self { retry, outliers, balancing, .. } = self;
        match (setting.key, setting.value) {
            (_, Value::Switch(reports)) => self.reports = reports,
            (_, Value::Codes(codes)) => retry.on = codes,
            (_, Value::Outliers(kind)) => outliers.kind = kind,
            (_, Value::Policy(kind)) => balancing.kind = kind,
            (_, Value::Header(header)) => balancing.header = header,
            (key, Value::Time(time)) => match key {
                XdsKey::RetryBackoff => retry.backoff = time,
                XdsKey::OutlierInterval => outliers.interval = time,
                XdsKey::OutlierEjection => outliers.ejection = time,
                XdsKey::LbInterval => balancing.interval = time,
                _ => self.timeout = time,
            },
            (key, Value::Number(number)) => match key {
                XdsKey::RetryTimes => retry.times = number,
                XdsKey::OutlierMost => outliers.most = number,
                XdsKey::OutlierThreshold => outliers.threshold = number,
                XdsKey::OutlierDeviation => outliers.deviation = number,
                XdsKey::OutlierBackends => outliers.backends = number,
                XdsKey::OutlierRequests => outliers.requests = number,
                _ => self.requests = number,
            },
        }
    }
}

impl XdsSetting {
    /// Parses the value of a key.
    ///
    /// # Errors
    /// If the value is outside the key's range: the value and the range.
    pub fn parse(key: XdsKey, text: &str) -> Result<Self, String> {
        let number = |range| count(text, range).map(Value::Number);
        let time = |range| positive(text, range).map(Value::Time);
        let value = match key {
            XdsKey::Reports => one_of(text, &[false, true], switch).map(Value::Switch),
            XdsKey::Timeout => duration(text, MILLISECOND..=DAY).map(Value::Time),
            XdsKey::RetryOn => RetryCodes::parse(text).map(Value::Codes),
            XdsKey::RetryTimes => number(1..=RETRIES_MAX),
            XdsKey::RetryBackoff => time(MILLISECOND..=MINUTE),
            XdsKey::Requests => number(1..=REQUESTS_MAX),
            XdsKey::OutlierKind => {
                one_of(text, &OutlierKind::ALL, OutlierKind::as_str).map(Value::Outliers)
            }
            XdsKey::OutlierInterval => time(SECOND..=HOUR),
            XdsKey::OutlierEjection => time(SECOND..=DAY),
            XdsKey::OutlierMost => number(1..=100),
            XdsKey::OutlierThreshold => number(1..=99),
            XdsKey::OutlierDeviation => number(100..=10_000),
            XdsKey::OutlierBackends => number(1..=10_000),
            XdsKey::OutlierRequests => number(1..=1_000_000),
            XdsKey::LbKind => one_of(text, &LbKind::ALL, LbKind::as_str).map(Value::Policy),
            XdsKey::LbHeader => header_name(text).map(Value::Header),
            XdsKey::LbInterval => duration(text, SECOND..=MINUTE).map(Value::Time),
        };
        Ok(Self { key, value: value? })
    }

    /// Returns its key.
    #[must_use]
    pub fn key(&self) -> XdsKey {
        self.key
    }
}

/// The value in the form that [`XdsSetting::parse`] reads.
impl fmt::Display for XdsSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Switch(on) => f.write_str(switch(*on)),
            Value::Time(time) => write!(f, "{}", humantime::format_duration(*time)),
            Value::Number(number) => write!(f, "{number}"),
            Value::Codes(codes) => f.write_str(&codes.text(", ")),
            Value::Outliers(kind) => f.write_str(kind.as_str()),
            Value::Policy(kind) => f.write_str(kind.as_str()),
            Value::Header(header) => f.write_str(header.as_deref().unwrap_or_default()),
        }
    }
}

impl XdsKey {
    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reports => "xds-reports",
            Self::Timeout => "timeout",
            Self::RetryOn => "retry.on",
            Self::RetryTimes => "retry.times",
            Self::RetryBackoff => "retry.backoff",
            Self::Requests => "circuit-breaking.requests",
            Self::OutlierKind => "outlier-detection.kind",
            Self::OutlierInterval => "outlier-detection.interval",
            Self::OutlierEjection => "outlier-detection.ejection",
            Self::OutlierMost => "outlier-detection.most",
            Self::OutlierThreshold => "outlier-detection.threshold",
            Self::OutlierDeviation => "outlier-detection.deviation",
            Self::OutlierBackends => "outlier-detection.backends",
            Self::OutlierRequests => "outlier-detection.requests",
            Self::LbKind => "lb-policy.kind",
            Self::LbHeader => "lb-policy.header",
            Self::LbInterval => "lb-policy.interval",
        }
    }
}

/// Returns what is wrong with the `lb-policy` keys of one table, and the key to which it
/// belongs.
pub(super) fn contradiction(table: &[Setting]) -> Option<(Key, &'static str)> {
    let has = |wanted: &dyn Fn(&Value) -> bool| {
        table.iter().any(|one| matches!(one, Setting::Xds(one) if wanted(&one.value)))
    };
    let hashes = has(&|value| *value == Value::Policy(LbKind::RingHash));
    (hashes && !has(&|value| matches!(value, Value::Header(Some(_))))).then_some((
        Key::Xds(XdsKey::LbKind),
        "the table has no lb-policy.header: name the header whose value decides, such as \
         header = \"user-id\"",
    ))
}

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(key: XdsKey, text: &str, expected: &str) {
        let error = XdsSetting::parse(key, text).expect_err(text);
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }

    #[test]
    fn values_are_read_and_shown() {
        let mut settings = XdsSettings::DEFAULT;
        for (key, text) in [
            (XdsKey::Reports, "on"),
            (XdsKey::Timeout, "1500ms"),
            (XdsKey::RetryOn, "unavailable,cancelled"),
            (XdsKey::RetryTimes, "4"),
            (XdsKey::RetryBackoff, "1ms"),
            (XdsKey::Requests, "1"),
            (XdsKey::OutlierKind, "success-rate"),
            (XdsKey::OutlierThreshold, "1"),
            (XdsKey::LbKind, "ring-hash"),
            (XdsKey::LbHeader, "User-ID"),
            (XdsKey::LbInterval, "1s"),
        ] {
            let setting = XdsSetting::parse(key, text).unwrap();
            settings.set(setting.clone());
            assert_eq!(settings.get(key), setting);
            assert_eq!(XdsSetting::parse(key, &setting.to_string()), Ok(setting));
        }
        assert_eq!(settings.get(XdsKey::RetryOn).to_string(), "cancelled, unavailable");
        assert_eq!(settings.get(XdsKey::LbHeader).to_string(), "user-id");
        assert_eq!(settings.get(XdsKey::Timeout).to_string(), "1s 500ms");
    }

    #[test]
    fn a_value_that_a_client_refuses_is_refused_here() {
        refuses(XdsKey::Reports, "yes", "\"yes\" is none of off and on");
        refuses(XdsKey::Timeout, "100us", "\"100us\" is neither 0s nor from 1ms to 1day");
        refuses(XdsKey::RetryOn, "5xx", "\"5xx\" is no status after which clients try again");
        refuses(XdsKey::RetryOn, "unavailable,", "\"\" is no status");
        refuses(XdsKey::RetryTimes, "0", "\"0\" is no number from 1 to 4");
        refuses(XdsKey::RetryTimes, "5", "\"5\" is no number from 1 to 4");
        refuses(XdsKey::RetryBackoff, "0s", "\"0s\" is not from 1ms to 1m");
        refuses(XdsKey::Requests, "0", "\"0\" is no number from 1 to 1000000000");
        refuses(XdsKey::OutlierMost, "101", "\"101\" is no number from 1 to 100");
        refuses(XdsKey::OutlierThreshold, "100", "\"100\" is no number from 1 to 99");
        refuses(XdsKey::OutlierInterval, "10ms", "\"10ms\" is not from 1s to 1h");
        refuses(XdsKey::LbKind, "maglev", "\"maglev\" is none of round-robin, ring-hash and");
        for header in ["a b", "grpc-timeout", "key-bin", ":path", "content-type"] {
            refuses(XdsKey::LbHeader, header, &format!("{header:?} is no header"));
        }
    }
}
