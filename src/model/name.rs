//! Names: a service's as registered, a client's as typed, and how the one is
//! found by the other.
//!
//! The rules for users: drop the port, a trailing dot and %-encoding; drop the
//! zone; leading labels `key--value` select among the instances; what is left
//! is the service as registered, or its labels reversed are the service's
//! path. An exact match wins; letter case is folded only where there is none.

use std::fmt;
use std::sync::Arc;

/// A service's name as registered: `hello`, `greet.rpc`, `dev/game`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// What is left to be matched against services.
    pub name: Arc<str>,
    /// Which of the service's instances are meant; all of these must match.
    /// Sorted, so that equal wishes are equal.
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
        let (name, mut selectors) = take_selectors(name);
        if name.is_empty() || name.split('.').any(str::is_empty) {
            return Err(NameError::Empty(raw.to_owned()));
        }
        selectors.sort();
        selectors.dedup();
        Ok(Self { name: name.into(), selectors })
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

fn canonical(name: &str) -> String {
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

/// Splits leading `key--value` labels off; the last label never is one.
fn take_selectors(name: &str) -> (&str, Vec<Selector>) {
    let mut rest = name;
    let mut selectors = Vec::new();
    while let Some((label, behind)) = rest.split_once('.') {
        let Some((key, value)) = label.split_once(SELECTS) else { break };
        if key.is_empty() || value.is_empty() || key.eq_ignore_ascii_case(PUNYCODE) {
            break;
        }
        selectors.push(Selector { key: key.to_lowercase(), value: value.to_lowercase() });
        rest = behind;
    }
    (rest, selectors)
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
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, name: &str, selectors: &[(&str, &str)]) {
        let zone = Zone::new("lookaside.internal").unwrap();
        let target = Target::parse(raw, &zone).unwrap();
        let found: Vec<_> =
            target.selectors.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
        assert_eq!((&*target.name, found.as_slice()), (name, selectors), "{raw:?}");
    }

    #[track_caller]
    fn refused(raw: &str) -> NameError {
        let zone = Zone::new("lookaside.internal").unwrap();
        Target::parse(raw, &zone).unwrap_err()
    }

    #[test]
    fn port_dot_encoding_and_zone_are_dropped() {
        check("hello", "hello", &[]);
        check("hello:443", "hello", &[]);
        check("hello.lookaside.internal", "hello", &[]);
        check("Hello.LookAside.Internal.:50051", "Hello", &[]);
        check("greet.rpc.lookaside.internal:1", "greet.rpc", &[]);
        check("hello.example.com", "hello.example.com", &[]);
        check("hello%5fservice", "hello_service", &[]);
        check("dev%2Fgame", "dev/game", &[]);
        check("notlookaside.internal", "notlookaside.internal", &[]);
        check("grpc:server.test:v1:dev", "grpc:server.test:v1:dev", &[]);
    }

    #[test]
    fn leading_labels_select() {
        check("id--7.game.dev", "game.dev", &[("id", "7")]);
        check("Zone--A.id--7.game.lookaside.internal", "game", &[("id", "7"), ("zone", "a")]);
        check("my--svc", "my--svc", &[]);
        check("xn--p1ai.example", "xn--p1ai.example", &[]);
        check("--x.y", "--x.y", &[]);
    }

    #[test]
    fn a_name_cut_within_the_zone_is_still_found() {
        let service = "s".repeat(115);
        let whole = format!("{service}.lookaside.internal");
        check(&whole[..128], &service, &[]);
        check(&format!("{}.l", "s".repeat(20)), &format!("{}.l", "s".repeat(20)), &[]);
    }

    #[test]
    fn what_means_no_service_is_refused() {
        assert_eq!(refused(""), NameError::Empty(String::new()));
        for raw in [".", ":443", "lookaside.internal", "id--7.lookaside.internal.", "a..b", ".a"] {
            // A lone selecting label is a name; with the zone behind it too.
            if raw.starts_with("id") {
                check(raw, "id--7", &[]);
            } else {
                assert_eq!(refused(raw), NameError::Empty(raw.to_owned()));
            }
        }
        assert_eq!(refused(&"a".repeat(10_240)), NameError::TooLong(10_240));
        assert_eq!(refused("a b"), NameError::Character("a b".to_owned()));
        assert_eq!(refused("a\u{0}b"), NameError::Character("a\u{0}b".to_owned()));
        assert_eq!(refused("a%zz"), NameError::Character("a%zz".to_owned()));
        assert_eq!(refused("a%ff"), NameError::Character("a%ff".to_owned()));
    }

    #[test]
    fn services_are_found_exactly_by_path_and_by_folding() {
        let check = |typed: &str, service: &str, expected| {
            let service = ServiceName::new(service).unwrap();
            assert_eq!(matches(typed, &service), expected, "{typed} {service}");
        };
        check("hello", "hello", Some(Match::Exact));
        check("greet.rpc", "greet.rpc", Some(Match::Exact));
        check("game.dev", "dev/game", Some(Match::Path));
        check("Game.Dev", "dev/game", Some(Match::Folded));
        check("hello", "Hello", Some(Match::Folded));
        check("dev/game", "dev/game", Some(Match::Exact));
        check("game.dev", "game/dev", None);
        check("hello", "hello2", None);
    }

    #[test]
    fn zones() {
        assert_eq!(Zone::new("Example.").unwrap().as_str(), "example");
        for bad in ["", ".", "a..b", "a b", &"a".repeat(64)] {
            assert_eq!(Zone::new(bad), Err(NameError::Zone(bad.to_owned())));
        }
    }
}
