//! The key of a mark in etcd: a decision, a service and its backends. Pure.
//!
//! In: a key below `/lookaside/marks/ZONE/`, or the text that an operator typed. Out: a
//! [`MarkKey`], or the problem and the remedy. The key alone identifies a mark, so a
//! second drain of a backend replaces the first.
//!
//! | key | decision |
//! |---|---|
//! | `…/drain/SERVICE/BACKENDS` | these backends of the service are in no list |
//! | `…/drain/*/BACKENDS` | these backends are in no list of any service |
//! | `…/release/SERVICE` | the backends that the service held at that moment leave the lists |
//! | `…/shed/SERVICE` | the service's clients drop a part of their calls; the value has the percentage |
//! | `…/shed/SERVICE/KEY=VALUE` | so do only the clients whose name selects KEY=VALUE |
//! | `…/fallback/SERVICE` | the service's clients use the addresses that they have from DNS |

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::{BackendAddr, Endpoint, Selector, ServiceName, Zone};

/// The decision of a mark, and the service and backends that it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkKey {
    /// The backends are in no list, although they are registered.
    Drain(Scope, Backends),
    /// The backends that a service (by canonical name) held at that moment leave the
    /// lists.
    Release(String),
    /// The clients drop a part of their calls; the mark's value has the percentage.
    Shed(Scope, Clients),
    /// The clients use the addresses that they have from DNS.
    Fallback(Scope),
}

/// The clients of a service that a shed is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clients {
    /// All of them.
    All,
    /// Those whose name selects this.
    Selecting(Selector),
}

/// The kinds of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// See [`MarkKey::Drain`].
    Drain,
    /// See [`MarkKey::Release`].
    Release,
    /// See [`MarkKey::Shed`].
    Shed,
    /// See [`MarkKey::Fallback`].
    Fallback,
}

/// The services that a mark is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All services: `*`.
    Everywhere,
    /// One service, by its canonical name.
    Service(String),
}

/// The backends that a drain is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backends {
    /// The backend at an address: `10.0.0.9:50051`.
    Address(BackendAddr),
    /// All backends at an IP address: `10.0.0.9`.
    Host(IpAddr),
    /// All backends that have a value in their metadata: `zone=a`.
    Metadata(String, String),
    /// The backend with this name.
    Id(String),
}

/// Why a text names no backends.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} names no backends: expected IP:PORT, an IP address, KEY=VALUE of their metadata, or \
     the name of one, of at most {BACKENDS_MAX} bytes"
)]
pub struct BackendsError(String);

/// The longest text that names backends, in bytes.
const BACKENDS_MAX: usize = 1024;
const ROOT: &str = "/lookaside/marks/";

/// Returns the prefix of every mark for a zone's balancers.
#[must_use]
pub fn prefix(zone: &Zone) -> String {
    format!("{ROOT}{zone}/")
}

impl MarkKey {
    /// Parses the part of a key below the zone's prefix.
    ///
    /// # Errors
    /// The problem and the remedy.
    pub fn parse(below: &str) -> Result<Self, String> {
        let (kind, rest) = below.split_once('/').unwrap_or((below, ""));
        match kind {
            "drain" => {
                let (service, backends) = rest.split_once('/').unwrap_or((rest, ""));
                let scope = Scope::parse(service)?;
                let backends = Backends::parse(backends).map_err(|error| error.to_string())?;
                Ok(Self::Drain(scope, backends))
            }
            "release" => match Scope::parse(rest)? {
                Scope::Service(canonical) => Ok(Self::Release(canonical)),
                Scope::Everywhere => Err("release needs the name of one service".to_owned()),
            },
            "shed" => {
                let (service, clients) = match rest.split_once('/') {
                    Some((service, clients)) => (service, Clients::parse(clients)?),
                    None => (rest, Clients::All),
                };
                Ok(Self::Shed(Scope::parse(service)?, clients))
            }
            "fallback" => Ok(Self::Fallback(Scope::parse(rest)?)),
            other => {
                let known = Kind::ALL.map(Kind::as_str).join(", ");
                Err(format!(
                    "{other:?} is no mark that this lookaside knows: expected one of {known}"
                ))
            }
        }
    }

    /// Returns the whole key in etcd, for the balancers of a zone.
    #[must_use]
    pub fn in_etcd(&self, zone: &Zone) -> String {
        format!("{}{self}", prefix(zone))
    }

