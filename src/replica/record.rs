//! The record by which a balancer announces itself in etcd.
//!
//! In: what a balancer says of itself, or a key and its value. Out: keys and values, or
//! the decoded announcement. Pure.
//!
//! A balancer writes two keys, both with a lease:
//!
//! | key | value | read by |
//! |---|---|---|
//! | `{PREFIX}{zone}/{address}/{instance}` | [`Record`], as JSON | this version |
//! | `{PREFIX}{zone}/{address}` | the address as text, from when it is ready | former versions |
//!
//! Those versions read every key below the zone, take a value for an address, and ignore
//! what is none. So they ignore records, and records outweigh the addresses here.

use serde::{Deserialize, Serialize};

use super::hosts::BalancerHosts;
use crate::model::{HostPort, Zone};

/// The prefix of the balancers' keys.
pub const PREFIX: &str = "/lookaside/balancers/";
/// The longest value that is read, in bytes. A record has some 200.
const VALUE_MAX: usize = 4096;
/// The longest text within a record, in bytes: zones and versions are short.
const TEXT_MAX: usize = 64;

/// What a balancer can do for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It serves what the registry says.
    Ready,
    /// It serves what it read before it lost the registry.
    Stale,
    /// It has not read the registry, so it refuses clients.
    Starting,
    /// It stops, and sends its clients away.
    Draining,
}

/// What a balancer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The address at which clients reach it.
    pub address: HostPort,
    /// Whether only programs on its own host reach that address.
    pub host_only: bool,
    /// What it can do for clients.
    pub state: State,
    /// The zone in which it runs, if its operator named one.
    pub zone: Option<String>,
    /// The version of its program.
    pub version: String,
    /// Its open streams.
    pub streams: u64,
    /// The newest revision of the registry that it knows.
    pub revision: i64,
    /// When it started, in milliseconds since 1970. Of two records of one address, the
    /// later one counts: its writer has taken the address over.
    pub started: u64,
}

/// The decoded content of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// An address alone, which means that a balancer is ready there.
    Address(HostPort),
    /// A balancer's record.
    Record(Record),
}

/// The format of a record. Fields are added, but never renamed.
#[derive(Serialize, Deserialize)]
struct Wire {
    address: String,
    #[serde(default)]
    host_only: bool,
    state: String,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    streams: u64,
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    started: u64,
}

impl State {
    /// Every state, best first.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Stale, Self::Starting, Self::Draining];

    /// Returns the word in records, metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Stale => "stale",
            Self::Starting => "starting",
            Self::Draining => "draining",
        }
    }

    /// Returns the state that a record names. A state that this version does not know is
    /// none in which a balancer takes clients.
    fn of(text: &str) -> Self {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.unwrap_or(Self::Starting)
    }
}

impl Record {
    /// Returns the record as text.
    #[must_use]
    pub fn value(&self) -> String {
        let wire = Wire {
            address: self.address.to_string(),
            host_only: self.host_only,
            state: self.state.as_str().to_owned(),
            zone: self.zone.clone(),
            version: self.version.clone(),
            streams: self.streams,
            revision: self.revision,
            started: self.started,
        };
        // These types hold only text and numbers, which can always be written.
        serde_json::to_string(&wire).unwrap_or_default()
    }
}

/// Returns the beginning of the keys of a DNS zone's balancers.
#[must_use]
pub fn prefix(zone: &Zone) -> String {
    format!("{PREFIX}{zone}/")
}

/// Returns the key of the address alone.
#[must_use]
pub fn address_key(zone: &Zone, address: &HostPort) -> String {
    format!("{PREFIX}{zone}/{address}")
}

/// Returns the key of a record. Each start of a balancer has another `instance`, so that it
/// never writes the key of one that had its address before.
#[must_use]
pub fn record_key(zone: &Zone, address: &HostPort, instance: u64) -> String {
    format!("{PREFIX}{zone}/{address}/{instance:016x}")
}

/// Decodes a key and its value. `below` is the key without [`prefix`], `leased` tells whether
/// it has a lease, `hosts` which hosts count. etcd's permissions bound keys and not values, so
/// a key announces no address but its own.
///
/// # Errors
/// Why the value announces no balancer.
pub fn decode(
    below: &[u8],
    value: &[u8],
    leased: bool,
    hosts: &BalancerHosts,
) -> Result<Announcement, String> {
    if !leased {
        return Err("the key has no lease, so it would outlive its balancer".to_owned());
    }
    if value.len() > VALUE_MAX {
        return Err(format!("the value has {} bytes, more than {VALUE_MAX}", value.len()));
    }
    let text = std::str::from_utf8(value).map_err(|_| "the value is no UTF-8 text".to_owned())?;
    if !text.trim_start().starts_with('{') {
        let address = HostPort::parse(text).map_err(|error| error.to_string())?;
        hosts.check(&address)?;
        check_key(below, &address)?;
        return Ok(Announcement::Address(address));
    }
    let wire: Wire = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let address = HostPort::parse(&wire.address).map_err(|error| error.to_string())?;
    hosts.check(&address)?;
    check_key(below, &address)?;
    let long = |text: &String| text.len() > TEXT_MAX;
    if long(&wire.version) || wire.zone.as_ref().is_some_and(long) {
        return Err(format!("its zone or version has more than {TEXT_MAX} bytes"));
    }
    Ok(Announcement::Record(Record {
        address,
        host_only: wire.host_only,
        state: State::of(&wire.state),
        zone: wire.zone.filter(|zone| !zone.is_empty()),
        version: wire.version,
        streams: wire.streams,
        revision: wire.revision,
        started: wire.started,
    }))
}

