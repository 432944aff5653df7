//! Formats that the operator describes: `[format.NAME]` of the file.
//!
//! In: `NAME={table as JSON}`, as `config::file` passes them on. Out: decoders by
//! name, and every problem there is.

use std::sync::Arc;

use serde_json::Value;

use crate::registry::record::{Customs, describe};

pub(super) fn customs(texts: &[String], problems: &mut Vec<String>) -> Customs {
    let mut customs = Customs::new();
    for text in texts {
        let (name, table) = text.split_once('=').unwrap_or((text, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(named) {
            problems.push(format!("[format.{name}]: use letters, digits, '-' and '_' in its name"));
            continue;
        }
        let Ok(Value::Object(table)) = serde_json::from_str(table) else {
            problems.push(format!("[format.{name}] is no table: see docs/formats.md"));
            continue;
        };
        match describe(name, &table) {
            Ok(decoder) => drop(customs.insert(name.to_owned(), Arc::new(decoder))),
            Err(all) => problems.extend(all),
        }
    }
    customs
}
