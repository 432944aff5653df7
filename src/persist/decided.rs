//! What operators decided, as a part of the saved state.
//!
//! In: marks and settings as they stood in etcd. Out: the same as text, and read again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::marks::{Mark, MarkKey, Value};
use crate::settings::{Document, Layer};
use crate::tables::Problem;

/// What operators decided, as far as it stood in etcd.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decided {
    /// The marks in force.
    pub marks: Vec<Arc<Mark>>,
    /// The document of settings.
    pub settings: Option<Arc<Document>>,
}

/// The same as text.
#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    /// Key and value of each mark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<[String; 2]>,
    /// As TOML; empty: there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    settings: String,
}

impl Decided {
    pub(super) fn of(catalog: &Catalog) -> Self {
        Self {
            marks: catalog.marks().all().cloned().collect(),
            settings: catalog.settings().document(Layer::Store).cloned(),
        }
    }
}

impl From<&Decided> for Written {
    fn from(Decided { marks, settings }: &Decided) -> Self {
        let pair = |mark: &Arc<Mark>| [mark.key.to_string(), mark.value.to_json()];
        Self {
            marks: marks.iter().map(pair).collect(),
            settings: settings.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Written {
    pub(super) fn read(&self) -> Result<Decided, String> {
        let mark = |[key, value]: &[String; 2]| {
            let (key, value) = (MarkKey::parse(key)?, Value::parse(value.as_bytes())?);
            Ok(Arc::new(Mark { key, value }))
        };
        let marks = self.marks.iter().map(mark).collect::<Result<_, String>>()?;
        let settings = match self.settings.as_str() {
            "" => None,
            text => {
                let first = |problems: Vec<Problem>| problems.first().map(ToString::to_string);
                let document = Document::parse(text);
                Some(Arc::new(document.map_err(|problems| first(problems).unwrap_or_default())?))
            }
        };
        Ok(Decided { marks, settings })
    }
}
