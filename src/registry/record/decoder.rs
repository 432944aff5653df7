//! Reads keys and values as a description says: one machine for every
//! framework's format and for those that operators describe themselves.
//!
//! In: a [`Decoder`], a prefix, a key and its value. Out: what the key
//! registers, that it registers nothing, or in words why it cannot be read.

use serde_json::Value;

use super::Decoded;
use super::pattern::{Captures, Pattern};
use super::tree::{self, Syntax, find, held, text};
use crate::model::{HostPort, ServiceName};

mod instance;

pub(super) use instance::{WEIGHT_MAX, weight};

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
    /// A value without one of these registers nothing.
    pub(super) needs: Paths,
    pub(super) syntax: Syntax,
    pub(super) service: Paths,
    /// Whether the captured service is a reversed DNS name.
    pub(super) reversed: bool,
    /// A list of endpoints, or an object of weights by address.
    pub(super) endpoints: Paths,
    pub(super) address: Paths,
    pub(super) host: Paths,
    pub(super) port: Paths,
    /// Whether gRPC's scheme says the port where nothing else does.
    pub(super) default_ports: bool,
    pub(super) id: Paths,
    pub(super) weight: Paths,
    pub(super) default_weight: u32,
    /// Whether the weight 0 says nothing, as where it cannot be left out.
    pub(super) zero_is_default: bool,
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

/// More endpoints than this in one key are a mistake.
const ENDPOINTS_MAX: usize = 10_000;
/// What a scope is called that is left out of the service's name.
const USUAL_SCOPE: &str = "default";

/// One endpoint of a value, before anything of it is checked.
struct Item<'a> {
    /// Where its own fields are.
    own: Option<&'a Value>,
    address: Option<&'a str>,
    weight: Option<String>,
}

/// A value and what its key says.
struct Document<'a> {
    root: &'a Value,
    captures: &'a Captures<'a>,
}

/// What an endpoint is, if it counts.
enum Endpoint {
    Grpc(HostPort, bool),
    /// Speaks this instead.
    Other(String),
}

impl Decoder {
    pub(super) fn read(&self, prefix: &str, key: &str, value: &str) -> Result<Decoded, String> {
        let below = key.strip_prefix(prefix).unwrap_or(key);
        let place = if self.whole_key { key.strip_prefix('/').unwrap_or(key) } else { below };
        let Some(captures) = self.keys.iter().find_map(|pattern| pattern.captures(place)) else {
            return self.no_capture(place);
        };
        if self.empty.iter().any(|empty| empty == value) {
            return Ok(Decoded::Nothing(format!("the value {value:?} marks a directory")));
        }
        let root = match capture(&captures, "url") {
            Some(encoded) => encoded_url(encoded)?,
            None => tree::parse(self.syntax, value)?,
        };
        if let Some(path) = self.needs.iter().find(|path| find(&root, path).is_none()) {
            return Ok(Decoded::Nothing(format!("it has no {path:?}: it is no server's")));
        }
        let document = Document { root: &root, captures: &captures };
        let service = self.service(prefix, &document)?;
        let list = self.list(&root)?;
        let mut registrations = Vec::new();
        let mut others: Vec<String> = Vec::new();
        for item in self.items(&document, list.as_deref())? {
            match self.endpoint(&item, &document)? {
                Endpoint::Grpc(address, tls) => {
                    let found = self.registration(&service, address, tls, &item, &document)?;
                    registrations.push(found);
                }
                Endpoint::Other(protocol) if !others.contains(&protocol) => others.push(protocol),
                Endpoint::Other(_) => {}
            }
        }
        if registrations.is_empty() {
            let spoken = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
            return Ok(Decoded::Nothing(format!("it has no gRPC endpoint: {spoken}")));
        }
        Ok(Decoded::Registers(registrations.into()))
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

    /// Named by the value, by the key, or by the prefix's own last segment.
    fn service(&self, prefix: &str, document: &Document<'_>) -> Result<ServiceName, String> {
        let captured = capture(document.captures, "service").filter(|text| !text.is_empty());
        let own = || prefix.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let mut name = match self.look(None, document.root, &self.service) {
            Some(name) => name,
            None if self.reversed => {
                let labels = captured.unwrap_or_default();
                labels.rsplit('/').collect::<Vec<_>>().join(".")
            }
            None => captured.unwrap_or_else(own).to_owned(),
        };
        let scope = capture(document.captures, "scope").unwrap_or_default();
        if scope.split('/').any(|part| !part.is_empty() && part != USUAL_SCOPE) {
            name = format!("{scope}/{name}");
        }
        ServiceName::new(&name).map_err(|error| error.to_string())
    }

    fn list<'a>(&self, root: &'a Value) -> Result<Option<std::borrow::Cow<'a, Value>>, String> {
        let Some(found) = self.endpoints.iter().find_map(|path| find(root, path)) else {
            let elsewhere = self.endpoints.is_empty() || !self.host.is_empty();
            return if elsewhere { Ok(None) } else { Err(missing(&self.endpoints, "a list")) };
        };
        let found = match held(&found) {
            Some(inner) => std::borrow::Cow::Owned(inner),
            None => found,
        };
        let length = match found.as_ref() {
            Value::Array(all) => all.len(),
            Value::Object(all) => all.len(),
            _ => return Err(format!("{:?} is no list of endpoints", self.endpoints[0])),
        };
        if length > ENDPOINTS_MAX {
            return Err(format!(
                "{length} endpoints in one value: at most {ENDPOINTS_MAX} are read"
            ));
        }
        Ok(Some(found))
    }

    fn items<'a>(
        &self,
        document: &Document<'a>,
        list: Option<&'a Value>,
    ) -> Result<Vec<Item<'a>>, String> {
        let at = |address| Item { own: None, address, weight: None };
        match list {
            Some(Value::Array(all)) => {
                let item = |value: &'a Value| match value {
                    Value::String(text) => Ok(at(Some(text.as_str()))),
                    Value::Object(_) => Ok(Item { own: Some(value), ..at(None) }),
                    other => Err(format!("the endpoint {other} is neither text nor an object")),
                };
                all.iter().map(item).collect()
            }
            Some(Value::Object(all)) => {
                let item = |(address, weight): (&'a String, &Value)| Item {
                    weight: Some(text(weight)),
                    ..at(Some(address))
                };
                Ok(all.iter().map(item).collect())
            }
            _ => Ok(match capture(document.captures, "addresses") {
                Some(addresses) => addresses.split(',').map(|one| at(Some(one))).collect(),
                None => vec![at(capture(document.captures, "address"))],
            }),
        }
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
