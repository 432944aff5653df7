//! A client's xDS (ADS), encoded and decoded by hand.
//!
//! In: names, versions, nonces, bytes. Out: requests, and the meaning of a balancer's
//! responses. It shares no code with the balancer, so that they do not have the same errors.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::wire::{field, message, varint};

pub const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// A type of resource, in the order in which clients ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Listener,
    Cluster,
    Endpoints,
}

/// The content of a `DiscoveryResponse`.
#[derive(Debug, Clone, Default)]
pub struct Response<'a> {
    pub version: &'a [u8],
    pub url: &'a [u8],
    pub nonce: &'a [u8],
    /// The type URL and the bytes of each resource.
    pub resources: Vec<(&'a [u8], &'a [u8])>,
    /// The number of names that it gives an error for.
    pub errors: usize,
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(usize),
    Bytes(&'a [u8]),
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Listener, Self::Cluster, Self::Endpoints];

    pub fn url(self) -> &'static str {
        match self {
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        }
    }

    pub fn of(url: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url().as_bytes() == url)
    }
}

/// Returns a message with a `DiscoveryRequest` of a client that calls itself grpc-go.
pub fn request(kind: Kind, name: &str, version: &[u8], nonce: &[u8], with_node: bool) -> Vec<u8> {
    let node = [
        field(1, b"crowd"),
        field(6, b"gRPC Go"),
        field(7, b"1.85.0"),
        field(10, b"envoy.lb.does_not_support_overprovisioning"),
    ];
    let mut body = Vec::new();
    for (number, value) in [(1, version), (3, name.as_bytes()), (5, nonce)] {
        if !value.is_empty() {
            body.extend(field(number, value));
        }
    }
    if with_node {
        body.extend(field(2, &node.concat()));
    }
    body.extend(field(4, kind.url().as_bytes()));
    message(&body)
}

/// Returns a message that refuses the response with this nonce, in the client's own words.
pub fn refusal(kind: Kind, name: &str, nonce: &[u8], words: &str) -> Vec<u8> {
    let error = [&[1 << 3, 3], &field(2, words.as_bytes())[..]].concat();
    let fields = [
        field(3, name.as_bytes()),
        field(4, kind.url().as_bytes()),
        field(5, nonce),
        field(6, &error),
    ];
    message(&fields.concat())
}

impl<'a> Response<'a> {
    pub fn parse(bytes: &'a [u8]) -> Self {
        let mut response = Self::default();
        for (number, value) in fields(bytes) {
            match (number, value) {
                (1, Value::Bytes(version)) => response.version = version,
                (2, Value::Bytes(any)) => response.resources.push((text(any, 1), text(any, 2))),
                (4, Value::Bytes(url)) => response.url = url,
                (5, Value::Bytes(nonce)) => response.nonce = nonce,
                (7, _) => response.errors += 1,
                _ => {}
            }
        }
        response
    }
}

/// Returns the name of a resource of any type.
pub fn name_of(resource: &[u8]) -> &[u8] {
    text(resource, 1)
}

/// Returns the backends of a `ClusterLoadAssignment`, without those of localities that
/// clients leave out because they have no weight.
pub fn servers(assignment: &[u8]) -> impl Iterator<Item = SocketAddr> {
    let localities = messages(assignment, 2).filter(|locality| weight(locality) > 0);
    localities.flat_map(|locality| messages(locality, 2)).filter_map(address)
}

/// Returns why a client of gRPC would refuse a `ClusterLoadAssignment`, or use less of it.
pub fn problem(assignment: &[u8]) -> Option<&'static str> {
    let (mut homes, mut addresses, mut sum) = (HashSet::new(), HashSet::new(), 0);
    for locality in messages(assignment, 2) {
        let home = messages(locality, 1).next();
        let weight = weight(locality);
        sum += weight;
        match home {
            None => return Some("an endpoint without a locality"),
            Some(home) if !homes.insert(home) => return Some("a locality twice"),
            Some(_) if weight == 0 => return Some("a locality without a weight"),
            Some(_) if number(locality, 5) != 0 => return Some("a priority"),
            Some(_) => {}
        }
        for endpoint in messages(locality, 2) {
            match address(endpoint) {
                None => return Some("an endpoint without an address"),
                Some(addr) if !addresses.insert(addr) => return Some("an address twice"),
                Some(_) if number(endpoint, 2) != 0 => return Some("an unhealthy endpoint"),
                Some(_) => {}
            }
        }
    }
    (sum > u32::MAX as usize).then_some("weights beyond 32 bits")
}

fn weight(locality: &[u8]) -> usize {
    messages(locality, 3).next().map_or(0, |value| number(value, 1))
}

fn address(endpoint: &[u8]) -> Option<SocketAddr> {
    let address = messages(messages(endpoint, 1).next()?, 1).next()?;
    let socket = messages(address, 1).next()?;
    let ip: IpAddr = std::str::from_utf8(text(socket, 2)).ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(number(socket, 3)).ok()?))
}

/// Returns the values of a field that has a length.
fn messages(bytes: &[u8], wanted: usize) -> impl Iterator<Item = &[u8]> {
    fields(bytes).filter_map(move |(number, value)| match value {
        Value::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

fn text(bytes: &[u8], wanted: usize) -> &[u8] {
    messages(bytes, wanted).last().unwrap_or_default()
}

/// Returns the value of a field that is a number; 0 if it is not there.
fn number(bytes: &[u8], wanted: usize) -> usize {
    let number = |(number, value)| match value {
        Value::Number(value) if number == wanted => Some(value),
        _ => None,
    };
    fields(bytes).filter_map(number).last().unwrap_or(0)
}

/// Returns the fields of a message, up to the first that is cut short or of a type that is
/// not used here.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (usize, Value<'_>)> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (tag, rest) = varint(bytes);
        let (value, rest) = varint(rest);
        let (value, rest) = match tag & 7 {
            0 => (Value::Number(value), rest),
            2 => {
                let (value, rest) = rest.split_at_checked(value)?;
                (Value::Bytes(value), rest)
            }
            _ => return None,
        };
        bytes = rest;
        Some((tag >> 3, value))
    })
}
