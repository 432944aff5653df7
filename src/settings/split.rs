//! The settings that give a group of backends a share of the calls or of the clients. Pure.
//!
//! In: text of single values, and the settings of one table. Out: [`SplitSettings`], or the
//! problem with the value and the remedy.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::{Key, Setting};
use crate::facts::factor::Factor;
use crate::facts::ramp::{Ramp, Step};
use crate::model::Selector;

/// The share that a group of backends (the *canaries*) gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SplitSettings {
    /// What the canaries have in their metadata; `None`: nothing is split.
    pub select: Option<Selector>,
    /// What is split.
    pub by: SplitBy,
    /// The canaries' share, if there is no ramp.
    pub percent: Factor,
    /// The steps of the share.
    pub ramp: Option<Arc<[Step]>>,
    /// When the first step begins, in seconds since 1970.
    pub begins: Option<u64>,
}

/// What is split between the canaries and the other backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SplitBy {
    /// The calls of every client.
    Calls,
    /// The clients: each uses one group only.
    Clients,
}

/// A key of the table `split`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SplitKey {
    /// `split.select`
    Select,
    /// `split.by`
    By,
    /// `split.percent`
    Percent,
    /// `split.ramp`
    Ramp,
    /// `split.begins`
    Begins,
}

/// The value of a [`SplitKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitSetting {
    /// See [`SplitSettings::select`].
    Select(Option<Selector>),
    /// See [`SplitBy`].
    By(SplitBy),
    /// See [`SplitSettings::percent`].
    Percent(Factor),
    /// See [`SplitSettings::ramp`].
    Ramp(Option<Arc<[Step]>>),
    /// See [`SplitSettings::begins`].
    Begins(Option<u64>),
}

/// The shortest step. Each step is a push to every client.
const STEP_MIN: Duration = Duration::from_secs(10);
/// The longest step. An operator forgets a longer one.
const STEP_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// A hundredth of a percent, in millionths: finer shares need longer cycles than there are.
const UNIT: u32 = 100;

impl SplitSettings {
    /// Nothing is split.
    pub const NONE: Self =
        Self { select: None, by: SplitBy::Calls, percent: Factor::ZERO, ramp: None, begins: None };

    /// Returns the ramp, if there is one and something to split.
    #[must_use]
    pub fn ramp(&self) -> Option<Ramp<'_>> {
        self.select.as_ref()?;
        let begins = self.begins?.saturating_mul(1_000);
        Some(Ramp { begins, steps: self.ramp.as_deref()? })
    }

    /// Returns the setting of a key.
    #[must_use]
    pub fn get(&self, key: SplitKey) -> SplitSetting {
        match key {
            SplitKey::Select => SplitSetting::Select(self.select.clone()),
            SplitKey::By => SplitSetting::By(self.by),
            SplitKey::Percent => SplitSetting::Percent(self.percent),
            SplitKey::Ramp => SplitSetting::Ramp(self.ramp.clone()),
            SplitKey::Begins => SplitSetting::Begins(self.begins),
        }
    }

    /// Replaces one setting. A percentage ends a ramp of a weaker table, and a ramp a
    /// percentage.
    pub fn set(&mut self, setting: SplitSetting) {
        match setting {
            SplitSetting::Select(select) => self.select = select,
            SplitSetting::By(by) => self.by = by,
            SplitSetting::Percent(percent) => {
                self.percent = percent;
                (self.ramp, self.begins) = (None, None);
            }
            SplitSetting::Ramp(ramp) => {
                self.percent = Factor::ZERO;
                self.ramp = ramp;
            }
            SplitSetting::Begins(begins) => self.begins = begins,
        }
    }
}

impl SplitSetting {
    /// Parses the value of a key.
    ///
    /// # Errors
    /// If the value is outside the key's range: the value and the range.
    pub fn parse(key: SplitKey, text: &str) -> Result<Self, String> {
        let some = Some(text).filter(|text| !text.is_empty());
        match key {
            SplitKey::Select => some.map(select).transpose().map(Self::Select),
            SplitKey::By => by(text).map(Self::By),
            SplitKey::Percent => percent(text).map(Self::Percent),
            SplitKey::Ramp => some.map(ramp).transpose().map(Self::Ramp),
            SplitKey::Begins => some.map(begins).transpose().map(Self::Begins),
        }
    }

