//! Host names that are registered as addresses: what they resolve to, and which keys use
//! them. Pure.
//!
//! In: registrations that come and go, and results of resolving. Out: the addresses of
//! each name, the services that a change affects, and the names that do not resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;

use crate::model::{BackendAddr, Host, ServiceName};
use crate::registry::{Key, Registration};

use super::Resolved;
use super::affected::Affected;

/// The host names in use.
#[derive(Debug, Default)]
pub(super) struct HostNames(BTreeMap<String, HostState>);

#[derive(Debug, Default)]
struct HostState {
    addresses: Vec<IpAddr>,
    /// Why the name does not resolve any more, or never did.
    trouble: Option<String>,
    /// How often each key of each service uses the name.
    users: BTreeMap<(ServiceName, Key), usize>,
}

/// A name that resolves to other addresses than before.
#[derive(Debug)]
pub(super) struct AddressChange {
    /// The addresses before the change.
    pub(super) old: Vec<IpAddr>,
    pub(super) users: Vec<(ServiceName, Key)>,
}

/// A name that does not resolve, or only to addresses that no client can use.
#[derive(Debug)]
pub(super) struct UnresolvedName<'a> {
    pub(super) host: &'a str,
    pub(super) error: String,
    /// How many of its addresses are still listed.
    pub(super) kept: usize,
    users: &'a BTreeMap<(ServiceName, Key), usize>,
}

impl HostNames {
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// Returns the addresses of a name's last answer.
    pub(super) fn addresses(&self, name: &str) -> &[IpAddr] {
        self.0.get(name).map_or(&[], |host| &host.addresses)
    }

    /// Applies the result of resolving a name. If its addresses changed, returns the old
    /// addresses and the users of the name.
    pub(super) fn resolved(
        &mut self,
        resolved: Resolved,
        affected: &mut Affected,
    ) -> Option<AddressChange> {
        let host = self.0.get_mut(&resolved.host)?;
        let mut addresses = resolved.addresses;
        addresses.sort_unstable();
        addresses.dedup();
        let before = host.problem();
        let old = (host.addresses != addresses).then(|| {
            host.users.keys().for_each(|(service, _)| affected.service(service));
            mem::replace(&mut host.addresses, addresses)
        });
        host.trouble = resolved.trouble;
        affected.unresolved |= before != host.problem();
        old.map(|old| AddressChange { old, users: host.users.keys().cloned().collect() })
    }

    /// Counts one use of a registration's host name, if its address is a name.
    pub(super) fn add_user(&mut self, key: &Key, one: &Registration, affected: &mut Affected) {
        let Host::Name(name) = &one.address.host else { return };
        let host = self.0.entry(name.clone()).or_insert_with(|| {
            affected.hosts = true;
            HostState::default()
        });
        affected.unresolved |= host.problem().is_some();
        *host.users.entry((one.service.clone(), key.clone())).or_default() += 1;
    }

    /// Undoes one [`Self::hold`].
    pub(super) fn remove_user(&mut self, key: &Key, one: &Registration, affected: &mut Affected) {
        let Host::Name(name) = &one.address.host else { return };
        let Some(host) = self.0.get_mut(name) else { return };
        affected.unresolved |= host.problem().is_some();
        let user = (one.service.clone(), key.clone());
        if let Some(uses) = host.users.get_mut(&user) {
            *uses -= 1;
            if *uses == 0 {
                host.users.remove(&user);
            }
        }
        if host.users.is_empty() {
            self.0.remove(name);
            affected.hosts = true;
        }
    }

    /// Returns the names that do not resolve.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = UnresolvedName<'_>> {
        self.0.iter().filter_map(|(name, host)| {
            let (error, kept) = host.problem()?;
            Some(UnresolvedName { host: name, error, kept, users: &host.users })
        })
    }
}

impl UnresolvedName<'_> {
    /// Returns the services and keys that use the name.
    pub(super) fn users(&self) -> impl Iterator<Item = (&ServiceName, &Key)> {
        self.users.keys().map(|(service, key)| (service, key))
    }
}

impl HostState {
    /// Returns why its backends are missing or may be at other addresses, and how many of
    /// its addresses can be used. Returns `None` if the name resolves, and before the
    /// first answer.
    fn problem(&self) -> Option<(String, usize)> {
        let usable = |ip: &&IpAddr| BackendAddr::new(**ip, 1).is_ok();
        let kept = self.addresses.iter().filter(usable).count();
        if let Some(trouble) = &self.trouble {
            return Some((trouble.clone(), kept));
        }
        let first = self.addresses.first().filter(|_| kept == 0)?;
        BackendAddr::new(*first, 1).err().map(|why| (why.to_string(), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_client_could_use_are_as_good_as_none() {
        let check = |addresses: &[&str], trouble: Option<&str>, expected: Option<(&str, usize)>| {
            let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            let host = HostState {
                addresses,
                trouble: trouble.map(str::to_owned),
                ..HostState::default()
            };
            let found = host.problem();
            assert_eq!(found.as_ref().map(|(why, kept)| (why.as_str(), *kept)), expected);
        };
        check(&["10.0.0.1"], None, None);
        check(&["127.0.0.1"], None, None);
        check(&["10.0.0.1", "0.0.0.0"], None, None);
        check(&["10.0.0.1"], Some("gone"), Some(("gone", 1)));
        check(&[], Some("gone"), Some(("gone", 0)));
        check(&[], None, None);
        let zero = "0.0.0.0 is the unspecified address: register the address at which clients reach the server";
        check(&["0.0.0.0"], None, Some((zero, 0)));
        let cast = "ff02::1 is a multicast or broadcast address: register the address at which clients reach the server";
        check(&["ff02::1"], None, Some((cast, 0)));
    }
}
