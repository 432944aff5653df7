//! Network addresses: an IP address or a host name, and a port.
//!
//! In: text, or an IP address and a port. Out: a [`HostPort`] or a [`BackendAddr`], or
//! the reason why it is not valid. grpclb carries bare IP addresses, and clients crash or
//! hang on anything else (Java panics on a port out of range). So a [`BackendAddr`] is
//! checked once, here, and its type guarantees the rest.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// An address that may be sent to a client: port 1 to 65535, an IP address that can be
/// connected to, IPv4-mapped IPv6 converted to IPv4, no scope id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendAddr {
    // Smaller than `SocketAddr`, which has room for a scope id. There may be millions.
    ip: IpAddr,
    port: u16,
}

/// A host as registered: an IP address, or a name that must be resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, lower case, without a trailing dot.
    Name(String),
}

/// A host and a port from 1 to 65535.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    port: u16,
}

/// The reason why a text is not an address. Its message contains the value and the
/// remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is empty.
    #[error("the address is empty: expected host:port")]
    Empty,
    /// There is no `:port` at the end.
    #[error("{0:?} has no port: expected host:port")]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("{text:?} has the port {port:?}: expected a number from 1 to 65535")]
    Port {
        /// The whole text.
        text: String,
        /// The text in the port's place.
        port: String,
    },
    /// An IPv6 address without brackets: its port looks like its last group.
    #[error("{0:?} is an IPv6 address without brackets: write [address]:port")]
    Unbracketed(String),
    /// The part before the port is neither an IP address nor a host name.
    #[error("{text:?} has the host {host:?}, which is neither an IP address nor a host name")]
    Host {
        /// The whole text.
        text: String,
        /// The text in the host's place.
        host: String,
    },
    /// An address that clients cannot connect to.
    #[error("{0} is {1}: register the address at which clients reach the server")]
    Unusable(IpAddr, &'static str),
}

/// The longest host name that DNS allows, in bytes (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;
/// The part of an invalid text that an error repeats, in bytes.
const SHOWN_MAX: usize = 80;

impl BackendAddr {
    /// Checks an IP address and a port.
    ///
    /// # Errors
    /// Returns an error if the port is 0 or no client could connect to the IP address.
    pub fn new(ip: IpAddr, port: u16) -> Result<Self, AddressError> {
        let ip = usable(ip)?;
        if port == 0 {
            let text = SocketAddr::new(ip, port).to_string();
            let port = "0".to_owned();
            return Err(AddressError::Port { text, port });
        }
        Ok(Self { ip, port })
    }

    /// Returns the IP address. An IPv4-mapped IPv6 address is returned as IPv4.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Returns the port, which is never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address as the standard library's type.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl fmt::Display for BackendAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket_addr().fmt(f)
    }
}

impl HostPort {
    /// Checks a host and a port.
    ///
    /// # Errors
    /// Returns an error if the port is 0 or the host is an IP address that no client
    /// could connect to.
    pub fn new(host: Host, port: u16) -> Result<Self, AddressError> {
        let host = match host {
            Host::Ip(ip) => Host::Ip(BackendAddr::new(ip, port)?.ip()),
            Host::Name(name) if port == 0 => {
                let text = format!("{name}:0");
                let port = "0".to_owned();
                return Err(AddressError::Port { text, port });
            }
            Host::Name(name) => Host::Name(name),
        };
        Ok(Self { host, port })
    }

