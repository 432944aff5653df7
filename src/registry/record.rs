//! Key and value text of every registration format → [`Registration`]s.
//!
//! In: a prefix with its format, a key below it, a value. Out: what the key
//! registers, or a [`Rejected`] that names the value and the remedy. Pure; no
//! input panics, and none yields an address that is not one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::{HostPort, Meta, ServiceName, Weight};

use super::{Registration, Rejected};

mod json;

/// A value larger than this is no registration; the largest seen in the wild
/// (a URL with all of its parameters) is under 4 kB.
const VALUE_MAX: usize = 64 * 1024;
/// How much of a value that could not be read is kept for people, in bytes.
const SHOWN_MAX: usize = 120;

/// How keys and values below a prefix are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Told by the value: JSON with `Addr`, JSON with `addr`, else plain text.
    Auto,
    /// `host:port`.
    Plain,
    /// `{"addr":"host:port","metadata":{…}}`.
    Qsf,
    /// `{"Op":0,"Addr":"host:port","Metadata":…}`, as etcd's own client
    /// libraries write it.
    EtcdNaming,
}

/// A place in the store where services register. Ends in a slash, so that
/// `foo` never sees the keys of `foo2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// What all of its keys begin with.
    pub path: String,
    /// How they are read.
    pub format: Format,
}

/// Why something cannot be written as a registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The format has no room for it.
    #[error("the format {0} cannot carry a weight, a zone or metadata: use etcd-naming")]
    NoRoom(Format),
}

/// Why a text is no `PREFIX[=FORMAT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Nothing but a slash.
    #[error(
        "the prefix {0:?} is the whole store: name where services register, such as /etcd3_naming/"
    )]
    Empty(String),
    /// Nobody knows the format.
    #[error("the format {0:?} is unknown: expected auto, plain, qsf or etcd-naming")]
    Format(String),
}

impl Prefix {
    /// Reads `PREFIX` or `PREFIX=FORMAT`.
    ///
    /// # Errors
    /// When the prefix is empty or the format unknown.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        let (path, format) = match text.rsplit_once('=') {
            Some((path, format)) => (path, format.parse()?),
            None => (text, Format::Auto),
        };
        let inner = path.trim_end_matches('/');
        if inner.is_empty() {
            return Err(PrefixError::Empty(text.to_owned()));
        }
        Ok(Self { path: format!("{inner}/"), format })
    }

    /// What a key registers: nothing if it is not below this prefix, or marks a
    /// directory.
    ///
    /// # Errors
    /// When the key or its value cannot be read.
    pub fn decode(&self, key: &[u8], value: &[u8]) -> Result<Vec<Registration>, Rejected> {
        let rejected = |reason: String| Rejected { reason, value: shown(value) };
        let Some(below) = key.strip_prefix(self.path.as_bytes()) else { return Ok(Vec::new()) };
        if value.is_empty() && (below.is_empty() || below.ends_with(b"/")) {
            return Ok(Vec::new());
        }
        let (service, instance) = self.place(below).map_err(rejected)?;
        let said = read_value(self.format, value).map_err(rejected)?;
        let Some(said) = said else { return Ok(Vec::new()) };
        let id = said.id.map_or_else(|| Arc::from(instance), Arc::from);
        let (address, weight, meta) = (said.address, said.weight, Arc::new(said.meta));
        Ok(vec![Registration { service, id, address, weight, meta }])
    }

    /// Splits what stands behind the prefix into service and instance. Where
    /// nothing stands between, the service is the prefix's own last segment.
    fn place<'a>(&self, below: &'a [u8]) -> Result<(ServiceName, &'a str), String> {
        let below = std::str::from_utf8(below)
            .map_err(|_| "the key is not UTF-8 text: expected SERVICE/INSTANCE".to_owned())?;
        let own = || self.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let (service, instance) = below.rsplit_once('/').unwrap_or_else(|| (own(), below));
        if instance.is_empty() || service.split('/').any(str::is_empty) {
            return Err("the key has an empty segment: expected SERVICE/INSTANCE".to_owned());
        }
        let service = ServiceName::new(service).map_err(|error| error.to_string())?;
        Ok((service, instance))
    }
}

/// The key under which an instance registers.
#[must_use]
pub fn key(prefix: &str, service: &ServiceName, id: &str) -> String {
    format!("{}/{service}/{id}", prefix.trim_end_matches('/'))
}

/// The value under which an instance registers. `Auto` takes plain text where
/// that says it all.
///
/// # Errors
/// When the format has no room for something that the registration says.
pub fn encode(format: Format, registration: &Registration) -> Result<String, EncodeError> {
    let address = registration.address.to_string();
    let weighted = registration.weight != Weight::DEFAULT;
    match format {
        Format::Plain | Format::Auto if !weighted && registration.meta.is_empty() => Ok(address),
        Format::Plain => Err(EncodeError::NoRoom(format)),
        Format::Auto | Format::EtcdNaming => Ok(json::etcd_naming(registration)),
        Format::Qsf => Ok(json::qsf(registration)),
    }
}

impl FromStr for Format {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "qsf" => Ok(Self::Qsf),
            "etcd-naming" => Ok(Self::EtcdNaming),
            _ => Err(PrefixError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Qsf => "qsf",
            Self::EtcdNaming => "etcd-naming",
        })
    }
}

/// What a value says of its instance.
#[derive(Debug)]
struct Said {
    id: Option<String>,
    address: HostPort,
    weight: Weight,
    meta: Meta,
}

/// `None`: the value says by itself that nothing is registered.
fn read_value(format: Format, value: &[u8]) -> Result<Option<Said>, String> {
    if value.len() > VALUE_MAX {
        return Err(format!("the value has {} bytes: at most {VALUE_MAX} are read", value.len()));
    }
    let text = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8 text".to_owned())?;
    match format {
        Format::Plain => plain(text).map(Some),
        Format::Qsf => json::read_qsf(text).map(Some),
        Format::EtcdNaming => json::read_etcd_naming(text),
        Format::Auto if text.trim_start().starts_with('{') => json::read_either(text),
        Format::Auto => plain(text).map(Some),
    }
}

fn plain(text: &str) -> Result<Said, String> {
    let address = address(text)?;
    Ok(Said { id: None, address, weight: Weight::DEFAULT, meta: Meta::new() })
}

fn address(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).map_err(|error| error.to_string())
}

fn shown(value: &[u8]) -> String {
    let cut = &value[..value.len().min(SHOWN_MAX)];
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < value.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
