//! Hands backends whose registrations were lost to the guard. Pure.
//!
//! In: keys that were lost. Out: their backends, by service, for the guard; and
//! the services whose lists change by it. Backends that are lost together are handed over
//! together, so that a mass loss is handled once for each service.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Instant;

use crate::model::{Endpoint, ServiceName};
use crate::registry::Key;

use super::super::affected::Affected;
use super::super::departures::Departure;
use super::super::guard::{Loss, Losses};
use super::super::liveness::LossReason;
use super::{Index, Members};

/// Backends that were lost at one moment and are not handed over yet.
#[derive(Debug)]
pub(super) struct LossBatch {
    now: Instant,
    services: BTreeMap<ServiceName, Losses>,
}

impl LossBatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { now, services: BTreeMap::new() }
    }
}

impl Index {
    /// Removes a key that was deleted for an unknown reason, and adds its backends to the
    /// batch.
    pub(super) fn lose(
        &mut self,
        key: &Key,
        why: LossReason,
        batch: &mut LossBatch,
        affected: &mut Affected,
    ) {
        let Some(old) = self.entries.remove(key) else { return };
        let endpoints = self.endpoints(&old.registrations);
        let alone = |(service, endpoint): &(ServiceName, Endpoint)| {
            self.services.get(service).is_some_and(|all| all.uses(endpoint.addr).all == 1)
        };
        // A held backend stays listed as it was, so no list changes.
        let quiet = endpoints.iter().all(alone) && !self.down.any_refuses();
        if !quiet {
            endpoints.iter().for_each(|(service, _)| affected.service(service));
        }
        self.uncount(key, &old, affected);
        self.doubt(key, endpoints, why, batch);
    }

    /// Adds the endpoints that a key no longer registers to the batch, except those that
    /// another key registers.
    pub(super) fn doubt(
        &self,
        key: &Key,
        endpoints: Vec<(ServiceName, Endpoint)>,
        why: LossReason,
        batch: &mut LossBatch,
    ) {
        let LossBatch { now, services } = batch;
        for (service, endpoint) in endpoints {
            if self.is_registered(&service, endpoint.addr) {
                continue;
            }
            let losses = match services.entry(service) {
                Entry::Occupied(losses) => losses.into_mut(),
                Entry::Vacant(place) => {
                    let length_before = self.length_before(place.key(), *now);
                    place.insert(Losses { since: *now, length_before, all: Vec::new() })
                }
            };
            losses.all.push(Loss { key: Some(key.clone()), endpoint, why });
        }
    }

    /// Hands the lost backends to the guard. It affects only services that do not hold them.
    pub(super) fn hand_over(&mut self, batch: &mut LossBatch, affected: &mut Affected) {
        let LossBatch { now, services } = batch;
        while let Some((service, losses)) = services.pop_first() {
            if let Err(refused) = self.guard.lose(losses, &service, *now) {
                for loss in refused.all {
                    self.departures.add(&service, Departure::Lost, &loss.endpoint.id);
                }
                affected.service(&service);
            }
        }
    }

    /// Returns the length of a service's list before its first loss, and when that was.
    fn length_before(&self, service: &ServiceName, now: Instant) -> (usize, Instant) {
        let members = || self.services.get(service).map_or(0, Members::len);
        let listed = self.listed.get(service).copied().unwrap_or_else(members);
        (listed, now).max(self.guard.length_before(service, now).unwrap_or((0, now)))
    }
}
