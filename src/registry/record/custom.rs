//! Formats that operators describe: makes a [`Decoder`] of `[format.NAME]` in the
//! configuration.
//!
//! In: a name and a table. Out: the description, or all problems at once, each with its
//! setting and its place.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, de::Error};
use toml::de::DeTable;

use super::decoder::{Decoder, Paths};
use super::pattern::Pattern;
use super::presets::GRPC;
use super::tree::Syntax;
use super::weights::WEIGHT_MAX;
use crate::tables::{self, Name, Problems};

/// The table as it is written. All settings are optional but `key`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Described {
    key: Patterns,
    skip: Patterns,
    #[serde(deserialize_with = "syntax")]
    value: Option<Syntax>,
    service: Pointers,
    endpoints: Pointers,
    address: Pointers,
    host: Pointers,
    port: Pointers,
    id: Pointers,
    weight: Pointers,
    #[serde(deserialize_with = "weight")]
    default_weight: Option<u32>,
    protocol: Pointers,
    #[serde(deserialize_with = "text")]
    default_protocol: Option<String>,
    schemes: Texts,
    enabled: Pointers,
    healthy: Pointers,
    status: Pointers,
    up: Texts,
    down: Texts,
    meta: Pointers,
    ignore: Pointers,
    zone: Pointers,
    region: Pointers,
    version: Pointers,
    group: Pointers,
    cluster: Pointers,
    labels: Labels,
}

/// One text, or a list of texts.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "is neither text nor a list of texts")]
enum Texts {
    One(String),
    Many(Vec<String>),
}

/// JSON pointers: to the whole value, or to a part of it.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Texts")]
struct Pointers(Paths);

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Texts")]
struct Patterns(Vec<Pattern>);

/// `labels = { rack = "/location/rack" }`.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "TextsByName")]
struct Labels(Vec<(String, Paths)>);

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "is no table of JSON pointers")]
enum TextsByName {
    Table(BTreeMap<String, Texts>),
}

/// The JSON pointers to the parts of a parsed URL.
const URL_FIELDS: [&str; 3] = ["/address", "/scheme", "/query"];

/// Reads the table of the format `custom:NAME`. Returns `None` and adds to `problems`
/// if something is wrong with it.
pub fn describe(
    name: &Name<'_>,
    table: &DeTable<'_>,
    problems: &mut Problems<'_>,
) -> Option<Decoder> {
    let before = problems.found();
    let format = name.get_ref();
    let mut wrong = BTreeSet::new();
    let described: Described = tables::typed(table, |setting, _, why| {
        let what = why.unwrap_or("is no setting of a format");
        problems.add(setting.span(), format!("[format.{format}]: {} {what}", setting.get_ref()));
        wrong.insert(setting.get_ref().to_string());
    });
    let mut decoder = described.decoder(format);
    for (setting, what) in complete(&mut decoder, table, &wrong) {
        let place = table.keys().find(|key| key.get_ref() == setting).unwrap_or(name);
        problems.add(place.span(), format!("[format.{format}]: {setting} {what}"));
    }
    (problems.found() == before).then_some(decoder)
}

impl Described {
    /// Makes a decoder of the single settings, before they are completed.
    fn decoder(self, name: &str) -> Decoder {
        let labels = [
            ("zone", self.zone),
            ("region", self.region),
            ("version", self.version),
            ("group", self.group),
            ("cluster", self.cluster),
        ];
        let labels = labels.into_iter().map(|(label, paths)| (label.to_owned(), paths.0));
        let mut schemes: Vec<String> = self.schemes.into();
        if schemes.is_empty() {
            schemes = GRPC.map(str::to_owned).to_vec();
        }
        let labels = labels.filter(|(_, paths)| !paths.is_empty()).chain(self.labels.0);
        Decoder {
            name: name.to_owned(),
            keys: self.key.0,
            skip: self.skip.0,
            syntax: self.value.unwrap_or(Syntax::Json),
            service: self.service.0,
            endpoints: self.endpoints.0,
            address: self.address.0,
            host: self.host.0,
            port: self.port.0,
            id: self.id.0,
            weight: self.weight.0,
            default_weight: self.default_weight.unwrap_or(1),
            protocol: self.protocol.0,
            default_protocol: self.default_protocol,
            schemes,
            enabled: self.enabled.0,
            healthy: self.healthy.0,
            status: self.status.0,
            up: self.up.into(),
            down: self.down.into(),
            meta: self.meta.0,
            labels: labels.collect(),
            ignore: self.ignore.0,
            ..Decoder::default()
        }
    }
}

