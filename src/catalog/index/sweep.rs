//! Sweeps: decides whether a deletion of keys of several leases counts as an accident.
//!
//! In: the changes of one revision. Out: the swept keys whose backends are to be held.
//! Pure. Both sides are counted in backends, not in keys.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use crate::model::{BackendAddr, ServiceName};
use crate::registry::{Cause, Change, Key};

use super::super::guard::guarded_min;
use super::{Index, Members};

/// The part of one service that a sweep deletes.
#[derive(Default)]
struct Sweep<'a> {
    /// How many registrations of each address are deleted.
    uses: HashMap<BackendAddr, u32>,
    /// The keys that were swept.
    keys: Vec<&'a Key>,
}

impl Index {
    /// Returns the swept keys of services of which too little would be left registered.
    /// Everything is counted in backends: a key may register several, and several keys
    /// the same one.
    pub(super) fn swept(&self, changes: &[Change]) -> HashSet<Key> {
        let is_swept = |change: &Change| matches!(change, Change::Delete(_, Cause::Swept));
        if !changes.iter().any(is_swept) {
            return HashSet::new();
        }
        let mut services: BTreeMap<ServiceName, Sweep<'_>> = BTreeMap::new();
        for change in changes {
            let Change::Delete(key, cause) = change else { continue };
            let swept = (*cause == Cause::Swept).then_some(key);
            for (service, endpoint) in self.endpoints_of(key) {
                let sweep = services.entry(service).or_default();
                *sweep.uses.entry(endpoint.addr).or_default() += 1;
            }
            let registered = self.entries.get(key).map(|content| &content.registrations);
            let names = registered.into_iter().flatten().map(|one| &one.service);
            for service in names.chain(self.guard.services_of(key)) {
                match services.get_mut(service) {
                    Some(sweep) => sweep.keys.extend(swept),
                    None => services.entry(service.clone()).or_default().keys.extend(swept),
                }
            }
        }
        let too_few = |(service, sweep): &(ServiceName, Sweep<'_>)| {
            let share = self.rules(service).guard;
            let members = self.services.get(service);
            let all_uses = |addr| members.map_or(0, |members| members.uses(addr).all);
            let leaving = sweep.uses.iter().filter(|(addr, uses)| all_uses(**addr) <= **uses);
            let left = members.map_or(0, Members::len).saturating_sub(leaving.count());
            // At least one backend must be left: a sweep never deregisters a whole service.
            let least = guarded_min(self.listed.get(service).copied(), share).max(1);
            share > 0 && left < least
        };
        let kept = services.into_iter().filter(too_few);
        kept.flat_map(|(_, sweep)| sweep.keys).cloned().collect()
    }
}
