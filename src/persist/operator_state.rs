//! The decisions of operators (marks and settings) as a part of the saved state.
//!
//! In: marks and settings as in etcd. Out: their text; or, in reverse, marks and settings
//! from that text.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::marks::{Mark, MarkKey, Value};
use crate::settings::{Document, Layer};

/// The decisions of operators that are in etcd.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperatorState {
    /// The marks in force.
    pub marks: Vec<Arc<Mark>>,
    /// The document of settings.
    pub settings: Option<Arc<Document>>,
}

/// A [`OperatorState`] as text.
#[derive(Serialize, Deserialize)]
pub(super) struct OperatorText {
    /// Key and value of each mark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<[String; 2]>,
    /// The document as TOML; empty: there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    settings: String,
}

impl OperatorState {
    pub(super) fn of(catalog: &Catalog) -> Self {
        Self {
            marks: catalog.marks().all().cloned().collect(),
            settings: catalog.settings().document(Layer::Store).cloned(),
        }
    }
}

impl From<&OperatorState> for OperatorText {
    fn from(OperatorState { marks, settings }: &OperatorState) -> Self {
        let pair = |mark: &Arc<Mark>| [mark.key.to_string(), mark.value.to_json()];
        Self {
            marks: marks.iter().map(pair).collect(),
            settings: settings.iter().map(ToString::to_string).collect(),
        }
    }
}

impl OperatorText {
    /// Returns the parts that can be read, and logs the others: a later version of lookaside
    /// may have written them.
    pub(super) fn read(&self) -> OperatorState {
        let mark = |[key, value]: &[String; 2]| {
            let read = MarkKey::parse(key)
                .and_then(|key| Ok(Mark { key, value: Value::parse(value.as_bytes())? }));
            read.map(Arc::new).inspect_err(|reason| skipped(reason)).ok()
        };
        let settings = match Document::parse(&self.settings) {
            Ok(document) => Some(Arc::new(document)).filter(|document| !document.is_empty()),
            Err(problems) => {
                problems.iter().for_each(|problem| skipped(&problem.to_string()));
                None
            }
        };
        OperatorState { marks: self.marks.iter().filter_map(mark).collect(), settings }
    }
}

fn skipped(reason: &str) {
    tracing::warn!(reason, "a mark or setting in the saved state is left out");
}