/// Checks that a key is one of the balancer at this address.
fn check_key(below: &[u8], address: &HostPort) -> Result<(), String> {
    let own = std::str::from_utf8(below).ok().and_then(|text| text.split('/').next());
    if own.is_some_and(|own| HostPort::parse(own).is_ok_and(|own| own == *address)) {
        return Ok(());
    }
    Err(format!(
        "the value announces {address}, whose key is another: the key of a balancer begins with \
         the address that it announces"
    ))
}

/// Checks the name of a balancer's own zone.
///
/// # Errors
/// If it is empty, too long, or holds characters that are not shown.
pub fn check_zone(zone: &str) -> Result<(), String> {
    let shown = |c: char| c.is_ascii_graphic();
    if !zone.is_empty() && zone.len() <= TEXT_MAX && zone.chars().all(shown) {
        return Ok(());
    }
    Err(format!("{zone:?} is no zone: give 1 to {TEXT_MAX} printable ASCII characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a value at the key that belongs to it.
    fn read(value: &[u8]) -> Result<Announcement, String> {
        let text = std::str::from_utf8(value).unwrap();
        let wire = serde_json::from_str::<Wire>(text);
        let address = wire.map_or_else(|_| text.trim().to_owned(), |wire| wire.address);
        let alone = decode(address.as_bytes(), value, true, &BalancerHosts::default());
        let below =
            decode(format!("{address}/7").as_bytes(), value, true, &BalancerHosts::default());
        assert_eq!(alone, below);
        below
    }

    fn record() -> Record {
        Record {
            address: HostPort::parse("10.0.0.1:12000").unwrap(),
            host_only: false,
            state: State::Ready,
            zone: Some("a".to_owned()),
            version: "0.1.0".to_owned(),
            streams: 7,
            revision: 41,
            started: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_in_every_state() {
        for state in State::ALL {
            let written = Record { state, ..record() };
            let read = read(written.value().as_bytes());
            assert_eq!(read, Ok(Announcement::Record(written)));
        }
        let none = Record { zone: None, host_only: true, ..record() };
        assert_eq!(read(none.value().as_bytes()), Ok(Announcement::Record(none)));
    }

    /// The former version reads each value so, and lists what it can read.
    #[test]
    fn the_former_version_takes_no_record_for_an_address() {
        let v6 = Record { address: HostPort::parse("[2001:db8::1]:1").unwrap(), ..record() };
        for record in [record(), v6] {
            assert!(HostPort::parse(record.value().trim()).is_err());
        }
    }

    #[test]
    fn what_the_former_version_writes_is_read() {
        let address = HostPort::parse("10.0.0.1:12000").unwrap();
        assert_eq!(read(b"10.0.0.1:12000\n"), Ok(Announcement::Address(address)));
    }

    #[test]
    fn what_later_versions_add_is_passed_over() {
        let value = br#"{"address":"10.0.0.1:1","state":"resting","colour":{"of":["hope"]}}"#;
        let Ok(Announcement::Record(read)) = self::read(value) else { panic!("it is read") };
        assert_eq!((read.state, read.streams, read.zone), (State::Starting, 0, None));
    }

    #[test]
    fn what_announces_no_balancer_is_refused_with_its_reason() {
        let long =
            format!(r#"{{"address":"10.0.0.1:1","state":"ready","version":"{}"}}"#, "v".repeat(65));
        for (value, leased, reason) in [
            (&b"10.0.0.1:1"[..], false, "no lease"),
            (b"nonsense", true, "port"),
            (b"", true, "empty"),
            (b"\xff", true, "UTF-8"),
            (b"{", true, "EOF"),
            (b"evil.example:443", true, "--balancer-hosts evil.example"),
            (br#"{"address":"evil.example:443","state":"ready"}"#, true, "--balancer-hosts"),
            (br#"{"address":"10.0.0.1:0","state":"ready"}"#, true, "port"),
            (long.as_bytes(), true, "more than 64"),
            (&[b' '; 5000], true, "more than 4096"),
        ] {
            let refused = decode(b"10.0.0.1:1", value, leased, &BalancerHosts::default());
            let refused = refused.unwrap_err();
            assert!(refused.contains(reason), "{refused:?}: {reason:?}");
        }
    }

    #[test]
    fn a_key_announces_its_own_address_alone() {
        let record = record().value();
        let of = |below: &[u8], value: &str| {
            decode(below, value.as_bytes(), true, &BalancerHosts::default())
        };
        for value in ["10.0.0.1:12000", &*record] {
            for below in ["10.0.0.1:12000", "10.0.0.1:12000/1", "10.0.0.1:12000/a/b"] {
                assert!(of(below.as_bytes(), value).is_ok(), "{below} {value}");
            }
            for below in ["", "10.0.0.2:12000", "10.0.0.1:12001/1", "10.0.0.1", "x/10.0.0.1:12000"]
            {
                let refused = of(below.as_bytes(), value).unwrap_err();
                assert!(refused.contains("10.0.0.1:12000, whose key is another"), "{refused}");
            }
            assert!(of(b"10.0.0.1:12000\xff", value).is_err());
        }
        assert!(of(b"LB1.lb:1/1", "lb1.LB:1").is_err(), "no host name is allowed");
        let hosts = BalancerHosts::beside(HostPort::parse("lb2.a.lb:1").ok().as_ref());
        assert!(decode(b"LB1.a.lb:1/1", b"lb1.A.lb:1", true, &hosts).is_ok());
    }

    #[test]
    fn zones_are_short_and_printable() {
        for zone in ["a", "eu-central-1b", &"z".repeat(64)] {
            check_zone(zone).unwrap();
        }
        for zone in ["", " ", "a b", "ü", "a\n", &"z".repeat(65)] {
            check_zone(zone).unwrap_err();
        }
    }
}
