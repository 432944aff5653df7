//! Key and value text of every registration format → [`Registration`]s, and
//! back.
//!
//! In: a prefix with its format, a key below it, a value. Out: what the key
//! registers, or a [`Rejected`] that names the value and the remedy. Pure; no
//! input panics, and none yields an address that is not one.

use std::sync::Arc;

use crate::model::{HostPort, Meta, ServiceName, Weight};

use super::{Reading, Registration, Rejected};

use self::remarks::Remarks;

mod auto;
mod custom;
mod decoder;
mod format;
mod json;
mod pattern;
mod presets;
mod remarks;
mod shape;
mod tree;
mod weights;
mod write;

pub use custom::describe;
pub use decoder::Decoder;
pub use format::{Customs, Format, NAMED};
pub use write::write;

/// As much as etcd takes in one request unless told otherwise: go-micro writes
/// its whole API into each value. Only the fields that something is made of
/// are kept of it.
const VALUE_MAX: usize = 3 * 512 * 1024;
/// How much of a value that could not be read is kept for people, in bytes.
const SHOWN_MAX: usize = 120;

/// A place in the store where services register. Ends at a segment, so that
/// `foo` never sees the keys of `foo2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// What all of its keys begin with.
    pub path: String,
    /// How they are read.
    pub format: Format,
}

/// What a key that could be read means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// At least one backend.
    Registers(Reading),
    /// No backend, by design, and why: a directory, another protocol.
    Nothing(String),
}

/// Why something cannot be written as a registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The format has no room for it.
    #[error("the format {0} cannot carry {1}: etcd-naming carries everything")]
    NoRoom(Format, String),
    /// Its keys lie elsewhere.
    #[error("the format {0} cannot be written here: {1}")]
    Key(Format, String),
    /// It can be read only.
    #[error("the format {0} can be read but not written: {1}")]
    ReadOnly(Format, &'static str),
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
    #[error("the format {0:?} is unknown: expected {names} or custom:NAME", names = names())]
    Format(String),
    /// The configuration does not describe it.
    #[error(
        "the format custom:{0} is not described: add [format.{0}] to the file that serve and check \
         read with --config; nothing can be written in it"
    )]
    Custom(String),
}

