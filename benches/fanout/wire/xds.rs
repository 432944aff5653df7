//! xDS as bytes, written by hand: what a client asks, and what the bare server answers.
//!
//! In: numbers and names. Out: messages. It must not share code with the servers that are
//! measured.

use super::{address, field, message};
use crate::run::PORT;

/// The method at which clients ask for all types, as gRPC's clients do.
pub(crate) const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

pub(crate) const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub(crate) const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub(crate) const ENDPOINTS: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// The service of the bare server.
const NAME: &str = "bench";
/// lookaside gives each of so many backends a locality of its own.
const EACH_MAX: usize = 128;

/// Returns the first `DiscoveryRequest` of a type on a stream. The first of a stream has the
/// node, as with gRPC's clients.
pub(crate) fn request(kind: &str, name: &str, is_first: bool) -> Vec<u8> {
    let agent = field(6, b"gRPC Go");
    let node = [field(1, b"bench"), agent, field(7, b"1.85.0")].concat();
    let node = if is_first { field(2, &node) } else { Vec::new() };
    message(&[node, field(3, name.as_bytes()), field(4, kind.as_bytes())].concat())
}

/// Returns the `DiscoveryRequest` that acknowledges a response.
pub(crate) fn acknowledgement(kind: &str, name: &str, response: &[u8]) -> Vec<u8> {
    let (version, nonce) = version_and_nonce(response);
    let fields = [(1, version), (3, name.as_bytes()), (4, kind.as_bytes()), (5, nonce)];
    message(&fields.map(|(number, value)| field(number, value)).concat())
}

/// Returns a `DiscoveryResponse` with the endpoints of a service of `count` backends, exactly
/// as long as lookaside's while the nonce has one digit.
pub(crate) fn endpoints_response(count: usize, port: u16) -> Vec<u8> {
    let name = |index| {
        let [a, b, c, d] = address(index);
        format!("{a}.{b}.{c}.{d}")
    };
    let endpoint = |index| {
        let socket = [field(2, name(index).as_bytes()), number(3, port.into())].concat();
        field(2, &field(1, &field(1, &field(1, &socket))))
    };
    let locality = |name: &str, endpoints: &[u8], weight: usize| {
        let name = field(1, &field(3, name.as_bytes()));
        field(2, &[&name, endpoints, &field(3, &number(1, weight))].concat())
    };
    let localities: Vec<u8> = if count <= EACH_MAX {
        let alone = |at| locality(&format!("{}:{PORT}", name(at)), &endpoint(at), 1);
        (0..count).flat_map(alone).collect()
    } else {
        let all: Vec<u8> = (0..count).flat_map(endpoint).collect();
        locality("weight-1.000", &all, count)
    };
    let assignment = [field(1, NAME.as_bytes()), localities].concat();
    let any = [field(1, ENDPOINTS.as_bytes()), field(2, &assignment)].concat();
    let version = format!("{port:016x}");
    let head = [field(1, version.as_bytes()), field(2, &any)].concat();
    message(&[head, field(4, ENDPOINTS.as_bytes()), field(5, b"1")].concat())
}

/// Returns `version_info` and `nonce` of a `DiscoveryResponse`.
fn version_and_nonce(mut body: &[u8]) -> (&[u8], &[u8]) {
    let (mut version, mut nonce): (&[u8], &[u8]) = (&[], &[]);
    while let Some((&tag, rest)) = body.split_first() {
        let (length, rest) = varint(rest);
        // All fields of the message that are ever set have a length.
        let (value, rest) = rest.split_at(length.min(rest.len()));
        match tag >> 3 {
            1 => version = value,
            5 => nonce = value,
            _ => {}
        }
        body = rest;
    }
    (version, nonce)
}

/// Returns a field with a number.
fn number(tag: u8, mut value: usize) -> Vec<u8> {
    let mut out = vec![tag << 3];
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn varint(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).map_or(bytes.len(), |at| at + 1);
    let value =
        bytes[..end].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    (value, &bytes[end..])
}
