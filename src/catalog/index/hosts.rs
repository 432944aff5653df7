//! Host names registered as addresses, counted for the services that use them. Pure.
//!
//! In: registrations that come and go, and results of resolving. Out: the addresses of
//! each registration, counted for its service; the backends whose host names do not
//! resolve.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{BackendAddr, Endpoint, Host};
use crate::registry::{Key, Registration};

use super::super::Resolved;
use super::super::affected::Affected;
use super::super::host_names::AddressChange;
use super::super::unresolved::{self, Unresolved};
use super::Index;

impl Index {
    /// Applies the result of resolving a host name.
    pub(in crate::catalog) fn resolved(&mut self, resolved: Resolved, affected: &mut Affected) {
        let host = Host::Name(resolved.host.clone());
        let Some(AddressChange { old, users }) = self.hosts.resolved(resolved, affected) else {
            return;
        };
        for (service, key) in users {
            let Some(content) = self.entries.get(&key) else { continue };
            let leased = content.leased;
            let used = |one: &&Registration| one.service == service && one.address.host == host;
            let used = content.registrations.iter().filter(used);
            let ports: Vec<u16> = used.map(|one| one.address.port()).collect();
            let is_known = !self.waits_for_addresses(&content.registrations);
            let Host::Name(name) = &host else { continue };
            let new = self.hosts.addresses(name).to_vec();
            let come = new.iter().filter(|ip| !old.contains(ip)).map(|ip| (*ip, (1, 0)));
            let gone = old.iter().filter(|ip| !new.contains(ip)).map(|ip| (*ip, (0, 1)));
            let changes: Vec<_> = come.chain(gone).collect();
            for port in ports {
                for (ip, change) in &changes {
                    let Ok(addr) = BackendAddr::new(*ip, port) else { continue };
                    self.count(&service, addr, leased, *change, affected);
                    if change.1 > 0 && !self.is_registered(&service, addr) {
                        self.guard.note_deregistered(&service);
                    }
                }
            }
            // Backends that were held for the key stayed until its addresses were known.
            if is_known {
                self.forget_held(&key, affected);
            }
        }
    }

    /// Returns whether the addresses of one of these host names are not known.
    pub(super) fn waits_for_addresses(&self, registrations: &[Registration]) -> bool {
        registrations.iter().any(|one| match &one.address.host {
            Host::Ip(_) => false,
            Host::Name(name) => self.hosts.addresses(name).is_empty(),
        })
    }

    pub(in crate::catalog) fn host_names(&self) -> BTreeSet<String> {
        self.hosts.names()
    }

    /// Returns the backends whose host names do not resolve, sorted; at most as many as
    /// can be shown.
    pub(in crate::catalog) fn unresolved(&self) -> Vec<Unresolved> {
        let mut all = Vec::new();
        for name in self.hosts.unresolved() {
            for (service, key) in name.users() {
                let registered = self.entries.get(key).map(|content| &content.registrations);
                let named =
                    |one: &&Registration| one.address.host == Host::Name(name.host.to_owned());
                let one = registered.into_iter().flatten().find(named);
                all.extend(one.map(|one| Unresolved::new(service, key, one, &name)));
            }
            if all.len() >= unresolved::SHOWN_MAX {
                break;
            }
        }
        all.truncate(unresolved::SHOWN_MAX);
        all.sort_unstable();
        all
    }

    /// Counts a new registration. Its service must have the key already.
    pub(super) fn add_registration(
        &mut self,
        key: &Key,
        come: &Registration,
        leased: bool,
        affected: &mut Affected,
    ) {
        self.hosts.add_user(key, come, affected);
        self.each_address(come, |index, addr| {
            index.count(&come.service, addr, leased, (1, 0), affected);
        });
    }

    /// Undoes the count of a registration.
    pub(super) fn remove_registration(
        &mut self,
        key: &Key,
        gone: &Registration,
        leased: bool,
        affected: &mut Affected,
    ) {
        self.each_address(gone, |index, addr| {
            index.count(&gone.service, addr, leased, (0, 1), affected);
        });
        self.hosts.remove_user(key, gone, affected);
    }

    /// Calls `found` with one endpoint for an IP address, or one for each address of a
    /// host name.
    pub(super) fn each_endpoint(
        &self,
        registration: &Registration,
        mut found: impl FnMut(Endpoint),
    ) {
        let endpoint = |addr| Endpoint {
            id: registration.id.clone(),
            addr,
            weight: registration.weight,
            meta: registration.meta.clone(),
        };
        match &registration.address.host {
            Host::Ip(_) => registration.address.addr().map(endpoint).into_iter().for_each(found),
            Host::Name(name) => {
                let port = registration.address.port();
                let usable = |&ip: &IpAddr| BackendAddr::new(ip, port).ok();
                let addresses = self.hosts.addresses(name).iter().filter_map(usable);
                addresses.map(endpoint).for_each(&mut found);
            }
        }
    }

    fn each_address(
        &mut self,
        registration: &Registration,
        mut found: impl FnMut(&mut Self, BackendAddr),
    ) {
        match &registration.address.host {
            Host::Ip(_) => {
                if let Some(addr) = registration.address.addr() {
                    found(self, addr);
                }
            }
            Host::Name(name) => {
                let port = registration.address.port();
                for ip in self.hosts.addresses(name).to_vec() {
                    if let Ok(addr) = BackendAddr::new(ip, port) {
                        found(self, addr);
                    }
                }
            }
        }
    }
}
