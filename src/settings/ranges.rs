//! Parses values of settings. Each error names the value and the range.
//!
//! In: the text of a value, and its range. Out: the value, or the problem. Pure.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The shortest time of a setting that may also be 0.
const SECOND: Duration = Duration::from_secs(1);

/// Parses one of some words.
pub(super) fn one_of<T: Copy>(
    text: &str,
    all: &[T],
    as_str: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.iter().copied().find(|one| as_str(*one) == text);
    found.ok_or_else(|| {
        let words: Vec<_> = all.iter().map(|one| as_str(*one)).collect();
        let (last, others) = words.split_last().unwrap_or((&"", &[]));
        format!("{text:?} is none of {} and {last}", others.join(", "))
    })
}

pub(super) fn name(text: &str) -> Result<Arc<str>, String> {
    match text.chars().find(|character| character.is_control()) {
        Some(control) => Err(format!("{text:?} holds the control character {control:?}")),
        None => Ok(text.into()),
    }
}

/// Parses the name of a server in a certificate; empty is none.
pub(super) fn server_name(text: &str) -> Result<Arc<str>, String> {
    let odd = |character: char| !(character.is_ascii_alphanumeric() || "-._:".contains(character));
    match text.chars().find(|&character| odd(character)) {
        Some(odd) => Err(format!("{text:?} is no name of a server: {odd:?} may not be in one")),
        None => Ok(text.into()),
    }
}

/// Parses the name of a header of calls; empty is none. Letter case does not matter. Clients
/// do not hash by headers of the protocol, nor by those with binary values.
pub(super) fn header_name(text: &str) -> Result<Option<Arc<str>>, String> {
    let name = text.to_ascii_lowercase();
    let odd = |byte: u8| !(byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let reserved = name.starts_with("grpc-") || name.ends_with("-bin") || name == "content-type";
    if reserved || name.bytes().any(odd) {
        return Err(format!(
            "{text:?} is no header by whose value calls can be hashed: write one such as user-id, \
             which neither begins with grpc- nor ends in -bin"
        ));
    }
    Ok(Some(name.into()).filter(|name: &Arc<str>| !name.is_empty()))
}

/// Parses a key of metadata. Letter case is ignored, as in names that clients ask for.
pub(super) fn metadata_key(text: &str) -> Result<Arc<str>, String> {
    if text.is_empty() {
        return Err("\"\" is no key of metadata: write one such as zone".to_owned());
    }
    name(&text.to_lowercase())
}

pub(super) fn count(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = range.into_inner();
    number.ok_or_else(|| format!("{text:?} is no number from {least} to {most}"))
}

/// Parses the bound of a backend's load, in percent of its share; 0 is none. With a bound of
/// the share itself, keys would move with each stream.
pub(super) fn balance_factor(text: &str) -> Result<u32, String> {
    let factor = text.parse().ok().filter(|factor| *factor == 0 || (105..=1_000).contains(factor));
    factor.ok_or_else(|| format!("{text:?} is neither 0 nor a number from 105 to 1000"))
}

pub(super) fn percent(text: &str) -> Result<u32, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("{text:?} is no number from 0 to 100"))
}

/// Parses a duration, which must be zero or within a range.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() || range.contains(&duration) {
        return Ok(duration);
    }
    let least = Some(*range.start()).filter(|least| !least.is_zero()).unwrap_or(SECOND);
    Err(format!("{text:?} is neither 0s nor {}", from_to(&(least..=*range.end()))))
}

/// Parses a duration, which must be within a range.
pub(super) fn positive(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
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
