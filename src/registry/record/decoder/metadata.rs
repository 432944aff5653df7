//! Collects all other fields of a registration as metadata.
//!
//! In: a description, an endpoint, and the document that holds it. Out: bounded
//! metadata. Metadata beyond the bound is left out with a remark and costs no backend
//! anything.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::instance::found;
use super::{Decoder, Document, Item};
use crate::model::Meta;
use crate::registry::record::remarks::{Remarks, cut, shown};
use crate::registry::record::tree::{find, text};

/// The most metadata that is kept of one endpoint, in bytes.
pub(in crate::registry::record) const ENDPOINT_MAX: usize = 64 * 1024;
/// The most metadata that is kept of all endpoints of a key together, in bytes: fields
/// of the whole value are repeated for each endpoint.
pub(super) const KEY_MAX: usize = 1024 * 1024;
/// The most entries of one endpoint that are counted as left out. What comes after them is not
/// looked at: fields of the whole value would else be, again for each endpoint.
const LEFT_OUT_MAX: usize = 100;
/// Names in patterns that are no metadata.
const SPECIAL: [&str; 8] =
    ["service", "id", "scope", "address", "addresses", "url", "protocol", "*"];
/// The text in a key that has no version.
const NO_VERSION: &str = "latest";

/// Metadata up to a bound. The first entries stay.
pub(in crate::registry::record) struct BoundedMeta {
    pub(in crate::registry::record) meta: Meta,
    room: usize,
    /// The first entry that did not fit, and the number of all such entries.
    over: Option<(String, usize)>,
}

impl BoundedMeta {
    pub(in crate::registry::record) fn new(room: usize) -> Self {
        Self { meta: Meta::new(), room: room.min(ENDPOINT_MAX), over: None }
    }

    pub(in crate::registry::record) fn add(&mut self, name: &str, value: Cow<'_, str>) {
        let size = name.len() + value.len();
        let fits = size <= self.room;
        if !fits {
            let over = self.over.get_or_insert_with(|| (cut(name.to_owned(), 80), 0));
            over.1 += 1;
            return;
        }
        if let Entry::Vacant(place) = self.meta.entry(name.to_owned()) {
            place.insert(value.into_owned());
            self.room -= size;
        }
    }

    /// Adds the fields that say something, but for those that are `used` for something else.
    pub(in crate::registry::record) fn add_all(
        &mut self,
        fields: &Map<String, Value>,
        used: impl Fn(&str) -> bool,
    ) {
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            if self.over.as_ref().is_some_and(|(_, count)| *count >= LEFT_OUT_MAX) {
                break;
            }
            if !used(name) {
                self.add(name, text(value));
            }
        }
    }

    pub(in crate::registry::record) fn finish(self, remarks: &Remarks) -> Meta {
        if let Some((name, count)) = self.over {
            let most = ENDPOINT_MAX;
            let others = match count - 1 {
                0 => String::new(),
                more if count < LEFT_OUT_MAX => format!(" and {more} more"),
                more => format!(" and at least {more} more"),
            };
            remarks.add(format!("metadata is kept up to {most} bytes: {name:?}{others} left out"));
        }
        self.meta
    }
}

impl Decoder {
    /// Returns the metadata: first the fields that have a name of their own, then those
    /// of the endpoint, then those of the whole value.
    pub(super) fn metadata(
        &self,
        tls: bool,
        status: Option<String>,
        item: &Item<'_>,
        document: &Document<'_>,
    ) -> Arc<Meta> {
        let own = item.own.is_some();
        if !own {
            let shared = document.shared.borrow();
            let known = shared.iter().find(|(one, other, _)| *one == tls && *other == status);
            if let Some((.., meta)) = known {
                return meta.clone();
            }
        }
        let mut kept = BoundedMeta::new(document.room.get());
        if tls {
            kept.add("tls", "true".into());
        }
        if let Some(status) = &status {
            kept.add("status", status.as_str().into());
        }
        for (name, paths) in &self.labels {
            if let Some(found) = found(item.own, document.root, paths) {
                kept.add(name, text(found));
            }
        }
        for (name, captured) in document.captures {
            let no_version = *name == "version" && *captured == NO_VERSION;
            if !SPECIAL.contains(name) && !no_version {
                kept.add(name, (*captured).into());
            }
        }
        for path in self.meta.iter().rev() {
            for tree in [item.own, Some(document.root)].into_iter().flatten() {
                let Some(found) = find(tree, path) else { continue };
                let Some(object) = found.as_object() else {
                    let said = found.as_str() != Some("");
                    if said {
                        let found = shown(found);
                        document.remarks.add(format!("{path:?} is {found}, no object: ignored"));
                    }
                    continue;
                };
                kept.add_all(object, |key| self.consumed(path, key));
            }
        }
        let meta = Arc::new(kept.finish(document.remarks));
        let used: usize = meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        document.room.set(document.room.get().saturating_sub(used));
        if !own {
            document.shared.borrow_mut().push((tls, status, meta.clone()));
        }
        meta
    }

    /// Returns whether a field is used for something else.
    fn consumed(&self, object: &str, key: &str) -> bool {
        let escaped: Cow<'_, str> = match key.contains(['~', '/']) {
            true => key.replace('~', "~0").replace('/', "~1").into(),
            false => key.into(),
        };
        // Comparing the lengths excludes most paths at no cost.
        let length = object.len() + 1 + escaped.len();
        let is = |path: &String| {
            path.len() == length
                && path.strip_prefix(object).and_then(|rest| rest.strip_prefix('/'))
                    == Some(&*escaped)
        };
        let more = [&self.endpoints, &self.ignore, &self.meta];
        self.paths().chain(more.into_iter().flatten()).any(is)
    }
}
