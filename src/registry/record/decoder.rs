//! Reads keys and values as a description says: one machine for every
//! framework's format and for those that operators describe themselves.
//!
//! In: a [`Decoder`], a prefix, a key and its value. Out: what the key
//! registers, that it registers nothing, or in words why it cannot be read.
//! Whatever leaves an address is read; what is odd about it becomes a remark.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::Decoded;
use super::pattern::{Captures, Pattern};
use super::remarks::{Remarks, shown};
use super::tree::{self, Syntax, find};
use super::weights::Low;
use crate::model::{HostPort, Meta, ServiceName};
use crate::registry::{Reading, Registration};

mod instance;
mod metadata;
mod service;

pub(super) use instance::ID_MAX;
pub(super) use metadata::Kept;
pub(super) use service::{BLANK, has_blank_segment};

/// How a format's keys and values are read. Fields named after what they find
/// hold JSON pointers into the value: the first that finds something counts.
/// Within a list of endpoints each is tried in the endpoint first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decoder {
    /// `NAME` of `custom:NAME`; empty for the formats that have names.
    pub(super) name: String,
    /// Shapes of the keys that register something, below the prefix.
    pub(super) keys: Vec<Pattern>,
    /// Shapes of keys that are known to register nothing.
    pub(super) skip: Vec<Pattern>,
    /// Whether patterns describe keys from their very beginning.
    pub(super) whole_key: bool,
    /// Values that mean nothing.
    pub(super) empty: Vec<String>,
    /// A value without one of these registers nothing; a number must be above 0.
    pub(super) needs: Paths,
    pub(super) syntax: Syntax,
    /// The service's name, if the key is not to say it. Where the key says it
    /// too, both must say the same.
    pub(super) service: Paths,
    /// A better name than the key's for the service, if it can be one.
    pub(super) title: Paths,
    /// What the value says of the service that the key names: not to be taken,
    /// and not to be contradicted.
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
    /// Whether gRPC's scheme says the port where nothing else does.
    pub(super) default_ports: bool,
    /// Whether the last colon parts host and port, even in IPv6 addresses.
    pub(super) last_colon: bool,
    pub(super) id: Paths,
    pub(super) weight: Paths,
    pub(super) default_weight: u32,
    /// What the weight 0 means, and anything below.
    pub(super) low: Low,
    /// What is spoken; any of what is found may be in `schemes`.
    pub(super) protocol: Paths,
    /// What is spoken where nothing is found; `None`: gRPC.
    pub(super) default_protocol: Option<String>,
    /// What counts as gRPC.
    pub(super) schemes: Vec<String>,
    pub(super) enabled: Paths,
    pub(super) healthy: Paths,
    pub(super) status: Paths,
    /// Statuses in service; empty: all that are not `down`.
    pub(super) up: Vec<String>,
    pub(super) down: Vec<String>,
    /// Objects that are metadata as a whole.
    pub(super) meta: Paths,
    /// Metadata by name: `zone`, `region`, `version`…
    pub(super) labels: Vec<(String, Paths)>,
    /// What must never cause a push.
    pub(super) ignore: Paths,
}

/// JSON pointers, in the order in which they are tried.
pub(super) type Paths = Vec<String>;

/// More endpoints than this in one key are a mistake, and left out.
const ENDPOINTS_MAX: usize = 10_000;

/// One endpoint of a value, before anything of it is checked.
#[derive(Clone, Copy, Default)]
struct Item<'a> {
    /// Where its own fields are.
    own: Option<&'a Value>,
    address: Option<&'a str>,
    weight: Option<&'a Value>,
}

/// A value and what its key says.
struct Document<'a> {
    root: &'a Value,
    captures: &'a Captures<'a>,
    remarks: &'a Remarks,
    /// How much more metadata may be kept of this key, in bytes.
    room: Cell<usize>,
    /// Metadata of endpoints that have no fields of their own, by what else
    /// decides it.
    shared: RefCell<Vec<Shared>>,
}

/// Metadata of endpoints that speak TLS or do not, and have this status.
type Shared = (bool, Option<String>, Arc<Meta>);

/// What an endpoint is, if it counts.
enum Endpoint {
    Grpc(HostPort, bool),
    /// Speaks this instead.
    Other(String),
}

/// What became of a value's endpoints.
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
            return Ok(Decoded::Nothing(format!("it has no {path:?}: it is no server's")));
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

    /// The value, or what stands in the key for it, with all that paths lead
    /// through as trees.
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
            remarks.add(format!("what is nested more than {most} deep is left out"));
        }
        Ok(root)
    }

    /// Every path that finds a text or a number.
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

    /// The fields of a value that anything is made of; `None`: all.
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

    /// The list of endpoints, if the value has one.
    fn list<'a>(&self, document: &Document<'a>) -> Result<Option<&'a Value>, String> {
        let elsewhere = self.endpoints.is_empty() || !self.host.is_empty();
        let Some(found) = self.endpoints.iter().find_map(|path| find(document.root, path)) else {
            return if elsewhere { Ok(None) } else { Err(missing(&self.endpoints, "a list")) };
        };
        // Where host and port stand for the whole too, they count instead.
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

    /// What one endpoint registers, or what it speaks instead.
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
                    remarks.add(format!("the address {address} stands there more than once"));
                    // As where frameworks put them into a table: the last counts.
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

    /// A bad endpoint costs only itself; where nothing else is left, the key.
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
