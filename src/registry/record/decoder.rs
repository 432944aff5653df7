//! Decodes keys and values by a description. One engine serves the formats of
//! frameworks and those that operators describe.
//!
//! In: a [`Decoder`], a prefix, a key and its value. Out: the key's registrations, or
//! the reason why it registers nothing or cannot be decoded. A value with a usable
//! address is decoded; any oddity becomes a remark.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::Decoded;
use super::pattern::{Captures, Pattern};
use super::remarks::{Remarks, shown};
use super::tree::{self, Syntax, find};
use super::weights::LowWeights;
use crate::model::{HostPort, Meta, ServiceName};
use crate::registry::{Reading, Registration};

mod instance;
mod metadata;
mod service;

pub(super) use instance::ID_MAX;
pub(super) use metadata::BoundedMeta;
pub(super) use service::{BLANK, has_blank_segment};

/// How to decode the keys and values of one format. A field named after a property,
/// such as `weight`, holds JSON pointers into the value; the first that finds something
/// is used. For a list of endpoints, each pointer is tried in the endpoint first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decoder {
    /// `NAME` of `custom:NAME`; empty for the named formats.
    pub(super) name: String,
    /// Patterns of the keys that register something, below the prefix.
    pub(super) keys: Vec<Pattern>,
    /// Patterns of keys that are known to register nothing.
    pub(super) skip: Vec<Pattern>,
    /// Whether patterns match the whole key instead of the part below the prefix.
    pub(super) whole_key: bool,
    /// Values that register nothing.
    pub(super) empty: Vec<String>,
    /// A value without one of these fields registers nothing; a number must be above 0.
    pub(super) needs: Paths,
    pub(super) syntax: Syntax,
    /// The service's name, if the value holds it. If the key holds it too, both must
    /// agree.
    pub(super) service: Paths,
    /// A better name for the service than the key's, used if it is a valid name.
    pub(super) title: Paths,
    /// The service's name in the value. The key's name is used, but both must agree.
    pub(super) claims: Paths,
    /// Whether the captured service is percent-encoded.
    pub(super) encoded: bool,
    /// Whether the captured service is a reversed DNS name.
    pub(super) reversed: bool,
    /// A list of endpoints, or an object of weights by address.
    pub(super) endpoints: Paths,
    pub(super) address: Paths,
    pub(super) host: Paths,
    pub(super) port: Paths,
    /// Whether a missing port is that of the gRPC scheme (80, or 443 with TLS).
    pub(super) default_ports: bool,
    /// Whether the last colon separates host and port, even in IPv6 addresses.
    pub(super) last_colon: bool,
    pub(super) id: Paths,
    pub(super) weight: Paths,
    pub(super) default_weight: u32,
    /// The meaning of the weight 0 and of weights below.
    pub(super) low_weights: LowWeights,
    /// The protocol. All the values found count: one of them must be in `schemes`.
    pub(super) protocol: Paths,
    /// The protocol if none is found; `None`: gRPC.
    pub(super) default_protocol: Option<String>,
    /// The protocols that count as gRPC.
    pub(super) schemes: Vec<String>,
    pub(super) enabled: Paths,
    pub(super) healthy: Paths,
    pub(super) status: Paths,
    /// Statuses that mean "in service"; empty: all that are not in `down`.
    pub(super) up: Vec<String>,
    pub(super) down: Vec<String>,
    /// Objects that are metadata as a whole.
    pub(super) meta: Paths,
    /// Metadata by name: `zone`, `region`, `version`…
    pub(super) labels: Vec<(String, Paths)>,
    /// Fields that must never cause a push.
    pub(super) ignore: Paths,
}

/// JSON pointers, in the order in which they are tried.
pub(super) type Paths = Vec<String>;

/// The most endpoints that are read of one key. More are a mistake, and are left out.
const ENDPOINTS_MAX: usize = 10_000;

/// One endpoint of a value, before it is checked.
#[derive(Clone, Copy, Default)]
struct Item<'a> {
    /// The object with the endpoint's own fields, if there is one.
    own: Option<&'a Value>,
    address: Option<&'a str>,
    weight: Option<&'a Value>,
}

/// A value, with the captures of its key.
struct Document<'a> {
    root: &'a Value,
    captures: &'a Captures<'a>,
    remarks: &'a Remarks,
    /// How much more metadata may be kept of this key, in bytes.
    room: Cell<usize>,
    /// The metadata of endpoints that have no fields of their own, for reuse.
    shared: RefCell<Vec<Shared>>,
}

/// Metadata of the endpoints with this TLS flag and this status.
type Shared = (bool, Option<String>, Arc<Meta>);

/// A decoded endpoint.
enum Endpoint {
    Grpc(HostPort, bool),
    /// It speaks this protocol instead of gRPC.
    Other(String),
}

/// The results of all endpoints of a value.
#[derive(Default)]
struct Found {
    registrations: Vec<Registration>,
    by_address: HashMap<HostPort, usize>,
    others: Vec<String>,
    failures: Vec<String>,
}