    /// Returns its key.
    #[must_use]
    pub fn key(&self) -> SplitKey {
        match self {
            Self::Select(_) => SplitKey::Select,
            Self::By(_) => SplitKey::By,
            Self::Percent(_) => SplitKey::Percent,
            Self::Ramp(_) => SplitKey::Ramp,
            Self::Begins(_) => SplitKey::Begins,
        }
    }
}

impl SplitKey {
    /// Returns whether the key says what the share is.
    #[must_use]
    pub fn is_share(self) -> bool {
        matches!(self, Self::Percent | Self::Ramp | Self::Begins)
    }

    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => "split.select",
            Self::By => "split.by",
            Self::Percent => "split.percent",
            Self::Ramp => "split.ramp",
            Self::Begins => "split.begins",
        }
    }
}

/// Returns what is wrong with the `split` keys of one table, and the key to which it
/// belongs.
pub(super) fn contradiction(table: &[Setting]) -> Option<(Key, &'static str)> {
    let has = |key| table.iter().any(|setting| setting.key() == Key::Split(key));
    let [percent, ramp, begins] = [SplitKey::Percent, SplitKey::Ramp, SplitKey::Begins].map(has);
    let (key, told) = match (percent, ramp, begins) {
        (true, true, _) => {
            let told = "the table has split.percent too: keep one of them, a fixed share or steps";
            (SplitKey::Ramp, told)
        }
        (_, true, false) => {
            let told = "the table has no split.begins: say when the first step begins, such as \
                        begins = \"2026-12-01T10:00:00Z\"";
            (SplitKey::Ramp, told)
        }
        (_, false, true) => {
            let told = "the table has no split.ramp: write its steps, or leave begins out";
            (SplitKey::Begins, told)
        }
        _ => return None,
    };
    Some((Key::Split(key), told))
}

impl fmt::Display for SplitSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(None) | Self::Ramp(None) | Self::Begins(None) => Ok(()),
            Self::Select(Some(Selector { key, value })) => write!(f, "{key}={value}"),
            Self::By(by) => f.write_str(by.as_str()),
            Self::Percent(share) => f.write_str(&Percent(*share).to_string()),
            Self::Ramp(Some(steps)) => {
                for (at, Step { share, hold }) in steps.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}%", Percent(*share))?;
                    if at + 1 < steps.len() {
                        write!(f, " {}", humantime::format_duration(Duration::from_millis(*hold)))?;
                    }
                }
                Ok(())
            }
            Self::Begins(Some(seconds)) => {
                let time = UNIX_EPOCH + Duration::from_secs(*seconds);
                write!(f, "{}", humantime::format_rfc3339_seconds(time))
            }
        }
    }
}

impl SplitBy {
    /// Returns the name as written in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Clients => "clients",
        }
    }
}

/// A share as percents, without needless zeros: `5`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub Factor);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0.as_millionths() / UNIT;
        write!(f, "{}", hundredths / 100)?;
        match hundredths % 100 {
            0 => Ok(()),
            tenths if tenths % 10 == 0 => {
                f.write_char('.')?;
                write!(f, "{}", tenths / 10)
            }
            rest => write!(f, ".{rest:02}"),
        }
    }
}

fn by(text: &str) -> Result<SplitBy, String> {
    let all = [SplitBy::Calls, SplitBy::Clients];
    let found = all.into_iter().find(|by| by.as_str() == text);
    found.ok_or_else(|| format!("{text:?} is neither calls nor clients"))
}

/// Parses `KEY=VALUE`. Letter case does not matter, as in names.
fn select(text: &str) -> Result<Selector, String> {
    let told = || {
        format!(
            "{text:?} is not KEY=VALUE: write what the canaries have in their metadata, such as \
             version=v2"
        )
    };
    let (key, value) = text.split_once('=').ok_or_else(told)?;
    let fine = |text: &str| !text.is_empty() && text.trim() == text;
    if !fine(key) || !fine(value) || text.chars().any(char::is_control) {
        return Err(told());
    }
    Ok(Selector { key: key.to_lowercase(), value: value.to_lowercase() })
}

/// Parses a share in percent, with or without the sign.
fn percent(text: &str) -> Result<Factor, String> {
    let told = || format!("{text:?} is no percentage from 0 to 100 with at most two decimals");
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || !(1..=2).contains(&decimals.len()) {
        return Err(told());
    }
    let whole: u32 = whole.parse().map_err(|_| told())?;
    let decimals: u32 = format!("{decimals:0<2}").parse().map_err(|_| told())?;
    let hundredths = whole.checked_mul(100).and_then(|whole| whole.checked_add(decimals));
    let hundredths = hundredths.filter(|&hundredths| hundredths <= 10_000).ok_or_else(told)?;
    Ok(Factor::millionths(hundredths * UNIT))
}

