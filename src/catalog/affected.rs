//! Collects everything that a change affects, so that only these parts are published again.
//!
//! In: services, keys, settings, marks, demand and host names, as they change. Out: the same, each
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::facts::demand::Demand;
use crate::marks::Marks;
use crate::model::ServiceName;
use crate::registry::Key;
use crate::settings::Settings;

/// Everything that a change affects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Affected {
    pub(super) services: BTreeSet<ServiceName>,
    /// The service that was added last: the keys of one service often follow each other.
    newest: Option<ServiceName>,
    /// The keys whose rejection or remarks changed.
    pub(super) rejections: BTreeSet<Key>,
    /// The settings to publish.
    pub(super) settings: Option<Arc<Settings>>,
    /// The marks to publish.
    pub(super) marks: Option<Arc<Marks>>,
    /// The demand of services' clients to publish.
    pub(super) demands: BTreeMap<ServiceName, Arc<Demand>>,
    /// Whether the set of host names changed.
    pub(super) hosts: bool,
    /// Whether the backends with unresolved host names may have changed.
    pub(super) unresolved: bool,
}

impl Affected {
    pub(super) fn service(&mut self, service: &ServiceName) {
        if self.newest.as_ref() != Some(service) {
            self.services.insert(service.clone());
            self.newest = Some(service.clone());
        }
    }
}
