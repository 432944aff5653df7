//! Operators' own formats: `[format.NAME]` of the configuration → a
//! [`Decoder`].
//!
//! In: a name and a table. Out: what it describes, or every problem at once,
//! each with its setting.

use serde_json::{Map, Value};

use super::decoder::{Decoder, Paths};
use super::pattern::Pattern;
use super::presets::GRPC;
use super::tree::Syntax;
use super::weights::WEIGHT_MAX;

/// Every setting of a table; all are optional but `key`.
const SETTINGS: [&str; 27] = [
    "key",
    "skip",
    "value",
    "service",
    "endpoints",
    "address",
    "host",
    "port",
    "id",
    "weight",
    "default-weight",
    "protocol",
    "default-protocol",
    "schemes",
    "enabled",
    "healthy",
    "status",
    "up",
    "down",
    "meta",
    "ignore",
    "zone",
    "region",
    "version",
    "group",
    "cluster",
    "labels",
];
/// Settings that are metadata of the same name.
const LABELS: [&str; 5] = ["zone", "region", "version", "group", "cluster"];
/// Where a URL's parts are.
const URL_FIELDS: [&str; 3] = ["/address", "/scheme", "/query"];

/// A table and the problems found in it so far.
struct Table<'a> {
    name: &'a str,
    table: &'a Map<String, Value>,
    problems: Vec<String>,
}

/// Reads the table of the format `custom:NAME`.
///
/// # Errors
/// All that is wrong with it.
pub fn describe(name: &str, table: &Map<String, Value>) -> Result<Decoder, Vec<String>> {
    let mut table = Table { name, table, problems: Vec::new() };
    let decoder = table.decoder();
    if table.problems.is_empty() { Ok(decoder) } else { Err(table.problems) }
}