/// Parses the steps of a ramp: `1% 10m, 5% 30m, 100%`.
fn ramp(text: &str) -> Result<Arc<[Step]>, String> {
    let told = |what: &str| {
        format!(
            "{text:?}: {what}: write shares that grow and how long each lasts, such as \"1% 10m, 5% 30m, 100%\""
        )
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut steps: Vec<Step> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let last = at + 1 == parts.len();
        let (share, hold) = match part.split_once(' ') {
            Some((share, hold)) if !last => (share, hold.trim()),
            None if last => (*part, "0s"),
            Some(_) => return Err(told("the last step never ends, so it has no duration")),
            None => return Err(told(&format!("the step {part:?} has no duration"))),
        };
        let share = percent(share).map_err(|error| told(&error))?;
        let hold = humantime::parse_duration(hold)
            .map_err(|_| told(&format!("{hold:?} is no duration")))?;
        if !last && !(STEP_MIN..=STEP_MAX).contains(&hold) {
            let (least, most) =
                (humantime::format_duration(STEP_MIN), humantime::format_duration(STEP_MAX));
            return Err(told(&format!("a step lasts from {least} to {most}")));
        }
        if steps.last().is_some_and(|before| before.share >= share) {
            return Err(told(&format!("{}% is no growth", Percent(share))));
        }
        let hold = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        steps.push(Step { share, hold });
    }
    Ok(steps.into())
}

/// Parses a moment as RFC 3339 in UTC.
fn begins(text: &str) -> Result<u64, String> {
    let time = humantime::parse_rfc3339(text).ok();
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map(|since| since.as_secs()).ok_or_else(|| {
        format!("{text:?} is no moment: write date and time in UTC, such as 2026-12-01T10:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown() {
        let read = |key, text: &str| SplitSetting::parse(key, text);
        for (key, text) in [
            (SplitKey::Select, "version=v2"),
            (SplitKey::Select, ""),
            (SplitKey::By, "clients"),
            (SplitKey::Percent, "0.5"),
            (SplitKey::Percent, "0.05"),
            (SplitKey::Percent, "100"),
            (SplitKey::Ramp, "1% 10m, 5% 30m, 25.5% 1h, 100%"),
            (SplitKey::Begins, "2026-12-01T10:00:00Z"),
        ] {
            assert_eq!(read(key, text).unwrap().to_string(), text);
        }
        let percent = |text| read(SplitKey::Percent, text);
        assert_eq!(percent("5 %"), percent("5.00"));
        assert_eq!(percent("5"), Ok(SplitSetting::Percent(Factor::millionths(50_000))));
        assert_eq!(read(SplitKey::Select, "Version=V2"), read(SplitKey::Select, "version=v2"));
        for (key, text, expected) in [
            (SplitKey::Select, "version", "\"version\" is not KEY=VALUE"),
            (SplitKey::Select, "=v2", "\"=v2\" is not KEY=VALUE"),
            (SplitKey::By, "hosts", "\"hosts\" is neither calls nor clients"),
            (SplitKey::Percent, "101", "\"101\" is no percentage from 0 to 100"),
            (SplitKey::Percent, "-1", "\"-1\" is no percentage"),
            (SplitKey::Percent, "0.001", "\"0.001\" is no percentage from 0 to 100 with at most"),
            (SplitKey::Percent, "99999999999", "\"99999999999\" is no percentage"),
            (SplitKey::Percent, "5.", "\"5.\" is no percentage"),
            (SplitKey::Ramp, "1% 10m, 5% 1h", "\"1% 10m, 5% 1h\": the last step never ends"),
            (SplitKey::Ramp, "1%, 5%", "\"1%, 5%\": the step \"1%\" has no duration"),
            (SplitKey::Ramp, "5% 1h, 5%", "\"5% 1h, 5%\": 5% is no growth"),
            (SplitKey::Ramp, "5% 1s, 6%", "\"5% 1s, 6%\": a step lasts from 10s to 30days"),
            (SplitKey::Ramp, "5% soon, 6%", "\"5% soon, 6%\": \"soon\" is no duration"),
            (SplitKey::Begins, "tomorrow", "\"tomorrow\" is no moment: write date and time"),
        ] {
            let error = read(key, text).unwrap_err();
            assert!(error.starts_with(expected), "{error}\n{expected}");
        }
    }
}
