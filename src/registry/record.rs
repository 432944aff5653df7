//! Decodes the keys and values of every registration format, and encodes them.
//!
//! In: a prefix with its format, a key below it, and a value. Out: the
//! [`Registration`]s of the key, or a [`Rejected`] that names the value and the remedy.
//! Pure. No input makes it panic, and no input becomes an invalid address.

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

/// The longest value that is read, in bytes. etcd accepts this much in one request by
/// default, and go-micro writes its whole API into each value. Only the fields that are
/// used are kept.
const VALUE_MAX: usize = 3 * 512 * 1024;
/// How much of a value that could not be decoded is kept for people, in bytes.
const SHOWN_MAX: usize = 120;

/// The beginning of the keys at which services register. It ends with a whole segment, so
/// that `foo` never matches the keys of `foo2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The beginning of all its keys.
    pub path: String,
    /// The format of the keys and values.
    pub format: Format,
}

/// The result of decoding a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// At least one backend.
    Registers(Reading),
    /// No backend, by design, with the reason: a directory, another protocol.
    Nothing(String),
}

/// Why a registration cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The format has no field for it.
    #[error("the format {0} cannot carry {1}: etcd-naming carries everything")]
    NoRoom(Format, String),
    /// The format's key does not lie below the prefix.
    #[error("the format {0} cannot be written here: {1}")]
    Key(Format, String),
    /// The format can only be decoded.
    #[error("the format {0} can be read but not written: {1}")]
    ReadOnly(Format, &'static str),
}

/// Why a text is no valid `PREFIX[=FORMAT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The prefix is empty or only slashes.
    #[error(
        "the prefix {0:?} is the whole store: name where services register, such as /etcd3_naming/"
    )]
    Empty(String),
    /// The format is unknown.
    #[error("the format {0:?} is unknown: expected {names} or custom:NAME", names = names())]
    Format(String),
    /// The configuration does not describe this format.
    #[error(
        "the format custom:{0} is not described: add [format.{0}] to the file that serve and check \
         read with --config; nothing can be written in it"
    )]
    Custom(String),
}

impl Prefix {
    /// Parses `PREFIX` or `PREFIX=FORMAT`. Formats that operators describe are unknown
    /// to it.
    ///
    /// # Errors
    /// If the prefix is empty or the format is unknown.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        Self::parse_with(text, &Customs::new())
    }

    /// Parses `PREFIX` or `PREFIX=FORMAT`, where the format may be one of `customs`.
    ///
    /// # Errors
    /// If the prefix is empty or the format is unknown.
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

    /// Decodes a key. The result is empty if the key is not below this prefix, or is no
    /// registration by design.
    ///
    /// # Errors
    /// If the key or its value cannot be decoded.
    pub fn decode(&self, key: &[u8], value: &[u8]) -> Result<Reading, Rejected> {
        match self.read(key, value)? {
            Decoded::Registers(reading) => Ok(reading),
            Decoded::Nothing(_) => Ok(Reading::default()),
        }
    }

    /// Decodes a key. If it registers nothing, the result holds the reason.
    ///
    /// # Errors
    /// If the key or its value cannot be decoded.
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
        // Go's JSON decoder does the same: it replaces invalid UTF-8.
        let text = String::from_utf8_lossy(value);
        let remarks = Remarks::default();
        let decoded = self.decoded_text(key, below, &text, &remarks);
        if matches!(text, std::borrow::Cow::Owned(_)) {
            remarks.add("the value is not UTF-8 text: invalid bytes are replaced");
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
        let detected;
        let format = match &self.format {
            Format::Auto => {
                detected = auto::detect(key, below, text)?;
                &detected
            }
            named => named,
        };
        if let Some(decoder) = format.decoder() {
            return decoder.read(&self.path, key, text, remarks);
        }
        let (service, instance) = self.place(below)?;
        let fields = match format {
            Format::Qsf => Some(json::read_qsf(text, remarks)?),
            Format::EtcdNaming => json::read_etcd_naming(text, remarks)?,
            _ => Some(plain(text)?),
        };
        let Some(fields) = fields else {
            return Ok(Decoded::Nothing("it says that it is deleted".to_owned()));
        };
        let id = fields.id.map_or_else(|| Arc::from(instance), Arc::from);
        let (address, weight, meta) = (fields.address, fields.weight, Arc::new(fields.meta));
        let registration = Registration { service, id, address, weight, meta };
        Ok(Decoded::Registers(vec![registration].into()))
    }

    /// Splits the key below the prefix into service and id. If it has only one segment,
    /// the service is the prefix's own last segment.
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

/// Sorts prefixes into the order in which they decide: the longest first.
pub fn sort(prefixes: &mut [Prefix]) {
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
}

/// Decodes a key by the prefixes that it lies below, which must be sorted. The first
/// prefix under which the key registers something or is rejected decides. Returns that
/// prefix with the result, or `None` if the key lies below none.
#[must_use]
pub fn decode_by_prefixes<'a>(
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
            decided => return Some((prefix, decided)),
        }
    }
    nothing
}

/// Adds the remarks on a key to its registrations.
fn with(decoded: Result<Decoded, String>, remarks: Remarks) -> Result<Decoded, String> {
    match decoded {
        Ok(Decoded::Registers(Reading { registrations, .. })) => {
            Ok(Decoded::Registers(Reading { registrations, remarks: remarks.into_vec() }))
        }
        decoded => decoded,
    }
}

/// The fields of a value.
#[derive(Debug)]
struct ValueFields {
    id: Option<String>,
    address: HostPort,
    weight: Weight,
    meta: Meta,
}

fn plain(text: &str) -> Result<ValueFields, String> {
    let address = address(text)?;
    Ok(ValueFields { id: None, address, weight: Weight::DEFAULT, meta: Meta::new() })
}

fn address(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).map_err(|error| error.to_string())
}

/// Returns the names of all named formats, separated by commas.
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
