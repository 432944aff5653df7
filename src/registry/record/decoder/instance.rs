//! One endpoint of a value: whether it counts, and all that is said of it.
//!
//! In: a description, the endpoint, the document it stands in. Out: its address
//! and its [`Registration`], or in words why it cannot be read.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::{Decoder, Document, Endpoint, Item, Paths, capture, missing};
use crate::model::{Host, HostPort, Meta, ServiceName, Weight};
use crate::registry::Registration;
use crate::registry::record::tree::{self, find, held, text};

/// A larger weight is a mistake; lists could not express it anyway.
pub(in crate::registry::record) const WEIGHT_MAX: u32 = 1_000_000;
/// Names in patterns that are no metadata.
const SPECIAL: [&str; 8] =
    ["service", "id", "scope", "address", "addresses", "url", "protocol", "*"];
/// What stands in a key for want of a version.
const NO_VERSION: &str = "latest";

impl Decoder {
    /// Where it listens, and whether it does so with TLS.
    pub(super) fn endpoint(
        &self,
        item: &Item<'_>,
        document: &Document<'_>,
    ) -> Result<Endpoint, String> {
        let mut said: Vec<String> = Vec::new();
        said.extend(capture(document.captures, "protocol").map(str::to_owned));
        for path in &self.protocol {
            let found = item.own.and_then(|own| find(own, path)).or(find(document.root, path));
            said.extend(found.iter().flat_map(|found| words(&text(found))));
        }
        let address = self.address_text(item, document)?;
        let mut address = address.trim();
        let url = tree::url(address);
        let mut tls = false;
        if let Some(url) = &url {
            said.push(url["scheme"].as_str().unwrap_or_default().to_owned());
            address = url["address"].as_str().unwrap_or_default();
            tls = url["query"]["isSecure"] == "true";
        }
        if said.is_empty() {
            said.extend(self.default_protocol.clone());
        }
        let counted = said.iter().find(|one| self.schemes.contains(one));
        if !said.is_empty() && counted.is_none() {
            return Ok(Endpoint::Other(said.remove(0)));
        }
        let scheme = counted.map_or("grpc", String::as_str);
        tls |= scheme == "grpcs";
        let port = if tls { 443 } else { 80 };
        let portless = self.default_ports && Host::parse(address).is_some();
        let whole = if portless { format!("{address}:{port}") } else { address.to_owned() };
        let address = HostPort::parse(&whole).map_err(|error| error.to_string())?;
        Ok(Endpoint::Grpc(address, tls))
    }