impl Decoder {
    pub(super) fn read(
        &self,
        prefix: &str,
        key: &str,
        value: &str,
        remarks: &Remarks,
    ) -> Result<Decoded, String> {
        let below = key.strip_prefix(prefix).unwrap_or(key);
        let place = if self.whole_key { key.strip_prefix('/').unwrap_or(key) } else { below };
        let marker = self.empty.iter().any(|empty| empty == value);
        let marks = || Ok(Decoded::Nothing(format!("the value {value:?} marks a directory")));
        if marker && (place.is_empty() || place.ends_with('/')) {
            return marks();
        }
        if has_blank_segment(place) {
            return Err(BLANK.to_owned());
        }
        let Some(captures) = self.keys.iter().find_map(|pattern| pattern.captures(place)) else {
            return self.no_capture(place);
        };
        if marker {
            return marks();
        }
        let root = self.tree(&captures, value, remarks)?;
        let zero = |found: &Value| found.as_f64().is_some_and(|number| number <= 0.0);
        let there = |path: &String| find(&root, path).is_some_and(|found| !zero(found));
        if let Some(path) = self.needs.iter().find(|path| !there(path)) {
            return Ok(Decoded::Nothing(format!("it has no {path:?}, so it is no backend")));
        }
        let (room, shared) = (Cell::new(metadata::KEY_MAX), RefCell::default());
        let document = Document { root: &root, captures: &captures, remarks, room, shared };
        let service = self.service(prefix, &document)?;
        let mut found = Found::default();
        for item in self.items(&document)? {
            let one = item.and_then(|item| self.one(&service, &item, &document));
            found.add(one, remarks);
        }
        found.decoded(remarks)
    }

    /// Parses the value, or the URL in the key. Texts that hold JSON are parsed too if
    /// a path leads through them.
    fn tree(
        &self,
        captures: &Captures<'_>,
        value: &str,
        remarks: &Remarks,
    ) -> Result<Value, String> {
        let (mut root, mut cut) = match capture(captures, "url") {
            Some(encoded) => (encoded_url(encoded)?, false),
            None => tree::parse(self.syntax, value, self.wanted().as_deref())?,
        };
        for path in self.paths() {
            cut |= tree::expand(&mut root, path, false);
        }
        for path in self.endpoints.iter().chain(&self.meta) {
            cut |= tree::expand(&mut root, path, true);
        }
        if let Some(Value::Array(all)) = self.list_mut(&mut root) {
            for one in all.iter_mut().take(ENDPOINTS_MAX) {
                self.paths().for_each(|path| cut |= tree::expand(one, path, false));
                self.meta.iter().for_each(|path| cut |= tree::expand(one, path, true));
            }
        }
        if cut {
            let most = tree::DEPTH_MAX;
            remarks.add(format!("parts nested more than {most} levels deep are left out"));
        }
        Ok(root)
    }

    /// Returns every path to a text or a number.
    fn paths(&self) -> impl Iterator<Item = &String> {
        let named = self.labels.iter().flat_map(|(_, paths)| paths);
        let all = [
            &self.needs,
            &self.service,
            &self.title,
            &self.claims,
            &self.address,
            &self.host,
            &self.port,
            &self.id,
            &self.weight,
            &self.protocol,
            &self.enabled,
            &self.healthy,
            &self.status,
        ];
        all.into_iter().flatten().chain(named)
    }

    /// Returns the top-level fields that are used; `None`: all.
    fn wanted(&self) -> Option<Vec<&str>> {
        let paths = self.paths().chain(&self.endpoints).chain(&self.meta);
        paths
            .map(|path| {
                let first = path.strip_prefix('/')?.split('/').next()?;
                (!first.contains('~')).then_some(first)
            })
            .collect()
    }

    fn no_capture(&self, place: &str) -> Result<Decoded, String> {
        if self.skip.iter().any(|pattern| pattern.captures(place).is_some()) {
            return Ok(Decoded::Nothing("a key of another kind".to_owned()));
        }
        let shapes: Vec<_> = self.keys.iter().map(ToString::to_string).collect();
        let (shapes, below) =
            (shapes.join(" or "), if self.whole_key { "" } else { " below the prefix" });
        Err(format!("the key has another shape: expected {shapes}{below}"))
    }

