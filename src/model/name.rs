//! Names: a service's as registered, a client's as typed, and how the one is
//! found by the other.
//!
//! The rules for users: drop the port, a trailing dot and %-encoding; drop the
//! zone; what is left is the service as registered, or its labels reversed are
//! the service's path. Leading labels `key--value` belong to the service's name
//! where a service has that name, and otherwise select among the instances. An
//! exact match wins; letter case is folded only where there is none.

use std::fmt;
use std::sync::Arc;

/// A service's name as registered: `hello`, `greet.rpc`, `dev/game`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// What a client asks for.
///
/// A name with leading labels `key--value` can be read in several ways, for a
/// service's name may begin with such a label too. The reading with the fewest
/// selectors that some service answers to is what the client means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The service's name if every label that can select does.
    pub name: Arc<str>,
    /// Which of the service's instances are meant then; all of these must
    /// match. Sorted, so that equal wishes are equal.
    pub selectors: Vec<Selector>,
    /// The other ways to read it, the one with the fewest selectors first;
    /// none for most names.
    longer: Vec<Reading>,
}

/// One way to read a typed name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reading {
    /// What is compared with services' names.
    pub name: Arc<str>,
    /// What the labels before it select. Sorted.
    pub selectors: Vec<Selector>,
}

/// One `key--value` label: `id--7`, `zone--a`, `version--v2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// `id`, or a key of the instances' metadata.
    pub key: String,
    /// What must stand there; letter case does not matter, for DNS knows none.
    pub value: String,
}

/// The DNS zone whose names mean services: lower case, no dot at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(String);

/// Why a text is no name. Its text names the value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was there, or nothing but zone and selectors.
    #[error("the name {0:?} holds no service: expected SERVICE or SERVICE.ZONE")]
    Empty(String),
    /// Over 255 bytes (the protocol's own limit; load_balancer.proto, name).
    #[error("the name has {0} bytes: at most {NAME_MAX} are allowed")]
    TooLong(usize),
    /// A control character, white space, or what decodes to no UTF-8.
    #[error(
        "the name {0:?} has a character that no name may have: use letters, digits, '.', '-', '_' and '/'"
    )]
    Character(String),
    /// A service's name that no typed name could mean.
    #[error(
        "the service {0:?} has an empty label, so no client can ask for it: give every part a name"
    )]
    Label(String),
    /// No zone at all.
    #[error("{0:?} is no DNS zone: expected labels such as lookaside.internal")]
    Zone(String),
}

/// The protocol's limit for a client's name, in bytes.
pub const NAME_MAX: usize = 255;
/// C-core cuts a client's name at this many bytes (`load_balancer_api.h`).
const CORE_CUTS_AT: usize = 128;
/// Separates key and value within a selecting label.
const SELECTS: &str = "--";
/// More leading labels than this do not select: each is one more way to read
/// the name.
const SELECTORS_MAX: usize = 8;
/// Labels of internationalised names begin so (RFC 5890); they select nothing.
const PUNYCODE: &str = "xn";

impl ServiceName {
    /// # Errors
    /// When the text is empty, too long, or holds what no client could type.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty(text.to_owned()));
        }
        check_text(text)?;
        if text.split(['.', '/']).any(str::is_empty) {
            return Err(NameError::Label(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// As registered.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which every way of typing this name is found.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.0)
    }

    /// The name under which DNS knows the service, without the zone:
    /// `dev/game` is `game.dev`.
    #[must_use]
    pub fn dns_name(&self) -> String {
        self.0.rsplit('/').collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// Reads a name as a client sends it, or as DNS asks for it.
    ///
    /// # Errors
    /// When no service can be meant by it.
    pub fn parse(raw: &str, zone: &Zone) -> Result<Self, NameError> {
        if raw.len() > NAME_MAX {
            return Err(NameError::TooLong(raw.len()));
        }
        let decoded = percent_decode(raw).ok_or_else(|| NameError::Character(raw.to_owned()))?;
        check_text(&decoded)?;
        let name = without_port(&decoded);
        let name = name.strip_suffix('.').unwrap_or(name);
        let name = match zone.strip(name) {
            None if raw.len() == CORE_CUTS_AT => zone.strip_cut(name),
            None => name,
            Some(inner) => inner,
        };
        if name.is_empty() || name.split('.').any(str::is_empty) {
            return Err(NameError::Empty(raw.to_owned()));
        }
        let mut longer = readings(name);
        let Reading { name, selectors } = longer.pop().unwrap_or_else(|| Reading::whole(name));
        Ok(Self { name, selectors, longer })
    }

    /// The service of exactly this name, whatever characters it has.
    #[must_use]
    pub fn exactly(service: &str) -> Self {
        let Reading { name, selectors } = Reading::whole(service);
        Self { name, selectors, longer: Vec::new() }
    }

    /// The ways to read the name that have fewer selectors than
    /// [`Target::selectors`]; the fewest first.
    #[must_use]
    pub fn longer(&self) -> &[Reading] {
        &self.longer
    }

    /// What the name selects among the instances of a service that it means.
    #[must_use]
    pub fn selectors_for(&self, service: &ServiceName) -> &[Selector] {
        let meant = self.longer.iter().find(|one| matches(&one.name, service).is_some());
        meant.map_or(&self.selectors, |one| &one.selectors)
    }

    /// The key under which the service is found that this name means if every
    /// label that can select does.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.name)
    }
}

impl Reading {
    fn whole(name: &str) -> Self {
        Self { name: name.into(), selectors: Vec::new() }
    }

    /// The key under which the service is found that this name means.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.name)
    }
}

