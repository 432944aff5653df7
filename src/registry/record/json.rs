//! Decodes and encodes the two JSON formats: QSF's and etcd's own naming.
//!
//! In: the text of a value, or a registration. Out: its fields, or the reason why it
//! has no address; or the text of a value.

use serde_json::{Map, Value, json};

use crate::model::{Meta, Weight};
use crate::registry::Registration;

use super::decoder::{BoundedMeta, ID_MAX};
use super::remarks::{Remarks, shown};
use super::tree;
use super::weights::{LowWeights, weight};
use super::{ValueFields, address};

/// `Op` of a value by which the old naming API says "deleted".
const OP_DELETE: u64 = 1;

/// Decodes a value of QSF. QSF 2 writes its fields as `Addr` and `Metadata`; QSF 1 and its
/// imitators write them in lower case.
pub(super) fn read_qsf(text: &str, remarks: &Remarks) -> Result<ValueFields, String> {
    let mut object = object(text, Some(&["addr", "metadata", "Addr", "Metadata"]), remarks)?;
    for (name, upper) in [("addr", "Addr"), ("metadata", "Metadata")] {
        if let Some(value) = object.remove(upper)
            && object.get(name).is_none_or(Value::is_null)
        {
            object.insert(name.to_owned(), value);
        }
    }
    let address = address(text_field(&object, "addr")?)?;
    let (id, meta) = match object.get("metadata") {
        None | Some(Value::Null) => (None, None),
        Some(said) => match as_object(said) {
            Some(metadata) => (None, Some(metadata)),
            None => {
                let odd = shown(said);
                remarks.add(format!("\"metadata\" is {odd}, no object: ignored"));
                (None, None)
            }
        },
    };
    Ok(value_fields(address, id, meta, remarks))
}

/// Decodes a value of etcd-naming; `None` if it is marked as deleted. `Metadata` may be
/// any JSON. An object is metadata, and so is a text that holds one; any other text or
/// number is the backend's id.
pub(super) fn read_etcd_naming(
    text: &str,
    remarks: &Remarks,
) -> Result<Option<ValueFields>, String> {
    let object = object(text, Some(&["Op", "Addr", "Metadata"]), remarks)?;
    if object.get("Op").and_then(Value::as_u64) == Some(OP_DELETE) {
        return Ok(None);
    }
    let address = address(text_field(&object, "Addr")?)?;
    let (id, meta) = match object.get("Metadata") {
        None | Some(Value::Null | Value::Bool(_) | Value::Array(_)) => (None, None),
        Some(Value::Number(id)) => (Some(id.to_string()), None),
        Some(metadata) => match as_object(metadata) {
            Some(metadata) => (None, Some(metadata)),
            None => (metadata.as_str().map(str::to_owned), None),
        },
    };
    Ok(Some(value_fields(address, id, meta, remarks)))
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

/// Parses an object. With `wanted`, reads only those of its fields.
pub(super) fn object(
    text: &str,
    wanted: Option<&[&str]>,
    remarks: &Remarks,
) -> Result<Map<String, Value>, String> {
    let (tree, cut) = tree::json_object(text, wanted)?;
    if cut {
        let most = tree::DEPTH_MAX;
        remarks.add(format!("parts nested more than {most} levels deep are left out"));
    }
    match tree {
        Value::Object(object) => Ok(object),
        _ => Ok(Map::new()),
    }
}

/// Returns the object that a value is, or that it holds as text.
fn as_object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object.clone()),
        text => match tree::embedded_json(text)?.0 {
            Value::Object(object) => Some(object),
            _ => None,
        },
    }
}

/// Combines the fields of a value. `id` and `weight` in the metadata have their own
/// meaning.
fn value_fields(
    address: crate::model::HostPort,
    id: Option<String>,
    metadata: Option<Map<String, Value>>,
    remarks: &Remarks,
) -> ValueFields {
    let mut metadata = metadata.unwrap_or_default();
    let weight = weight(
        metadata.remove("weight").as_ref(),
        Weight::DEFAULT.0,
        LowWeights::ZeroIsNone,
        remarks,
    );
    let own = metadata.remove("id").filter(|id| !id.is_null());
    let id = id.or_else(|| match own? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        odd => {
            remarks.add(format!("the id {} is no text: ignored", shown(&odd)));
            None
        }
    });
    let id = id.filter(|id| {
        let usable = id.len() <= ID_MAX;
        if !usable {
            remarks.add(format!("the id has {} bytes: the key's id is used", id.len()));
        }
        usable && !id.trim().is_empty()
    });
    ValueFields { id, address, weight, meta: meta(&metadata, remarks) }
}

fn meta(object: &Map<String, Value>, remarks: &Remarks) -> Meta {
    let mut kept = BoundedMeta::new(usize::MAX);
    kept.add_all(object, |_| false);
    kept.finish(remarks)
}

fn text_field<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{name:?} is no text: expected \"host:port\"")),
        None => Err(format!("{name:?} is missing: expected \"host:port\"")),
    }
}
