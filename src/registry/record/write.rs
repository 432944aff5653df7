//! Encodes a registration as a key and a value of any format.
//!
//! In: a format, a prefix, a [`Registration`]. Out: the key and value that a registrant
//! of that format would write, or what the format cannot carry. The result is decoded
//! again before it is returned, so nothing is lost silently.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::format::Format;
use super::{Decoded, EncodeError, Prefix, json};
use crate::model::{Host, Meta};
use crate::registry::Registration;

/// The characters that must be encoded in a parameter of a URL.
const IN_QUERY: &AsciiSet = &CONTROLS.add(b'&').add(b'=').add(b'%').add(b'+').add(b'#').add(b' ');
/// The characters that must be encoded for a URL in a key, as Go and Java do.
const IN_KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Returns the key and the value of a registration. `Auto` writes plain text if that
/// carries everything, and etcd-naming otherwise.
///
/// # Errors
/// If the format cannot carry a part of the registration.
pub fn write(
    format: &Format,
    prefix: &str,
    registration: &Registration,
) -> Result<(String, String), EncodeError> {
    let path = match prefix.trim_matches('/') {
        "" => "/".to_owned(),
        _ => format.bounded(prefix),
    };
    let (below, value) = write_below(format, registration)?;
    // Jupiter's keys do not begin with the prefix as such.
    let key = match format {
        Format::Jupiter if !below.starts_with(&path) => {
            let why = format!("its key is {below:?}, which is not below {path:?}");
            return Err(EncodeError::Key(format.clone(), why));
        }
        Format::Jupiter => below,
        _ => format!("{path}{below}"),
    };
    let read = Prefix { path, format: format.clone() }.read(key.as_bytes(), value.as_bytes());
    let same = matches!(&read, Ok(Decoded::Registers(all)) if all.registrations.as_slice() == [registration.clone()]);
    if same {
        return Ok((key, value));
    }
    let lost = match &read {
        Ok(Decoded::Registers(all)) => lost(registration, all.registrations.first()),
        Ok(Decoded::Nothing(why)) => why.clone(),
        Err(rejected) => rejected.reason.clone(),
    };
    Err(EncodeError::NoRoom(format.clone(), lost))
}

fn lost(wanted: &Registration, read: Option<&Registration>) -> String {
    let Some(read) = read else { return "it".to_owned() };
    if wanted.address != read.address {
        return format!("the address {}", wanted.address);
    }
    if wanted.service != read.service {
        return format!("the service {} under this prefix", wanted.service);
    }
    if wanted.weight != read.weight {
        return format!("the weight {}", wanted.weight.0);
    }
    let differs = |(key, value): &(&String, &String)| read.meta.get(*key) != Some(*value);
    if let Some((key, value)) = wanted.meta.iter().find(differs) {
        return format!("the metadata {key}={value}");
    }
    if wanted.meta.len() != read.meta.len() {
        return "a registration without further metadata".to_owned();
    }
    format!("the id {}", wanted.id)
}

fn write_below(format: &Format, r: &Registration) -> Result<(String, String), EncodeError> {
    let address = r.address.to_string();
    let plainly = r.weight == format.default_weight() && r.meta.is_empty();
    let usual = format!("{}/{}", r.service, r.id);
    let written = match format {
        Format::Auto if !plainly => (usual, json::etcd_naming(r)),
        Format::Auto | Format::Plain | Format::GoZero | Format::Registrator | Format::GoKit => {
            (usual, address)
        }
        Format::EtcdNaming => (usual, json::etcd_naming(r)),
        Format::Qsf => (usual, json::qsf(r)),
        Format::Kratos => (usual, kratos(r)),
        Format::KratosV1 => (usual, kratos_v1(r)),
        Format::GoMicro => (usual, go_micro(r)),
        Format::Rpcx => (format!("{}/tcp@{address}", r.service), query(&all_meta(format, r, true))),
        Format::Dubbo => dubbo(r),
        Format::DubboApp => (format!("{}/{address}", r.service), dubbo_app(r)),
        Format::Kitex | Format::Hertz => (format!("{}/{address}", r.service), kitex(r)),
        Format::Skydns => skydns(r),
        Format::Jupiter => jupiter(r),
        Format::Jupiter2020 => {
            (format!("{}/providers/grpc://{address}", r.service), jupiter_info(r).to_string())
        }
        Format::GoFrame => goframe(r),
        Format::Apisix => {
            let why =
                "an upstream's nodes share one key, which its servers cannot write one by one";
            return Err(EncodeError::ReadOnly(format.clone(), why));
        }
        Format::Custom(_) => {
            let why = "a description says how to read, not how to write";
            return Err(EncodeError::ReadOnly(format.clone(), why));
        }
    };
    Ok(written)
}

/// Returns the metadata with the weight and the id, if they are not the default ones.
fn all_meta(format: &Format, r: &Registration, id: bool) -> Meta {
    let mut meta = (*r.meta).clone();
    if r.weight != format.default_weight() {
        meta.insert("weight".to_owned(), r.weight.0.to_string());
    }
    if id && *r.id != *r.address.to_string() {
        meta.insert("id".to_owned(), r.id.to_string());
    }
    meta
}

fn kratos(r: &Registration) -> String {
    let mut metadata = all_meta(&Format::Kratos, r, false);
    let version = metadata.remove("version").unwrap_or_default();
    let scheme = if metadata.remove("tls").is_some() { "grpcs" } else { "grpc" };
    let endpoint = format!("{scheme}://{}", r.address);
    let (id, name) = (&*r.id, r.service.as_str());
    json!({ "id": id, "name": name, "version": version, "metadata": metadata, "endpoints": [endpoint] })
        .to_string()
}

