//! Names: services as registered, targets as typed, and how a target finds its service.
//!
//! In: text from clients, DNS and the registry. Out: [`ServiceName`], [`Target`] and
//! [`Zone`].
//!
//! A target loses its port, a trailing dot, its %-encoding and the zone. The rest is
//! either the service's name as registered, or the service's path with its segments
//! reversed. Leading labels `key--value` are part of the service's name if a service has
//! that name, else they are selectors. An exact match wins; letter case is ignored only
//! if there is none. So a service can take clients from another one by its name, and
//! [`ServiceName::selections`] says from which.

use std::fmt;
use std::sync::Arc;

/// A service's name as registered: `hello`, `greet.rpc`, `dev/game`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// The name that a client asks for.
///
/// A name with leading labels `key--value` can be read in several ways, because a
/// service's name may begin with such a label too. Of the readings that a service answers
/// to, the one with the fewest selectors counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The service's name if every label that can be a selector is one.
    pub name: Arc<str>,
    /// The selectors in that reading. A backend must match all of them. Sorted, so that
    /// equal selections compare equal.
    pub selectors: Vec<Selector>,
    /// The other readings of the name, the one with the fewest selectors first. Most
    /// names have none.
    longer: Vec<Reading>,
}

/// One way to read a typed name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reading {
    /// The name that is compared with services' names.
    pub name: Arc<str>,
    /// The selectors from the labels before it, sorted.
    pub selectors: Vec<Selector>,
}

/// One `key--value` label: `id--7`, `zone--a`, `version--v2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// `id`, or a key of the backends' metadata.
    pub key: String,
    /// The value to match. Letter case is ignored, as in DNS.
    pub value: String,
}

/// The DNS zone that lookaside answers for: lower case, without a dot at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(String);

/// The reason why a text is not a name. Its message contains the value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty, is only a zone, or has an empty label.
    #[error("the name {0:?} holds no service: expected SERVICE or SERVICE.ZONE")]
    Empty(String),
    /// The name has more than 255 bytes (the protocol's limit; load_balancer.proto,
    /// `name`).
    #[error("the name has {0} bytes: at most {NAME_MAX} are allowed")]
    TooLong(usize),
    /// A control character, white space, or an encoding that is not UTF-8.
    #[error(
        "the name {0:?} has a character that no name may have: use letters, digits, '.', '-', '_' and '/'"
    )]
    Character(String),
    /// A service's name that no target can match.
    #[error(
        "the service {0:?} has an empty label, so no client can ask for it: give every part a name"
    )]
    Label(String),
    /// The text is not a DNS zone.
    #[error("{0:?} is no DNS zone: expected labels such as lookaside.internal")]
    Zone(String),
}

/// The protocol's limit for a client's name, in bytes.
pub const NAME_MAX: usize = 255;
/// C-core cuts a client's name at this many bytes (`load_balancer_api.h`).
const CORE_CUTS_AT: usize = 128;
/// Separates the key and the value of a selector.
const SELECTS: &str = "--";
/// Further leading labels are not read as selectors: each would add one more way to read
/// the name.
const SELECTORS_MAX: usize = 8;
/// The prefix of labels of internationalised names (RFC 5890), which are never selectors.
const PUNYCODE: &str = "xn";

impl ServiceName {
    /// Checks a service's name.
    ///
    /// # Errors
    /// Returns an error if the text is empty, too long, or contains something no client
    /// can type.
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

