//! Decodes one endpoint of a value.
//!
//! In: a description, the endpoint, and the document that holds it. Out: its address
//! and its [`Registration`], or the reason why it has no address.

use serde_json::Value;

use super::{Decoder, Document, Endpoint, Item, Paths, capture, missing};
use crate::model::{Host, HostPort, ServiceName, Weight};
use crate::registry::Registration;
use crate::registry::record::remarks::shown;
use crate::registry::record::tree::{self, find, text};
use crate::registry::record::weights::weight;

/// The longest id, in bytes. A longer one is a mistake, and the key's id is used.
pub(in crate::registry::record) const ID_MAX: usize = 1024;

impl Decoder {
    /// Returns the address of an endpoint and whether it uses TLS, or the other
    /// protocol that it speaks.
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
        let whole = match Host::parse(address).filter(|_| self.default_ports) {
            Some(Host::Ip(ip)) => std::net::SocketAddr::new(ip, port).to_string(),
            Some(Host::Name(name)) => format!("{name}:{port}"),
            None => address.to_owned(),
        };
        let parse = if self.last_colon { HostPort::parse_last_colon } else { HostPort::parse };
        let address = parse(&whole).map_err(|error| error.to_string())?;
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
                // Some registrants write all numbers with a fraction.
                Some(port) => Ok(format!("{host}:{}", port.strip_suffix(".0").unwrap_or(&port))),
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
    ) -> Registration {
        let id = self.id(item, document).unwrap_or_else(|| address.to_string());
        let said = item.weight.or_else(|| found(item.own, document.root, &self.weight));
        let mut weight = weight(said, self.default_weight, self.low_weights, document.remarks);
        let status = self.out_of_service(item, document);
        if status.is_some() {
            weight = Weight(0);
        }
        let meta = self.metadata(tls, status, item, document);
        Registration { service: service.clone(), id: id.into(), address, weight, meta }
    }

    /// Returns the id of the value, or else that of the key.
    fn id(&self, item: &Item<'_>, document: &Document<'_>) -> Option<String> {
        let captured = capture(document.captures, "id").map(str::to_owned);
        let found = found(item.own, document.root, &self.id);
        let usable = |found: &&Value| match found {
            Value::String(text) => text.len() <= ID_MAX,
            found => found.is_number(),
        };
        if let Some(odd) = found.filter(|found| !usable(found)) {
            document.remarks.add(format!("the id {} is no short text: ignored", shown(odd)));
            return captured;
        }
        found.map(|found| text(found).into_owned()).or(captured)
    }

    /// Returns the status of a backend that is registered but must get no calls.
    fn out_of_service(&self, item: &Item<'_>, document: &Document<'_>) -> Option<String> {
        let said = |paths| found(item.own, document.root, paths);
        let no = |paths, what: &str| {
            let found = said(paths)?;
            match text(found).to_ascii_lowercase().as_str() {
                "false" | "0" | "no" | "off" => Some(what.to_owned()),
                "true" | "1" | "yes" | "on" => None,
                _ => {
                    let found = shown(found);
                    document.remarks.add(format!("{found} says nothing of being {what}: ignored"));
                    None
                }
            }
        };
        if let Some(status) =
            no(&self.enabled, "disabled").or_else(|| no(&self.healthy, "unhealthy"))
        {
            return Some(status);
        }
        let found = said(&self.status)?;
        if !found.is_string() && !found.is_number() {
            document.remarks.add(format!("the status {} is no text: ignored", shown(found)));
            return None;
        }
        let status = text(found).into_owned();
        let up = self.up.is_empty() || self.up.contains(&status);
        (!up || self.down.contains(&status)).then_some(status)
    }

    /// Returns the first text that is found. An empty text counts as missing.
    pub(super) fn look(&self, own: Option<&Value>, root: &Value, paths: &Paths) -> Option<String> {
        found(own, root, paths).map(|found| text(found).into_owned())
    }
}

/// Returns the first value that is found. An empty text counts as missing.
pub(super) fn found<'a>(
    own: Option<&'a Value>,
    root: &'a Value,
    paths: &Paths,
) -> Option<&'a Value> {
    let says = |value: &&Value| value.as_str().is_none_or(|text| !text.trim().is_empty());
    paths.iter().find_map(|path| {
        let own = own.and_then(|own| find(own, path)).filter(says);
        own.or_else(|| find(root, path).filter(says))
    })
}

/// Splits a list such as `tri,` or `tri,rest`.
fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
