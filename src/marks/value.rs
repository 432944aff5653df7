//! The value of a mark in etcd: its author, reason and end. Pure.
//!
//! In: JSON. Out: a [`Value`], or the problem and the remedy. Every field may be left
//! out, and the value may be empty, so that `etcdctl put` suffices in an emergency.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::Timestamp;

/// The author of a mark, its reason, and its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Value {
    /// The author; empty if unknown.
    pub by: String,
    /// The reason; empty if unknown.
    pub why: String,
    /// When the mark was made.
    pub set: Option<Timestamp>,
    /// When the mark ends; `None`: never by itself.
    pub until: Option<Timestamp>,
    /// The part of the calls that a shed is about, 1 to 100 percent; `None`: all. Other marks
    /// have no use for it.
    pub percent: Option<u32>,
}

/// The JSON in etcd.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    #[serde(default = "current")]
    version: u32,
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<u32>,
}

/// The longest author or reason, in bytes.
pub const TEXT_MAX: usize = 1024;
/// The longest value, in bytes: more than two such texts need with every character
/// escaped.
const VALUE_MAX: usize = 32 * 1024;
const VERSION: u32 = 1;

impl Value {
    /// Parses a value in etcd.
    ///
    /// # Errors
    /// The problem and the remedy.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > VALUE_MAX {
            return Err(format!(
                "the value has {} bytes: at most {VALUE_MAX} are read",
                bytes.len()
            ));
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Only an object is accepted: serde would read a list as one, field by field.
        let object = serde_json::from_slice::<serde_json::Map<_, _>>(bytes);
        let written = object.and_then(|object| Written::deserialize(Json::Object(object)));
        let written = written.map_err(|error| {
            format!("the value is no JSON object of a mark: {error}; an empty value will do")
        })?;
        let Written { version, by, why, set, until, percent } = written;
        if version != VERSION {
            return Err(format!("version is {version}: this lookaside reads version {VERSION}"));
        }
        for (name, text) in [("by", &by), ("why", &why)] {
            if text.len() > TEXT_MAX {
                let length = text.len();
                return Err(format!("{name} has {length} bytes: at most {TEXT_MAX} are allowed"));
            }
        }
        if let Some(percent) = percent.filter(|percent| !(1..=100).contains(percent)) {
            return Err(format!("percent is {percent}: expected 1 to 100"));
        }
        let (set, until) = (timestamp("set", set)?, timestamp("until", until)?);
        Ok(Self { by, why, set, until, percent })
    }

    /// Returns the part of the calls that a shed is about, in percent.
    #[must_use]
    pub fn percent(&self) -> u32 {
        self.percent.unwrap_or(100)
    }

    /// Returns the JSON for etcd.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
        let Self { by, why, set, until, percent } = self.clone();
        let (set, until) = (text(set), text(until));
        let written = Written { version: VERSION, by, why, set, until, percent };
        serde_json::to_string(&written).unwrap_or_default()
    }
}

fn current() -> u32 {
    VERSION
}

fn timestamp(name: &str, text: Option<String>) -> Result<Option<Timestamp>, String> {
    let Some(text) = text else { return Ok(None) };
    let moment = Timestamp::parse(&text);
    moment.map(Some).ok_or_else(|| {
        format!("{name} is {text:?}: expected a moment in UTC, as in 2030-01-31T12:00:00Z")
    })
}
