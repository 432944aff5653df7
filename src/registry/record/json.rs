//! The two JSON formats: QSF's and etcd's own naming.
//!
//! In: a value's text. Out: what it says, or in words why it cannot be read.

use serde_json::{Map, Value, json};

use crate::model::{Meta, Weight};
use crate::registry::Registration;

use super::decoder::weight;
use super::{Said, address};

/// `Op` of a value that the old naming API wrote to say "deleted".
const OP_DELETE: u64 = 1;

pub(super) fn read_qsf(text: &str) -> Result<Said, String> {
    qsf_from(&object(text)?)
}

pub(super) fn read_etcd_naming(text: &str) -> Result<Option<Said>, String> {
    etcd_naming_from(&object(text)?)
}

pub(super) fn qsf(registration: &Registration) -> String {
    json!({ "addr": registration.address.to_string(), "metadata": metadata(registration) })
        .to_string()
}

pub(super) fn etcd_naming(registration: &Registration) -> String {
    let metadata = metadata(registration);
    json!({ "Op": 0, "Addr": registration.address.to_string(), "Metadata": metadata }).to_string()
}

fn metadata(registration: &Registration) -> Value {
    let mut metadata: Map<String, Value> =
        registration.meta.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    if registration.weight != Weight::DEFAULT {
        metadata.insert("weight".to_owned(), json!(registration.weight.0.to_string()));
    }
    if metadata.is_empty() { Value::Null } else { Value::Object(metadata) }
}

pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the value is JSON but no object".to_owned()),
        Err(error) => Err(format!("the value is no JSON: {error}")),
    }
}

fn qsf_from(object: &Map<String, Value>) -> Result<Said, String> {
    let address = address(text_field(object, "addr")?)?;
    match object.get("metadata") {
        None | Some(Value::Null) => said(address, None, Meta::new()),
        Some(Value::Object(metadata)) => said(address, None, meta(metadata)),
        Some(_) => Err("\"metadata\" is no JSON object".to_owned()),
    }
}

/// `Metadata` may be any JSON. An object is metadata, and so is text that
/// holds one; any other text or number is the instance's own id.
fn etcd_naming_from(object: &Map<String, Value>) -> Result<Option<Said>, String> {
    if object.get("Op").and_then(Value::as_u64) == Some(OP_DELETE) {
        return Ok(None);
    }
    let address = address(text_field(object, "Addr")?)?;
    let said = match object.get("Metadata") {
        None | Some(Value::Null | Value::Bool(_) | Value::Array(_)) => {
            said(address, None, Meta::new())
        }
        Some(Value::Object(metadata)) => said(address, None, meta(metadata)),
        Some(Value::Number(id)) => said(address, Some(id.to_string()), Meta::new()),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Object(metadata)) => said(address, None, meta(&metadata)),
            _ if text.is_empty() => said(address, None, Meta::new()),
            _ => said(address, Some(text.clone()), Meta::new()),
        },
    };
    said.map(Some)
}

/// `id` and `weight` are metadata with a meaning of their own.
fn said(
    address: crate::model::HostPort,
    id: Option<String>,
    mut meta: Meta,
) -> Result<Said, String> {
    let id = id.or_else(|| meta.remove("id"));
    let weight = match meta.remove("weight") {
        None => Weight::DEFAULT,
        Some(text) => weight(&text)?,
    };
    Ok(Said { id, address, weight, meta })
}

fn meta(object: &Map<String, Value>) -> Meta {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    object
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

fn text_field<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{name:?} is no text: expected \"host:port\"")),
        None => Err(format!("{name:?} is missing: expected \"host:port\"")),
    }
}
