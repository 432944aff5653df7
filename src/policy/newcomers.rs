//! Heeds the newcomers among the backends that serve a class.
//!
//! In: a service, and the backends that all other passes keep for a class. Out: those
//! without the delayed ones, each with the part of its weight that slow start gives it.
//! Pure. A class never loses its last backend to a delay, and never leaves what most of
//! its backends are due to the few that do not start.

use crate::catalog::Service;
use crate::facts::factor::{self, Factor};
use crate::model::{Class, Endpoint, Weight};

use super::{Pick, passes};

/// Returns the picks that clients get.
pub(super) fn heed(service: &Service, mut picks: Vec<Pick>) -> Vec<Pick> {
    let endpoint = |pick: &Pick| &service.endpoints[pick.endpoint as usize];
    let is_delayed = |pick: &Pick| service.delayed(endpoint(pick)).is_some();
    if !picks.iter().all(is_delayed) {
        picks.retain(|pick| !is_delayed(pick));
    }
    let factors: Vec<_> = picks.iter().map(|pick| service.factor(endpoint(pick))).collect();
    let sum = |all: &mut dyn Iterator<Item = &Pick>| -> u64 {
        all.map(|pick| u64::from(pick.weight.0)).sum()
    };
    let starts = picks.iter().zip(&factors).filter(|(_, factor)| **factor != Factor::ONE);
    let starting = sum(&mut starts.map(|(pick, _)| pick));
    if starting == 0 || 2 * starting > sum(&mut picks.iter()) {
        return picks;
    }
    let weights: Vec<u32> = picks.iter().map(|pick| pick.weight.0).collect();
    for (pick, weight) in picks.iter_mut().zip(factor::apply(&weights, &factors)) {
        pick.weight = Weight(weight);
    }
    picks
}

/// Returns whether a backend is left out of the lists of a class because it is delayed.
pub(super) fn is_left_out(service: &Service, endpoint: &Endpoint, class: &Class) -> bool {
    service.delayed(endpoint).is_some()
        && service
            .endpoints
            .iter()
            .any(|one| service.delayed(one).is_none() && passes::keep(service, one, class))
}

/// Returns the part of its share that a backend gets in the lists of a class.
pub(super) fn factor(service: &Service, endpoint: &Endpoint, class: &Class) -> Factor {
    let factor = service.factor(endpoint);
    if factor == Factor::ONE {
        return factor;
    }
    let (mut starting, mut all) = (0, 0);
    for one in service
        .endpoints
        .iter()
        .filter(|one| service.delayed(one).is_none() && passes::keep(service, one, class))
    {
        let weight = u64::from(one.weight.0);
        all += weight;
        starting += if service.factor(one) == Factor::ONE { 0 } else { weight };
    }
    if 2 * starting > all { Factor::ONE } else { factor }
}