    /// Returns the name as registered.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key under which every spelling of this name is found.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.0)
    }

    /// Returns the service's name in DNS, without the zone: `dev/game` is `game.dev`.
    #[must_use]
    pub fn dns_name(&self) -> String {
        self.0.rsplit('/').collect::<Vec<_>>().join(".")
    }

    /// Returns the keys of the services whose backends a name that means this service would
    /// select if this service did not exist. Most names have none.
    #[must_use]
    pub fn selections(&self) -> Vec<String> {
        let canonical = self.canonical();
        if !canonical.contains(SELECTS) {
            return Vec::new();
        }
        // A client may type the last labels first, as a segment of a path: `id--7.dev/pay` is
        // `pay.id--7.dev`.
        let dots = canonical.match_indices('.').map(|(dot, _)| dot + 1);
        let mut all = Vec::new();
        for first in std::iter::once(0).chain(dots) {
            let (before, typed) = canonical.split_at(first);
            let shorter = readings(typed).into_iter().skip(1);
            all.extend(shorter.map(|reading| format!("{before}{}", reading.name)));
        }
        all
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// Reads a name as a client sends it, or as a DNS query contains it.
    ///
    /// # Errors
    /// Returns an error if the name cannot mean a service.
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

    /// Returns the target for the service of exactly this name, whatever characters it
    /// has.
    #[must_use]
    pub fn exactly(service: &str) -> Self {
        let Reading { name, selectors } = Reading::whole(service);
        Self { name, selectors, longer: Vec::new() }
    }

    /// Returns the readings that have fewer selectors than [`Target::selectors`], the one
    /// with the fewest first.
    #[must_use]
    pub fn longer(&self) -> &[Reading] {
        &self.longer
    }

    /// Returns the selectors that apply when the name means this service.
    #[must_use]
    pub fn selectors_for(&self, service: &ServiceName) -> &[Selector] {
        let meant = self.longer.iter().find(|one| matches(&one.name, service).is_some());
        meant.map_or(&self.selectors, |one| &one.selectors)
    }

    /// Returns the key of the service that the name means if every label that can be a
    /// selector is one.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.name)
    }
}

impl Reading {
    fn whole(name: &str) -> Self {
        Self { name: name.into(), selectors: Vec::new() }
    }

    /// Returns the key under which the service with this name is found.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(&self.name)
    }
}

/// How well a service matches a typed name, the best match first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// The names are equal.
    Exact,
    /// The typed name is the service's path with its segments reversed.
    Path,
    /// The names differ in letter case only.
    Folded,
}

/// Compares a typed name (without port, zone and selectors) with a service's name.
/// Returns `None` if they do not match.
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

/// Returns whether the first label of a name can be a selector.
#[must_use]
pub fn selects(typed: &str) -> bool {
    selecting(typed).is_some()
}

impl Zone {
    /// Checks the name of a zone.
    ///
    /// # Errors
    /// Returns an error if the text is not a DNS name of at least one label.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // Leaves room for `_grpc_config.` and a service's name in front.
        if name.len() > 128 || !name.split('.').all(label) {
            return Err(NameError::Zone(text.to_owned()));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// Returns the zone without a dot at either end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part before `.ZONE`, which is empty for the zone itself; `None` for a
    /// name outside the zone.
    fn strip<'a>(&self, name: &'a str) -> Option<&'a str> {
        let at = name.len().checked_sub(self.0.len())?;
        let (front, tail) = (name.get(..at)?, name.get(at..)?);
        if !tail.eq_ignore_ascii_case(&self.0) {
            return None;
        }
        if front.is_empty() { Some("") } else { front.strip_suffix('.') }
    }

    /// Returns the part before a `.ZONE` that was cut off within the zone, or else the
    /// name.
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

/// Returns the form in which names are compared: labels in DNS order, lower case.
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

/// Returns `host:443` without `:443`. The part after the last colon is a port only if it
/// is a number: `grpc:server:v1` is a whole name.
fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => name,
    }
}

/// Returns every way to read a name, the one with the fewest selectors first. Leading
/// labels `key--value` can be selectors; the last label never is one.
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

/// Returns the key and the value of the first label, if it can be a selector, and the
/// rest of the name.
fn selecting(name: &str) -> Option<(&str, &str, &str)> {
    let (label, behind) = name.split_once('.')?;
    // Text with a slash is part of a path, and no label.
    let (key, value) = label.split_once(SELECTS).filter(|_| !label.contains('/'))?;
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