    fn address_text(&self, item: &Item<'_>, document: &Document<'_>) -> Result<String, String> {
        if let Some(address) = item.address {
            return Ok(address.to_owned());
        }
        if let Some(host) = self.look(item.own, document.root, &self.host) {
            let host = if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]")
            } else {
                host
            };
            return match self.look(item.own, document.root, &self.port) {
                Some(port) => Ok(format!("{host}:{port}")),
                None if self.default_ports => Ok(host),
                None => Err(missing(&self.port, "a port")),
            };
        }
        let address = self.look(item.own, document.root, &self.address);
        let paths = if self.address.is_empty() { &self.host } else { &self.address };
        address.ok_or_else(|| missing(paths, "host:port"))
    }

    pub(super) fn registration(
        &self,
        service: &ServiceName,
        address: HostPort,
        tls: bool,
        item: &Item<'_>,
        document: &Document<'_>,
    ) -> Result<Registration, String> {
        let id = self.look(item.own, document.root, &self.id);
        let id = id.or_else(|| capture(document.captures, "id").map(str::to_owned));
        let id = id.unwrap_or_else(|| address.to_string());
        let mut weight = self.weight(item, document)?;
        let mut meta = self.metadata(item, document);
        if tls {
            meta.insert("tls".to_owned(), "true".to_owned());
        }
        if let Some(status) = self.out_of_service(item, document) {
            weight = Weight(0);
            meta.insert("status".to_owned(), status);
        }
        let (service, meta) = (service.clone(), Arc::new(meta));
        Ok(Registration { service, id: id.into(), address, weight, meta })
    }

    fn weight(&self, item: &Item<'_>, document: &Document<'_>) -> Result<Weight, String> {
        let said = item.weight.clone();
        let said = said.or_else(|| self.look(item.own, document.root, &self.weight));
        match said.as_deref().map(weight).transpose()? {
            None => Ok(Weight(self.default_weight)),
            Some(Weight(0)) if self.zero_is_default => Ok(Weight(self.default_weight)),
            Some(weight) => Ok(weight),
        }
    }

    /// Why it gets no calls though it is registered.
    fn out_of_service(&self, item: &Item<'_>, document: &Document<'_>) -> Option<String> {
        let said = |paths| self.look(item.own, document.root, paths);
        let no = |text: String| matches!(text.to_ascii_lowercase().as_str(), "false" | "0" | "no");
        if said(&self.enabled).is_some_and(no) {
            return Some("disabled".to_owned());
        }
        if said(&self.healthy).is_some_and(no) {
            return Some("unhealthy".to_owned());
        }
        let status = said(&self.status)?;
        let up = self.up.is_empty() || self.up.contains(&status);
        (!up || self.down.contains(&status)).then_some(status)
    }

    /// What the value says as a whole, then what the endpoint says, then what
    /// has a name of its own.
    fn metadata(&self, item: &Item<'_>, document: &Document<'_>) -> Meta {
        let mut meta = Meta::new();
        for path in &self.meta {
            for tree in [Some(document.root), item.own].into_iter().flatten() {
                let Some(found) = find(tree, path) else { continue };
                let inner = held(&found);
                let Some(object) = inner.as_ref().unwrap_or(&found).as_object() else { continue };
                for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
                    if !self.consumed(path, key) {
                        meta.insert(key.clone(), text(value));
                    }
                }
            }
        }
        for (name, captured) in document.captures {
            let no_version = *name == "version" && *captured == NO_VERSION;
            if !SPECIAL.contains(name) && !no_version {
                meta.insert((*name).to_owned(), (*captured).to_owned());
            }
        }
        for (name, paths) in &self.labels {
            if let Some(text) = self.look(item.own, document.root, paths) {
                meta.insert(name.clone(), text);
            }
        }
        meta
    }

    /// Whether something else is made of a field.
    fn consumed(&self, object: &str, key: &str) -> bool {
        let escaped: Cow<'_, str> = match key.contains(['~', '/']) {
            true => key.replace('~', "~0").replace('/', "~1").into(),
            false => key.into(),
        };
        // The length tells most of them apart, and costs nothing.
        let length = object.len() + 1 + escaped.len();
        let is = |path: &String| {
            path.len() == length
                && path.strip_prefix(object).and_then(|rest| rest.strip_prefix('/'))
                    == Some(&*escaped)
        };
        let all = [
            &self.service,
            &self.endpoints,
            &self.address,
            &self.host,
            &self.port,
            &self.id,
            &self.weight,
            &self.protocol,
            &self.enabled,
            &self.healthy,
            &self.status,
            &self.ignore,
            &self.meta,
        ];
        all.into_iter().flatten().any(is) || self.labels.iter().flat_map(|(_, paths)| paths).any(is)
    }

    /// The first text that is found; empty text says nothing.
    pub(super) fn look(&self, own: Option<&Value>, root: &Value, paths: &Paths) -> Option<String> {
        let said =
            |value: Cow<'_, Value>| Some(text(&value)).filter(|text| !text.trim().is_empty());
        paths.iter().find_map(|path| {
            let own = own.and_then(|own| find(own, path)).and_then(said);
            own.or_else(|| find(root, path).and_then(said))
        })
    }
}

/// A whole number; frameworks that count in floats write `100` or `100.0`.
pub(in crate::registry::record) fn weight(text: &str) -> Result<Weight, String> {
    let whole = text.trim().strip_suffix(".0").unwrap_or(text.trim());
    match whole.parse::<u32>() {
        Ok(weight) if weight <= WEIGHT_MAX => Ok(Weight(weight)),
        _ => Err(format!("the weight {text:?} is no whole number from 0 to {WEIGHT_MAX}")),
    }
}

/// `tri,` and `tri,rest` are lists.
fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