impl Prefix {
    /// Reads `PREFIX` or `PREFIX=FORMAT`, without formats of operators' own.
    ///
    /// # Errors
    /// When the prefix is empty or the format unknown.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        Self::parse_with(text, &Customs::new())
    }

    /// Reads `PREFIX` or `PREFIX=FORMAT`.
    ///
    /// # Errors
    /// When the prefix is empty or the format unknown.
    pub fn parse_with(text: &str, customs: &Customs) -> Result<Self, PrefixError> {
        let (path, format) = match text.rsplit_once('=') {
            Some((path, format)) => (path, Format::parse(format, customs)?),
            None => (text, Format::Auto),
        };
        if path.trim_matches('/').is_empty() {
            return Err(PrefixError::Empty(text.to_owned()));
        }
        Ok(Self { path: format.bounded(path), format })
    }

    /// What a key registers: nothing if it is not below this prefix, or is no
    /// registration by design.
    ///
    /// # Errors
    /// When the key or its value cannot be read.
    pub fn decode(&self, key: &[u8], value: &[u8]) -> Result<Reading, Rejected> {
        match self.read(key, value)? {
            Decoded::Registers(reading) => Ok(reading),
            Decoded::Nothing(_) => Ok(Reading::default()),
        }
    }

    /// What a key means, and where it means nothing, why.
    ///
    /// # Errors
    /// When the key or its value cannot be read.
    pub fn read(&self, key: &[u8], value: &[u8]) -> Result<Decoded, Rejected> {
        self.decoded(key, value).map_err(|reason| Rejected { reason, value: shown(value) })
    }

    fn decoded(&self, key: &[u8], value: &[u8]) -> Result<Decoded, String> {
        let nothing = |why: &str| Ok(Decoded::Nothing(why.to_owned()));
        let Some(below) = key.strip_prefix(self.path.as_bytes()) else {
            return nothing("it is not below the prefix");
        };
        if value.is_empty() && (below.is_empty() || below.ends_with(b"/")) {
            return nothing("a directory");
        }
        let expected = "the key is not UTF-8 text: expected SERVICE/INSTANCE";
        let key = std::str::from_utf8(key).map_err(|_| expected.to_owned())?;
        let below = std::str::from_utf8(below).map_err(|_| expected.to_owned())?;
        if value.len() > VALUE_MAX {
            return Err(format!(
                "the value has {} bytes: at most {VALUE_MAX} are read",
                value.len()
            ));
        }
        // As Go reads JSON: what is no UTF-8 is replaced.
        let text = String::from_utf8_lossy(value);
        let remarks = Remarks::default();
        let decoded = self.decoded_text(key, below, &text, &remarks);
        if matches!(text, std::borrow::Cow::Owned(_)) {
            remarks.add("the value is not UTF-8 text: what is none is replaced");
            return match decoded {
                Err(_) => Err("the value is not UTF-8 text".to_owned()),
                decoded => with(decoded, remarks),
            };
        }
        with(decoded, remarks)
    }

    fn decoded_text(
        &self,
        key: &str,
        below: &str,
        text: &str,
        remarks: &Remarks,
    ) -> Result<Decoded, String> {
        let told;
        let format = match &self.format {
            Format::Auto => {
                told = auto::tell(key, below, text)?;
                &told
            }
            named => named,
        };
        if let Some(decoder) = format.decoder() {
            return decoder.read(&self.path, key, text, remarks);
        }
        let (service, instance) = self.place(below)?;
        let said = match format {
            Format::Qsf => Some(json::read_qsf(text, remarks)?),
            Format::EtcdNaming => json::read_etcd_naming(text, remarks)?,
            _ => Some(plain(text)?),
        };
        let Some(said) = said else {
            return Ok(Decoded::Nothing("it says that it is deleted".to_owned()));
        };
        let id = said.id.map_or_else(|| Arc::from(instance), Arc::from);
        let (address, weight, meta) = (said.address, said.weight, Arc::new(said.meta));
        let registration = Registration { service, id, address, weight, meta };
        Ok(Decoded::Registers(vec![registration].into()))
    }

    /// Splits what stands behind the prefix into service and instance. Where
    /// nothing stands between, the service is the prefix's own last segment.
    fn place<'a>(&self, below: &'a str) -> Result<(ServiceName, &'a str), String> {
        let own = || self.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let (service, instance) = below.rsplit_once('/').unwrap_or_else(|| (own(), below));
        if decoder::has_blank_segment(below) {
            return Err(decoder::BLANK.to_owned());
        }
        let service = ServiceName::new(service).map_err(|error| error.to_string())?;
        Ok((service, instance))
    }
}

/// Puts prefixes into the order in which they decide: the longest first.
pub fn sort(prefixes: &mut [Prefix]) {
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
}

/// What a key means, and the prefix that says so: of those that know it, the
/// first that makes anything of it. The prefixes are sorted.
#[must_use]
pub fn decide<'a>(
    prefixes: &'a [Prefix],
    key: &[u8],
    value: &[u8],
) -> Option<(&'a Prefix, Result<Decoded, Rejected>)> {
    let mut nothing = None;
    for prefix in prefixes.iter().filter(|prefix| key.starts_with(prefix.path.as_bytes())) {
        match prefix.read(key, value) {
            Ok(Decoded::Nothing(why)) => {
                nothing = nothing.or(Some((prefix, Ok(Decoded::Nothing(why)))));
            }
            meaning => return Some((prefix, meaning)),
        }
    }
    nothing
}

/// Adds what is odd about a key to what it registers.
fn with(decoded: Result<Decoded, String>, remarks: Remarks) -> Result<Decoded, String> {
    match decoded {
        Ok(Decoded::Registers(Reading { registrations, .. })) => {
            Ok(Decoded::Registers(Reading { registrations, remarks: remarks.into_vec() }))
        }
        decoded => decoded,
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

fn plain(text: &str) -> Result<Said, String> {
    let address = address(text)?;
    Ok(Said { id: None, address, weight: Weight::DEFAULT, meta: Meta::new() })
}

fn address(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).map_err(|error| error.to_string())
}

/// All formats that have names, as a sentence has them.
fn names() -> String {
    NAMED.map(|(name, _)| name).join(", ")
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
