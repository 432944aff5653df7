//! What a change touched, so that only that is looked at again.
//!
//! In: services, keys, settings, marks and host names, as they change. Out: the same, each once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::marks::Marks;
use crate::model::ServiceName;
use crate::registry::Key;
use crate::settings::Settings;

/// What a change touched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) services: BTreeSet<ServiceName>,
    /// The newest of them: the keys of a service come one after the other.
    newest: Option<ServiceName>,
    /// Keys whose rejection or remarks are new, different or over.
    pub(super) rejections: BTreeSet<Key>,
    /// Settings that are to be published.
    pub(super) settings: Option<Arc<Settings>>,
    /// Marks that are to be published.
    pub(super) marks: Option<Arc<Marks>>,
    /// Whether the set of host names changed.
    pub(super) hosts: bool,
    /// Whether other backends than before have names that do not resolve.
    pub(super) unresolved: bool,
}

impl Touched {
    pub(super) fn service(&mut self, service: &ServiceName) {
        if self.newest.as_ref() != Some(service) {
            self.services.insert(service.clone());
            self.newest = Some(service.clone());
        }
    }
}