    fn list_mut<'a>(&self, root: &'a mut Value) -> Option<&'a mut Value> {
        let path = self.endpoints.iter().find(|path| find(root, path).is_some())?;
        root.pointer_mut(path)
    }

    /// Returns the list of endpoints, if the value has one.
    fn list<'a>(&self, document: &Document<'a>) -> Result<Option<&'a Value>, String> {
        let elsewhere = self.endpoints.is_empty() || !self.host.is_empty();
        let Some(found) = self.endpoints.iter().find_map(|path| find(document.root, path)) else {
            return if elsewhere { Ok(None) } else { Err(missing(&self.endpoints, "a list")) };
        };
        // If the value has host and port of its own too, they are used instead.
        let whole = || self.look(None, document.root, &self.port).is_some();
        match found {
            Value::Array(all) if all.is_empty() && elsewhere && whole() => Ok(None),
            Value::Array(_) | Value::Object(_) => Ok(Some(found)),
            _ if elsewhere && whole() => {
                let path = &self.endpoints[0];
                document.remarks.add(format!("{path:?} is {}, no list: ignored", shown(found)));
                Ok(None)
            }
            _ => Err(format!("{:?} is no list of endpoints", self.endpoints[0])),
        }
    }

    fn items<'a>(&self, document: &Document<'a>) -> Result<Vec<Result<Item<'a>, String>>, String> {
        let at = |address| Item { address, ..Item::default() };
        let (all, length): (Box<dyn Iterator<Item = _>>, _) = match self.list(document)? {
            Some(Value::Array(all)) => {
                let item = |value: &'a Value| match value {
                    Value::String(text) => Ok(at(Some(text.as_str()))),
                    Value::Object(_) => Ok(Item { own: Some(value), ..Item::default() }),
                    other => {
                        Err(format!("the endpoint {} is neither text nor an object", shown(other)))
                    }
                };
                (Box::new(all.iter().map(item)), all.len())
            }
            Some(Value::Object(all)) => {
                let item = |(address, weight): (&'a String, &'a Value)| {
                    Ok(Item { weight: Some(weight), ..at(Some(address.as_str())) })
                };
                (Box::new(all.iter().map(item)), all.len())
            }
            _ => match capture(document.captures, "addresses") {
                Some(all) => {
                    let length = all.split(',').count();
                    (Box::new(all.split(',').map(|one| Ok(at(Some(one))))), length)
                }
                None => return Ok(vec![Ok(at(capture(document.captures, "address")))]),
            },
        };
        if length > ENDPOINTS_MAX {
            let most = ENDPOINTS_MAX;
            document.remarks.add(format!("of {length} endpoints the first {most} are read"));
        }
        Ok(all.take(ENDPOINTS_MAX).collect())
    }

    /// Returns the registration of one endpoint, or the other protocol that it speaks.
    fn one(
        &self,
        service: &ServiceName,
        item: &Item<'_>,
        document: &Document<'_>,
    ) -> Result<Result<Registration, String>, String> {
        Ok(match self.endpoint(item, document)? {
            Endpoint::Grpc(address, tls) => {
                Ok(self.registration(service, address, tls, item, document))
            }
            Endpoint::Other(protocol) => Err(protocol),
        })
    }
}

impl Found {
    fn add(&mut self, one: Result<Result<Registration, String>, String>, remarks: &Remarks) {
        match one {
            Ok(Ok(registration)) => match self.by_address.get(&registration.address) {
                Some(&at) => {
                    let address = &registration.address;
                    remarks.add(format!("the address {address} occurs more than once"));
                    // The last one is used, as by frameworks that put endpoints into a
                    // map.
                    self.registrations[at] = registration;
                }
                None => {
                    let at = self.registrations.len();
                    self.by_address.insert(registration.address.clone(), at);
                    self.registrations.push(registration);
                }
            },
            Ok(Err(protocol)) if self.others.contains(&protocol) => {}
            Ok(Err(protocol)) if self.others.len() < 8 => self.others.push(protocol),
            Ok(Err(_)) => {}
            Err(reason) => self.failures.push(reason),
        }
    }

    /// Returns the registrations. A bad endpoint is only left out with a remark; the
    /// key is rejected if no good one is left.
    fn decoded(self, remarks: &Remarks) -> Result<Decoded, String> {
        let Self { registrations, others, failures, .. } = self;
        if !registrations.is_empty() {
            failures.iter().for_each(|reason| remarks.add(format!("left out: {reason}")));
            return Ok(Decoded::Registers(Reading::from(registrations)));
        }
        if let Some(first) = failures.into_iter().next() {
            return Err(first);
        }
        let spoken = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        Ok(Decoded::Nothing(format!("it has no gRPC endpoint: {spoken}")))
    }
}

fn capture<'a>(captures: &Captures<'a>, name: &str) -> Option<&'a str> {
    captures.iter().find(|(found, _)| *found == name).map(|(_, text)| *text)
}

fn encoded_url(encoded: &str) -> Result<Value, String> {
    let plain = encoded.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&plain).decode_utf8();
    let decoded = decoded.map_err(|_| "the URL in the key is not UTF-8 text".to_owned())?;
    tree::url(&decoded).ok_or_else(|| "the key's last segment is no encoded URL".to_owned())
}

fn missing(paths: &Paths, expected: &str) -> String {
    let path = paths.first().map_or("address", String::as_str);
    if path.is_empty() {
        return format!("the value is empty: expected {expected}");
    }
    format!("{path:?} is missing: expected {expected}")
}
