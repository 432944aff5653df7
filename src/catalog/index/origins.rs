//! Which keys register a backend, for those who ask why it is listed.
//!
//! In: a service and an address. Out: the keys, each with what is odd about it. Pure.

use crate::catalog::Origin;
use crate::model::{BackendAddr, Host, ServiceName};
use crate::registry::{Key, Registration};

use super::{Index, Meaning};

impl Index {
    /// What registers a backend of a service: one key, nearly always. Looks at all
    /// of the service.
    pub(in crate::catalog) fn origins(
        &self,
        service: &ServiceName,
        addr: BackendAddr,
    ) -> Vec<Origin> {
        let Some(members) = self.services.get(service) else { return Vec::new() };
        let origin = |key: &Key| {
            let meaning = self.entries.get(key)?;
            let is_it = |one: &&Registration| {
                let mut found = false;
                self.each_endpoint(one, |endpoint| found |= endpoint.addr == addr);
                found && one.service == *service
            };
            let registration = meaning.registrations.iter().find(is_it)?;
            let host = match &registration.address.host {
                Host::Name(name) => Some(name.to_string()),
                Host::Ip(_) => None,
            };
            let Meaning { leased, rejected, remarks, .. } = meaning;
            let (leased, rejected, remarks) = (*leased, rejected.clone(), remarks.clone());
            Some(Origin { key: key.clone(), leased, host, rejected, remarks })
        };
        members.keys.iter().filter_map(origin).collect()
    }
}