    /// Reads `1.2.3.4:80`, `[2001:db8::1]:80` or `host.name:80`.
    ///
    /// # Errors
    /// Returns an error if the text is none of these; it says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(AddressError::Unbracketed(text.to_owned()));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(AddressError::NoPort(shown(text)));
        };
        if text.starts_with('[') && text.ends_with(']') {
            return Err(AddressError::NoPort(shown(text)));
        }
        let port = match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => {
                let text = shown(text);
                let port = shown(port);
                return Err(AddressError::Port { text, port });
            }
        };
        let bad_host = || AddressError::Host { text: shown(text), host: shown(host) };
        if host.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(AddressError::Unbracketed(text.to_owned()));
        }
        let host = Host::parse(host).ok_or_else(bad_host)?;
        Self::new(host, port)
    }

    /// Reads all that [`Self::parse`] reads, and also an IPv6 address without brackets,
    /// whose port follows the last colon. Some registrants join host and port in this
    /// way.
    ///
    /// # Errors
    /// Returns an error if the text is none of these; it says which part is wrong.
    pub fn parse_last_colon(text: &str) -> Result<Self, AddressError> {
        let glued = text.trim().rsplit_once(':');
        let glued = glued.filter(|(host, _)| host.parse::<std::net::Ipv6Addr>().is_ok());
        match glued {
            Some((host, port)) => Self::parse(&format!("[{host}]:{port}")),
            None => Self::parse(text),
        }
    }

    /// Returns the port, which is never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address if the host is an IP address.
    #[must_use]
    pub fn addr(&self) -> Option<BackendAddr> {
        match self.host {
            Host::Ip(ip) => Some(BackendAddr { ip, port: self.port }),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Host {
    /// Reads an IP address (IPv6 with or without brackets) or a DNS name. Returns `None`
    /// if the text is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let ip = inner.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok()?;
            return Some(Self::Ip(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        is_host_name(name).then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

/// Returns whether a text is a host name: letters, digits, `-` and `_` in labels of 1 to
/// 63 bytes, and a last label that is not a number. `10.0.0.300` is a mistyped address,
/// not a name.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    name.len() <= NAME_MAX
        && name.split('.').all(label)
        && !name.rsplit('.').next().is_some_and(numeric)
}

fn usable(ip: IpAddr) -> Result<IpAddr, AddressError> {
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() {
        return Err(AddressError::Unusable(ip, "the unspecified address"));
    }
    if ip.is_multicast() || broadcast {
        return Err(AddressError::Unusable(ip, "a multicast or broadcast address"));
    }
    Ok(ip)
}

/// Returns the beginning of a text, which may be a megabyte long.
fn shown(text: &str) -> String {
    if text.len() <= SHOWN_MAX {
        return text.to_owned();
    }
    let end = (0..=SHOWN_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match HostPort::parse(text) {
            Ok(host_port) => host_port.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn addresses_and_names_are_read() {
        check("10.0.0.1:50051", "10.0.0.1:50051");
        check(" 10.0.0.1:1\n", "10.0.0.1:1");
        check("[2001:db8::1]:65535", "[2001:db8::1]:65535");
        check("[::ffff:10.0.0.1]:80", "10.0.0.1:80");
        check("Host.Example.:80", "host.example:80");
        check("my_host:80", "my_host:80");
        check("localhost:80", "localhost:80");
    }

    #[test]
    fn what_could_hurt_a_client_is_refused() {
        check("", "error: the address is empty: expected host:port");
        check("10.0.0.1", r#"error: "10.0.0.1" has no port: expected host:port"#);
        let port = |text: &str, port: &str| {
            let expected =
                format!("error: {text:?} has the port {port:?}: expected a number from 1 to 65535");
            check(text, &expected);
        };
        port("10.0.0.1:0", "0");
        port("10.0.0.1:65536", "65536");
        port("127.0.0.1:500053", "500053");
        port("10.0.0.1:+80", "+80");
        port("10.0.0.1:-1", "-1");
        port("10.0.0.1:", "");
        port("name:0", "0");
        check(
            "2001:db8::1",
            r#"error: "2001:db8::1" is an IPv6 address without brackets: write [address]:port"#,
        );
        check("[2001:db8::1]", r#"error: "[2001:db8::1]" has no port: expected host:port"#);
        let host = |text: &str, host: &str| {
            let expected = format!(
                "error: {text:?} has the host {host:?}, which is neither an IP address nor a host name"
            );
            check(text, &expected);
        };
        host(":80", "");
        host("10.0.0.300:80", "10.0.0.300");
        host("a b:80", "a b");
        host("http://a:80", "http://a");
        host("[fe80::1%eth0]:80", "[fe80::1%eth0]");
        check(
            "0.0.0.0:80",
            "error: 0.0.0.0 is the unspecified address: register the address at which clients reach the server",
        );
        check(
            "[ff02::1]:80",
            "error: ff02::1 is a multicast or broadcast address: register the address at which clients reach the server",
        );
    }

    #[test]
    fn the_last_colon_can_part_host_and_port() {
        let check = |text: &str, expected: &str| {
            let found = HostPort::parse_last_colon(text);
            let found = found.map_or_else(|error| error.to_string(), |read| read.to_string());
            assert_eq!(found, expected, "{text}");
        };
        check("2001:db8:0:0:0:0:0:1:50051", "[2001:db8::1]:50051");
        check("2001:db8::1:50051", "[2001:db8::1]:50051");
        check("[2001:db8::1]:50051", "[2001:db8::1]:50051");
        check("10.0.0.1:80", "10.0.0.1:80");
        check("host:80", "host:80");
        let port = r#""[2001:db8::1]:0" has the port "0": expected a number from 1 to 65535"#;
        check("2001:db8::1:0", port);
        let none =
            r#""2001:db8:0:0:0:0:0:1" is an IPv6 address without brackets: write [address]:port"#;
        check("2001:db8:0:0:0:0:0:1", none);
    }

    #[test]
    fn a_megabyte_is_not_repeated() {
        let error = HostPort::parse(&"é".repeat(500_000)).unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}