impl Table<'_> {
    fn decoder(&mut self) -> Decoder {
        let unknown: Vec<_> =
            self.table.keys().filter(|key| !SETTINGS.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            self.problem(&key, "is no setting of a format");
        }
        let mut labels: Vec<(String, Paths)> = Vec::new();
        for name in LABELS {
            let paths = self.paths(name);
            if !paths.is_empty() {
                labels.push((name.to_owned(), paths));
            }
        }
        labels.extend(self.labels());
        let mut decoder = Decoder {
            name: self.name.to_owned(),
            keys: self.patterns("key"),
            skip: self.patterns("skip"),
            syntax: self.syntax(),
            service: self.paths("service"),
            endpoints: self.paths("endpoints"),
            address: self.paths("address"),
            host: self.paths("host"),
            port: self.paths("port"),
            id: self.paths("id"),
            weight: self.paths("weight"),
            default_weight: self.default_weight(),
            protocol: self.paths("protocol"),
            default_protocol: self.texts("default-protocol").into_iter().next(),
            schemes: self.texts("schemes"),
            enabled: self.paths("enabled"),
            healthy: self.paths("healthy"),
            status: self.paths("status"),
            up: self.texts("up"),
            down: self.texts("down"),
            meta: self.paths("meta"),
            labels,
            ignore: self.paths("ignore"),
            ..Decoder::default()
        };
        if decoder.schemes.is_empty() {
            decoder.schemes = GRPC.map(str::to_owned).to_vec();
        }
        self.complete(&mut decoder);
        decoder
    }

    /// What the settings mean together.
    fn complete(&mut self, decoder: &mut Decoder) {
        let captured = |name: &str| {
            !decoder.keys.is_empty() && decoder.keys.iter().all(|pattern| pattern.names(name))
        };
        let (url_in_key, address_in_key) =
            (captured("url"), captured("address") || captured("addresses"));
        if decoder.keys.is_empty() && !self.table.contains_key("key") {
            self.problem("key", "is missing: expected a pattern such as {service...}/{id}");
        }
        let places = [&decoder.endpoints, &decoder.address, &decoder.host];
        let mut said = places.iter().filter(|paths| !paths.is_empty()).count();
        if decoder.syntax == Syntax::Url || url_in_key {
            let [address, scheme, query] = URL_FIELDS.map(|path| vec![path.to_owned()]);
            if said == 0 {
                decoder.address = address;
            }
            if decoder.protocol.is_empty() {
                decoder.protocol = scheme;
            }
            if decoder.meta.is_empty() && !self.table.contains_key("meta") {
                decoder.meta = query;
            }
            said = said.max(1);
        }
        if decoder.syntax == Syntax::Text && said == 0 && !address_in_key {
            decoder.address = vec![String::new()];
            said = 1;
        }
        if said == 0 && !address_in_key {
            let remedy = "say nothing of where servers listen: give endpoints, address, or host \
                          and port, or {address} in the key";
            self.problem("address", remedy);
        }
        if !decoder.host.is_empty() && decoder.port.is_empty() {
            self.problem("port", "is missing: host needs it");
        }
        if !decoder.port.is_empty() && decoder.host.is_empty() {
            self.problem("host", "is missing: port needs it");
        }
        let statuses = !decoder.up.is_empty() || !decoder.down.is_empty();
        if decoder.status.is_empty() && statuses {
            self.problem("status", "is missing: up and down are about it");
        }
        if !decoder.status.is_empty() && !statuses {
            self.problem("status", "needs up or down: which statuses are in service, or out of it");
        }
    }

    fn problem(&mut self, setting: &str, what: &str) {
        self.problems.push(format!("[format.{}]: {setting} {what}", self.name));
    }

    /// One text, or a list of texts.
    fn texts(&mut self, setting: &str) -> Vec<String> {
        let found = match self.table.get(setting) {
            None => Some(Vec::new()),
            Some(Value::String(text)) => Some(vec![text.clone()]),
            Some(Value::Array(all)) => {
                all.iter().map(|one| one.as_str().map(str::to_owned)).collect()
            }
            Some(_) => None,
        };
        found.unwrap_or_else(|| {
            self.problem(setting, "is neither text nor a list of texts");
            Vec::new()
        })
    }

    /// JSON pointers: the whole value, or something in it.
    fn paths(&mut self, setting: &str) -> Paths {
        let paths = self.texts(setting);
        for path in paths.iter().filter(|path| !path.is_empty() && !path.starts_with('/')) {
            let remedy = format!("is {path:?}, which is no JSON pointer: write \"/{path}\"");
            self.problem(setting, &remedy);
        }
        paths
    }

    fn patterns(&mut self, setting: &str) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in self.texts(setting) {
            match Pattern::parse(&text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.problem(setting, &format!("cannot be used: {error}")),
            }
        }
        patterns
    }

    fn syntax(&mut self) -> Syntax {
        let said = self.texts("value");
        match said.first().map_or("json", String::as_str) {
            "json" => Syntax::Json,
            "text" => Syntax::Text,
            "url" => Syntax::Url,
            "query" => Syntax::Query,
            "none" => Syntax::Nothing,
            other => {
                let remedy = format!("is {other:?}: expected json, text, url, query or none");
                self.problem("value", &remedy);
                Syntax::Json
            }
        }
    }

    fn default_weight(&mut self) -> u32 {
        let weight = match self.table.get("default-weight") {
            None => Some(1),
            Some(said) => said.as_u64().and_then(|weight| u32::try_from(weight).ok()),
        };
        weight.filter(|&weight| weight <= WEIGHT_MAX).unwrap_or_else(|| {
            let remedy = format!("is no whole number from 0 to {WEIGHT_MAX}");
            self.problem("default-weight", &remedy);
            1
        })
    }

    /// `labels = { rack = "/location/rack" }`.
    fn labels(&mut self) -> Vec<(String, Paths)> {
        let object = match self.table.get("labels") {
            None => return Vec::new(),
            Some(Value::Object(object)) => object,
            Some(_) => {
                self.problem("labels", "is no table of JSON pointers");
                return Vec::new();
            }
        };
        let mut inner = Table { name: self.name, table: object, problems: Vec::new() };
        let labels = object.keys().map(|name| (name.clone(), inner.paths(name))).collect();
        self.problems.append(&mut inner.problems);
        labels
    }
}

#[cfg(test)]
mod tests;
