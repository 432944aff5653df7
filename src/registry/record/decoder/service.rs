//! Decodes the name of the service that a key registers for.
//!
//! In: a description, the captures of a key, and a value. Out: the name, or why there
//! is none. Key and value must agree: otherwise a process that may write one key could
//! register for the name of another service.

use percent_encoding::percent_decode_str;

use super::{Decoder, Document, capture};
use crate::model::ServiceName;
use crate::registry::record::remarks::{cut, shown};
use crate::registry::record::tree::{find, text};

/// The scope that is left out of the service's name.
const USUAL_SCOPE: &str = "default";
/// Why a key with an empty segment is rejected.
pub(in crate::registry::record) const BLANK: &str =
    "the key has an empty segment: expected SERVICE/INSTANCE";

/// Returns whether a segment of a key is empty. The text after `://` is an address.
pub(in crate::registry::record) fn has_blank_segment(place: &str) -> bool {
    let path = place.split("://").next().unwrap_or_default();
    path.split('/').any(|segment| segment.trim().is_empty())
}

impl Decoder {
    /// Returns the name: that of the key, of the prefix's own last segment, or of the
    /// value.
    pub(super) fn service(
        &self,
        prefix: &str,
        document: &Document<'_>,
    ) -> Result<ServiceName, String> {
        let captured = capture(document.captures, "service").filter(|text| !text.is_empty());
        let key = self.named_by_key(prefix, captured);
        let whole = match captured {
            Some(_) if self.whole_key => key.clone(),
            Some(_) => format!("{prefix}{key}"),
            None => prefix.trim_end_matches('/').to_owned(),
        };
        self.check_claims(&whole, &key, document)?;
        let mut name = match self.look(None, document.root, &self.service) {
            Some(name) if captured.is_some() && key != name => {
                return Err(contradiction(&key, &name));
            }
            Some(name) => name,
            None => key,
        };
        let scope = capture(document.captures, "scope").unwrap_or_default();
        if scope.split('/').any(|part| !part.is_empty() && part != USUAL_SCOPE) {
            name = format!("{scope}/{name}");
        }
        if let Some(title) = self.look(None, document.root, &self.title) {
            match ServiceName::new(&title) {
                Ok(title) => return Ok(title),
                Err(error) => document.remarks.add(format!("{error}: {name} counts")),
            }
        }
        ServiceName::new(&name).map_err(|error| error.to_string())
    }

    fn named_by_key(&self, prefix: &str, captured: Option<&str>) -> String {
        let own = || prefix.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = captured.unwrap_or_else(own);
        if self.reversed {
            return captured.unwrap_or_default().rsplit('/').collect::<Vec<_>>().join(".");
        }
        match self.encoded {
            true => percent_decode_str(name).decode_utf8_lossy().into_owned(),
            false => name.to_owned(),
        }
    }

    /// Checks that the value's names agree with the key. A name may be only the end of
    /// the key's, if the registrant's own prefix is longer than ours. It may also reach
    /// into our prefix.
    fn check_claims(&self, whole: &str, key: &str, document: &Document<'_>) -> Result<(), String> {
        let ends_in = |name: &str| {
            whole.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        for found in self.claims.iter().filter_map(|path| find(document.root, path)) {
            if !found.is_string() && !found.is_number() {
                document.remarks.add(format!("the name {} is no text: ignored", shown(found)));
                continue;
            }
            let claim = text(found);
            // Some registrants write a slash as a hyphen in keys.
            let agrees = ends_in(claim.trim_matches('/')) || ends_in(&claim.replace('/', "-"));
            if !claim.trim().is_empty() && !agrees {
                return Err(contradiction(key, &claim));
            }
        }
        Ok(())
    }
}

fn contradiction(key: &str, value: &str) -> String {
    let value = cut(value.to_owned(), 80);
    format!(
        "the key says that the service is {key:?}, the value says {value:?}: the \
         registrant must write the same name in both"
    )
}