/// How well a service answers to a typed name, best first; `None` when not at
/// all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Letter for letter.
    Exact,
    /// The name's labels reversed are the service's path.
    Path,
    /// The same but for letter case.
    Folded,
}

/// Compares a typed name (without port, zone and selectors) with a service.
#[must_use]
pub fn matches(typed: &str, service: &ServiceName) -> Option<Match> {
    if typed == service.as_str() {
        return Some(Match::Exact);
    }
    if typed == service.dns_name() {
        return Some(Match::Path);
    }
    (canonical(typed) == service.canonical()).then_some(Match::Folded)
}

/// Whether a name can be read as selecting among the instances of another.
#[must_use]
pub fn selects(typed: &str) -> bool {
    selecting(typed).is_some()
}

impl Zone {
    /// # Errors
    /// When the text is no DNS name of at least one label.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // Room for `_grpc_config.` and a service's name in front.
        if name.len() > 128 || !name.split('.').all(label) {
            return Err(NameError::Zone(text.to_owned()));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// Without a dot at either end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before `.ZONE`; `None` for names outside the zone. The zone
    /// itself has nothing before it.
    fn strip<'a>(&self, name: &'a str) -> Option<&'a str> {
        let at = name.len().checked_sub(self.0.len())?;
        let (front, tail) = (name.get(..at)?, name.get(at..)?);
        if !tail.eq_ignore_ascii_case(&self.0) {
            return None;
        }
        if front.is_empty() { Some("") } else { front.strip_suffix('.') }
    }

    /// The same where the end of the name was cut off within the zone.
    fn strip_cut<'a>(&self, name: &'a str) -> &'a str {
        let dotted = format!(".{}", self.0);
        for kept in (1..dotted.len()).rev() {
            let Some(at) = name.len().checked_sub(kept) else { continue };
            let (Some(front), Some(tail)) = (name.get(..at), name.get(at..)) else { continue };
            if tail.eq_ignore_ascii_case(&dotted[..kept]) {
                return front;
            }
        }
        name
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The form in which names are compared: labels in DNS order, lower case.
#[must_use]
pub fn canonical(name: &str) -> String {
    name.rsplit('/').collect::<Vec<_>>().join(".").to_lowercase()
}

fn check_text(text: &str) -> Result<(), NameError> {
    if text.len() > NAME_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(NameError::Character(text.to_owned()));
    }
    Ok(())
}

/// `host:443` without `:443`. What follows the last colon is a port only if it
/// is a number: `grpc:server:v1` is a whole name.
fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => name,
    }
}

/// Every way to read a name, the one with the fewest selectors first: leading
/// labels `key--value` can select, the last label never does.
fn readings(name: &str) -> Vec<Reading> {
    let mut selectors = Vec::new();
    let mut all = vec![Reading::whole(name)];
    let mut rest = name;
    while all.len() <= SELECTORS_MAX
        && let Some((key, value, behind)) = selecting(rest)
    {
        selectors.push(Selector { key: key.to_lowercase(), value: value.to_lowercase() });
        selectors.sort();
        selectors.dedup();
        rest = behind;
        all.push(Reading { name: rest.into(), selectors: selectors.clone() });
    }
    all
}

/// What the first label selects, if it can, and what stands behind it.
fn selecting(name: &str) -> Option<(&str, &str, &str)> {
    let (label, behind) = name.split_once('.')?;
    let (key, value) = label.split_once(SELECTS)?;
    let selects = !key.is_empty() && !value.is_empty() && !key.eq_ignore_ascii_case(PUNYCODE);
    selects.then_some((key, value, behind))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests;