fn kratos_v1(r: &Registration) -> String {
    let mut metadata = all_meta(&Format::KratosV1, r, false);
    let mut own = |name: &str| metadata.remove(name).unwrap_or_default();
    let (region, zone, env, version) = (own("region"), own("zone"), own("env"), own("version"));
    json!({
        "region": region, "zone": zone, "env": env, "appid": r.service.as_str(),
        "hostname": &*r.id, "addrs": [format!("grpc://{}", r.address)], "version": version,
        "latest_timestamp": 0, "metadata": metadata, "status": 1,
    })
    .to_string()
}

fn go_micro(r: &Registration) -> String {
    let mut metadata = all_meta(&Format::GoMicro, r, false);
    let version = metadata.remove("version").unwrap_or_default();
    metadata.insert("protocol".to_owned(), "grpc".to_owned());
    let node = json!({ "metadata": metadata, "id": &*r.id, "address": r.address.to_string() });
    json!({
        "name": r.service.as_str(), "version": version, "metadata": null, "endpoints": [],
        "nodes": [node],
    })
    .to_string()
}

fn dubbo(r: &Registration) -> (String, String) {
    let service = r.service.as_str();
    let mut parameters = all_meta(&Format::Dubbo, r, true);
    parameters.insert("interface".to_owned(), service.to_owned());
    let url = format!("tri://{}/{service}?{}", r.address, query(&parameters));
    let encoded = utf8_percent_encode(&url, IN_KEY);
    (format!("{service}/providers/{encoded}"), String::new())
}

fn dubbo_app(r: &Registration) -> String {
    let mut metadata = all_meta(&Format::DubboApp, r, false);
    metadata.remove("weight");
    let mut own = |name: &str| metadata.remove(name).unwrap_or_default();
    let (group, tag) = (own("group"), own("tag"));
    let endpoints = json!([{ "port": r.address.port(), "protocol": "tri" }]).to_string();
    metadata.insert("dubbo.endpoints".to_owned(), endpoints);
    let id = if *r.id == *r.address.to_string() { "" } else { &*r.id };
    let weight = if r.weight == Format::DubboApp.default_weight() { 0 } else { r.weight.0 };
    json!({
        "ID": id, "ServiceName": r.service.as_str(), "Host": host(r), "Port": r.address.port(),
        "Weight": weight, "Enable": true, "Healthy": true, "Metadata": metadata, "Address": "",
        "GroupName": group, "Tag": tag,
    })
    .to_string()
}

fn kitex(r: &Registration) -> String {
    let mut tags = all_meta(&Format::Kitex, r, true);
    tags.remove("weight");
    let address = r.address.to_string();
    json!({ "network": "tcp", "address": address, "weight": r.weight.0, "tags": tags }).to_string()
}

fn skydns(r: &Registration) -> (String, String) {
    let mut value = Map::new();
    value.insert("host".to_owned(), json!(host(r)));
    value.insert("port".to_owned(), json!(r.address.port()));
    value.insert("weight".to_owned(), json!(r.weight.0));
    for name in ["group", "text"] {
        value.extend(r.meta.get(name).map(|text| (name.to_owned(), json!(text))));
    }
    let priority = r.meta.get("priority").and_then(|text| text.parse::<u16>().ok());
    value.extend(priority.map(|priority| ("priority".to_owned(), json!(priority))));
    let labels = r.service.dns_name();
    let labels: Vec<_> = labels.rsplit('.').collect();
    (format!("{}/{}", labels.join("/"), r.id), Value::Object(value).to_string())
}

fn jupiter(r: &Registration) -> (String, String) {
    let (scope, name) = r.service.as_str().split_once('/').unwrap_or(("", r.service.as_str()));
    let address = r.address.to_string();
    let value = json!({ "Op": 0, "Addr": address, "MetadataX": jupiter_info(r) });
    (format!("grpc:{name}:v1:{scope}/{address}"), value.to_string())
}

fn jupiter_info(r: &Registration) -> Value {
    let mut metadata = all_meta(&Format::Jupiter, r, true);
    metadata.remove("weight");
    let name = r.service.as_str().rsplit('/').next().unwrap_or_default();
    let mut info = json!({
        "name": name, "appId": "", "scheme": "grpc", "address": r.address.to_string(),
        "weight": r.weight.0, "enable": true, "healthy": true, "kind": 1,
    });
    for own in ["region", "zone", "version", "group", "deployment", "mode", "hostname"] {
        info[own] = json!(metadata.remove(own).unwrap_or_default());
    }
    info["metadata"] = json!(metadata);
    info
}

fn goframe(r: &Registration) -> (String, String) {
    let mut metadata = all_meta(&Format::GoFrame, r, true);
    let version = metadata.remove("version").unwrap_or_else(|| "latest".to_owned());
    metadata.insert("protocol".to_owned(), "grpc".to_owned());
    let service = r.service.as_str();
    let scope = if service.contains('/') { "" } else { "default/default/" };
    (format!("{scope}{service}/{version}/{}", r.address), json!(metadata).to_string())
}

fn query(parameters: &Meta) -> String {
    let encode = |text| utf8_percent_encode(text, IN_QUERY).to_string();
    let pairs = parameters.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Returns the host without brackets.
fn host(r: &Registration) -> String {
    match &r.address.host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests;
