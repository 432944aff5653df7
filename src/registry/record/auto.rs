//! Detects the format of a key, if it is unambiguous.
//!
//! In: a key and its value. Out: a format, or the reason why it cannot be detected. It
//! never guesses. The operator must name the format of a key that two formats would
//! decode differently, or that says nothing of gRPC in a framework that usually speaks
//! another protocol. `docs/formats.md` explains the same rules.

use serde_json::{Map, Value};

use super::format::Format;
use super::presets::GRPC;
use super::remarks::Remarks;
use crate::model::HostPort;

/// Dubbo's names of directories, of which only the first holds providers.
const DUBBO_CATEGORIES: [&str; 4] = ["providers", "consumers", "configurators", "routers"];

/// Returns the format of a key. `below` is the part of the key below the prefix.
pub(super) fn detect(key: &str, below: &str, value: &str) -> Result<Format, String> {
    let text = value.trim();
    let segments: Vec<&str> = below.split('/').collect();
    let (last, before) = match segments.as_slice() {
        [.., before, last] => (*last, *before),
        _ => (below, ""),
    };
    if text.starts_with('{') {
        let object = super::json::object(value, None, &Remarks::default())?;
        let untold = "the JSON tells no format: name it with --prefix PREFIX=FORMAT";
        return detect_by_fields(&object)
            .or_else(|| detect_by_key_and_fields(key, &segments, &object))
            .ok_or_else(|| untold.to_owned());
    }
    let category = |name: &str| DUBBO_CATEGORIES.contains(&name);
    // dubbo-go writes no value; Dubbo Java writes the number of its lease.
    let dubbo = category(last) || category(before) && last.contains("%3A%2F%2F");
    if dubbo && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Format::Dubbo);
    }
    if text == "init_dir" && holds(key, "upstreams") {
        return Ok(Format::Apisix);
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| GRPC.contains(&scheme)) {
        return Ok(Format::GoKit);
    }
    Ok(Format::Plain)
}

/// Detects a format by fields that no other format has together, whatever the key.
fn detect_by_fields(object: &Map<String, Value>) -> Option<Format> {
    let text = |name: &str| object.get(name).is_some_and(Value::is_string);
    let list = |name: &str| object.get(name).and_then(Value::as_array);
    let url = |value: &Value| value.as_str().is_some_and(|text| text.contains("://"));
    let all =
        |list: &Vec<Value>, is: &dyn Fn(&Value) -> bool| !list.is_empty() && list.iter().all(is);
    if object.contains_key("Addr") && !object.contains_key("MetadataX") {
        return Some(Format::EtcdNaming);
    }
    if object.contains_key("addr") {
        return Some(Format::Qsf);
    }
    if text("appid") && list("addrs").is_some_and(|addrs| all(addrs, &url)) {
        return Some(Format::KratosV1);
    }
    if text("id") && text("name") && list("endpoints").is_some_and(|found| all(found, &url)) {
        return Some(Format::Kratos);
    }
    let node = |value: &Value| value.get("address").is_some_and(Value::is_string);
    if text("name") && list("nodes").is_some_and(|nodes| all(nodes, &node)) {
        return Some(Format::GoMicro);
    }
    if text("network") && text("address") {
        return Some(Format::Kitex);
    }
    let dubbo = text("ServiceName") && text("Host") && object.contains_key("Port");
    dubbo.then_some(Format::DubboApp)
}

/// Detects a format by fields that are sufficient only together with the key.
fn detect_by_key_and_fields(
    key: &str,
    below: &[&str],
    object: &Map<String, Value>,
) -> Option<Format> {
    let text = |name: &str| object.get(name).is_some_and(Value::is_string);
    if object.contains_key("MetadataX") {
        let jupiter = key.matches(':').count() >= 3 && key.contains(":v1:");
        return Some(if jupiter { Format::Jupiter } else { Format::EtcdNaming });
    }
    if text("scheme") && text("address") && holds(key, "providers") {
        return Some(Format::Jupiter2020);
    }
    if object.contains_key("nodes") && holds(key, "upstreams") {
        return Some(Format::Apisix);
    }
    if text("host") && key.starts_with("/skydns/") {
        return Some(Format::Skydns);
    }
    let addresses = below.last()?.split(',').all(|one| HostPort::parse(one).is_ok());
    (text("protocol") && below.len() >= 3 && addresses).then_some(Format::GoFrame)
}

fn holds(key: &str, segment: &str) -> bool {
    key.split('/').any(|one| one == segment)
}

#[cfg(test)]
mod tests;