/// Completes the decoder with settings that follow from others. Returns the settings
/// that are missing, each with its problem. Settings in `wrong` were reported already.
fn complete(
    decoder: &mut Decoder,
    table: &DeTable<'_>,
    wrong: &BTreeSet<String>,
) -> Vec<(&'static str, &'static str)> {
    let captured = |name: &str| {
        !decoder.keys.is_empty() && decoder.keys.iter().all(|pattern| pattern.names(name))
    };
    let (url_in_key, address_in_key) =
        (captured("url"), captured("address") || captured("addresses"));
    let given = |setting: &str, paths: &Paths| !paths.is_empty() || wrong.contains(setting);
    let mut missing = Vec::new();
    if decoder.keys.is_empty() && !wrong.contains("key") {
        missing.push(("key", "is missing: expected a pattern such as {service...}/{id}"));
    }
    let (host, port) = (given("host", &decoder.host), given("port", &decoder.port));
    let mut listens = host
        || given("endpoints", &decoder.endpoints)
        || given("address", &decoder.address)
        || address_in_key;
    if decoder.syntax == Syntax::Url || url_in_key {
        let [address, scheme, query] = URL_FIELDS.map(|path| vec![path.to_owned()]);
        let places = [&decoder.endpoints, &decoder.address, &decoder.host];
        if places.iter().all(|paths| paths.is_empty()) {
            decoder.address = address;
        }
        if decoder.protocol.is_empty() {
            decoder.protocol = scheme;
        }
        if !table.contains_key("meta") {
            decoder.meta = query;
        }
        listens = true;
    }
    if decoder.syntax == Syntax::Text && !listens {
        decoder.address = vec![String::new()];
        listens = true;
    }
    if !listens {
        let remedy = "say nothing of where servers listen: give endpoints, address, or host and \
                      port, or {address} in the key";
        missing.push(("address", remedy));
    }
    if host && !port {
        missing.push(("port", "is missing: host needs it"));
    }
    if port && !host {
        missing.push(("host", "is missing: port needs it"));
    }
    let status = given("status", &decoder.status);
    let statuses = given("up", &decoder.up) || given("down", &decoder.down);
    if statuses && !status {
        missing.push(("status", "is missing: up and down need it"));
    }
    if status && !statuses {
        let remedy = "needs up or down: which statuses are in service, or out of it";
        missing.push(("status", remedy));
    }
    missing
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

impl TryFrom<Texts> for Pointers {
    type Error = String;

    fn try_from(texts: Texts) -> Result<Self, String> {
        let paths: Paths = texts.into();
        let wrong = paths.iter().filter(|path| !path.is_empty() && !path.starts_with('/'));
        let wrong = wrong
            .map(|path| format!("is {path:?}, which is no JSON pointer: write \"/{path}\""))
            .collect::<Vec<_>>();
        if wrong.is_empty() { Ok(Self(paths)) } else { Err(wrong.join("; ")) }
    }
}

impl TryFrom<Texts> for Patterns {
    type Error = String;

    fn try_from(texts: Texts) -> Result<Self, String> {
        let texts: Vec<String> = texts.into();
        let patterns: Result<_, _> = texts.iter().map(|text| Pattern::parse(text)).collect();
        patterns.map(Self).map_err(|error| format!("cannot be used: {error}"))
    }
}

impl TryFrom<TextsByName> for Labels {
    type Error = String;

    fn try_from(TextsByName::Table(table): TextsByName) -> Result<Self, String> {
        let label = |(name, texts): (String, Texts)| match Pointers::try_from(texts) {
            Ok(paths) => Ok((name, paths.0)),
            Err(error) => Err(format!("cannot be used: {name} {error}")),
        };
        table.into_iter().map(label).collect::<Result<_, _>>().map(Self)
    }
}

fn syntax<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Syntax>, D::Error> {
    let said = text(value)?.unwrap_or_default();
    match said.as_str() {
        "json" => Ok(Some(Syntax::Json)),
        "text" => Ok(Some(Syntax::Text)),
        "url" => Ok(Some(Syntax::Url)),
        "query" => Ok(Some(Syntax::Query)),
        "none" => Ok(Some(Syntax::Nothing)),
        other => {
            Err(D::Error::custom(format!("is {other:?}: expected json, text, url, query or none")))
        }
    }
}

fn weight<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u32>, D::Error> {
    let weight = u32::deserialize(value).ok().filter(|&weight| weight <= WEIGHT_MAX);
    let wrong = || D::Error::custom(format!("is no whole number from 0 to {WEIGHT_MAX}"));
    weight.map(Some).ok_or_else(wrong)
}

fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    String::deserialize(value).map(Some).map_err(|_| D::Error::custom("is no text"))
}

#[cfg(test)]
mod tests;
