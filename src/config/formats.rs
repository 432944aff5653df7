//! Reads the operator's own formats: the `[format.NAME]` tables of the file.
//!
//! In: the `format` table. Out: decoders by name, and all problems with their places.

use std::sync::Arc;

use toml::de::DeValue;

use crate::registry::record::{Customs, describe};
use crate::tables::{Name, Problems, Value};

/// The file's key that holds the formats.
pub(super) const KEY: &str = "format";

pub(super) fn customs(key: &Name<'_>, value: &Value<'_>, problems: &mut Problems<'_>) -> Customs {
    let mut customs = Customs::new();
    let DeValue::Table(formats) = value.get_ref() else {
        let found = value.get_ref().type_str();
        problems.add(key.span(), format!("format is {found}: expected [format.NAME] tables"));
        return customs;
    };
    for (key, value) in formats {
        let name = key.get_ref();
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(named) {
            let remedy = "use letters, digits, '-' and '_' in its name";
            problems.add(key.span(), format!("[format.{name}]: {remedy}"));
            continue;
        }
        let DeValue::Table(table) = value.get_ref() else {
            let remedy = "is no table: see docs/formats.md";
            problems.add(key.span(), format!("[format.{name}] {remedy}"));
            continue;
        };
        if let Some(decoder) = describe(key, table, problems) {
            customs.insert(name.to_string(), Arc::new(decoder));
        }
    }
    customs
}