    /// Returns the kind of the mark.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Drain(..) => Kind::Drain,
            Self::Release(_) => Kind::Release,
            Self::Shed(..) => Kind::Shed,
            Self::Fallback(_) => Kind::Fallback,
        }
    }

    /// Returns the service that the mark is about; `*` for all.
    #[must_use]
    pub fn service(&self) -> &str {
        match self {
            Self::Release(canonical) => canonical,
            Self::Drain(scope, _) | Self::Shed(scope, _) | Self::Fallback(scope) => scope.as_str(),
        }
    }

    /// Returns whether the mark acts for as long as it is in force. A release acts once.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.kind() != Kind::Release
    }

    /// Returns the backends that the mark is about, if it names any.
    #[must_use]
    pub fn backends(&self) -> Option<&Backends> {
        match self {
            Self::Drain(_, backends) => Some(backends),
            Self::Release(_) | Self::Shed(..) | Self::Fallback(_) => None,
        }
    }

    /// Returns what the name of a client selects for the mark to be about it, if anything.
    #[must_use]
    pub fn clients(&self) -> Option<&Selector> {
        match self {
            Self::Shed(_, Clients::Selecting(selector)) => Some(selector),
            _ => None,
        }
    }
}

/// The text that [`MarkKey::parse`] reads.
impl fmt::Display for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind().as_str(), self.service())?;
        self.backends().map_or(Ok(()), |backends| write!(f, "/{backends}"))?;
        self.clients().map_or(Ok(()), |Selector { key, value }| write!(f, "/{key}={value}"))
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Drain, Self::Release, Self::Shed, Self::Fallback];

    /// Returns the name used in keys, commands and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Release => "release",
            Self::Shed => "shed",
            Self::Fallback => "fallback",
        }
    }
}

impl Clients {
    /// Parses the text that an operator typed.
    ///
    /// # Errors
    /// If it is no `KEY=VALUE`, is too long, or contains control characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').filter(|(key, value)| {
            let short = text.len() <= BACKENDS_MAX && !text.chars().any(char::is_control);
            short && !key.is_empty() && !value.is_empty()
        });
        let (key, value) = pair.ok_or_else(|| {
            let text: String = text.chars().take(100).collect();
            format!("{text:?} names no clients: expected KEY=VALUE, which their name selects")
        })?;
        Ok(Self::Selecting(Selector { key: key.to_owned(), value: value.to_owned() }))
    }
}

impl Scope {
    /// Returns the canonical name of the service; `*` for all.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Everywhere => "*",
            Self::Service(canonical) => canonical,
        }
    }

    /// Parses `*`, or a service in any spelling without a slash.
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Everywhere);
        }
        match ServiceName::new(text) {
            Ok(_) if text.contains('/') => Err(format!(
                "{text:?} holds a slash: write the service as clients name it, as in game.dev for \
                 dev/game"
            )),
            Ok(service) => Ok(Self::Service(service.canonical())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Backends {
    /// Parses the text that an operator typed.
    ///
    /// # Errors
    /// If it is empty or too long, contains control characters, is an unusable address, or
    /// has an empty KEY or VALUE.
    pub fn parse(text: &str) -> Result<Self, BackendsError> {
        let wrong = || BackendsError(text.chars().take(100).collect());
        if text.is_empty() || text.len() > BACKENDS_MAX || text.chars().any(char::is_control) {
            return Err(wrong());
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            let addr = BackendAddr::new(addr.ip(), addr.port()).map_err(|_| wrong())?;
            return Ok(Self::Address(addr));
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self::Host(ip.to_canonical()));
        }
        match text.split_once('=') {
            Some(("", _) | (_, "")) => Err(wrong()),
            Some((key, value)) => Ok(Self::Metadata(key.to_owned(), value.to_owned())),
            None => Ok(Self::Id(text.to_owned())),
        }
    }

    /// Returns whether a backend is one of these.
    #[must_use]
    pub fn contains(&self, endpoint: &Endpoint) -> bool {
        let Endpoint { id, addr, meta, .. } = endpoint;
        match self {
            Self::Address(address) => address == addr,
            Self::Host(ip) => *ip == addr.ip(),
            Self::Metadata(key, value) => meta.get(key) == Some(value),
            Self::Id(name) => **name == **id,
        }
    }
}

/// The text that [`Backends::parse`] reads.
impl fmt::Display for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => write!(f, "{addr}"),
            Self::Host(ip) => write!(f, "{ip}"),
            Self::Metadata(key, value) => write!(f, "{key}={value}"),
            Self::Id(id) => f.write_str(id),
        }
    }
}
