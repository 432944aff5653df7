//! Finds the keys that register a backend, for `explain`.
//!
//! In: a service and some of its addresses. Out: the keys that register them, with their
//! remarks. Pure.

use std::collections::HashSet;

use crate::catalog::Origin;
use crate::model::{BackendAddr, Host, ServiceName};
use crate::registry::Key;

use super::{Index, KeyContent};

impl Index {
    /// Returns the keys that register backends of a service: nearly always one for each.
    /// Looks at the service's keys once, however many backends are asked for.
    pub(in crate::catalog) fn origins(
        &self,
        service: &ServiceName,
        backends: &HashSet<BackendAddr>,
    ) -> Vec<(BackendAddr, Origin)> {
        let mut origins = Vec::new();
        let Some(members) = self.services.get(service) else { return origins };
        let content = |key: &Key| Some((key.clone(), self.entries.get(key)?));
        for (key, content) in members.keys.iter().filter_map(content) {
            let KeyContent { registrations, leased, .. } = content;
            for registration in registrations.iter().filter(|one| one.service == *service) {
                let host = match &registration.address.host {
                    Host::Name(name) => Some(name.to_string()),
                    Host::Ip(_) => None,
                };
                self.each_endpoint(registration, |endpoint| {
                    if backends.contains(&endpoint.addr) {
                        let origin = Origin {
                            key: key.clone(),
                            leased: *leased,
                            host: host.clone(),
                            rejected: content.rejected().cloned(),
                            remarks: content.remarks().to_vec(),
                        };
                        origins.push((endpoint.addr, origin));
                    }
                });
            }
        }
        // The set of a service's keys has no order.
        origins.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
        origins
    }
}
