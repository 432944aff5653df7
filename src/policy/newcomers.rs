//! Heeds the newcomers among the backends that serve a class.
//!
//! In: a service, and the backends that all other passes keep for a class. Out: those
//! without the delayed ones, each with the part of its weight that slow start gives it.
//! Pure. A class never loses its last backend to a delay, and never leaves what most of
//! its backends are due to the few that do not start.

use crate::catalog::Service;
use crate::facts::factor::Factor;
use crate::facts::slow_start::starts_mostly;
use crate::model::{Class, Endpoint};

use super::health::LeftOut;
use super::{Pick, passes, scale};

/// Returns the picks that clients get.
pub(super) fn heed(service: &Service, mut picks: Vec<Pick>) -> Vec<Pick> {
    let endpoint = |pick: &Pick| &service.endpoints[pick.endpoint as usize];
    let is_delayed = |pick: &Pick| service.delayed(endpoint(pick)).is_some();
    if !picks.iter().all(is_delayed) {
        picks.retain(|pick| !is_delayed(pick));
    }
    let factors: Vec<_> = picks.iter().map(|pick| service.factor(endpoint(pick))).collect();
    let weights: Vec<u32> = picks.iter().map(|pick| pick.weight.0).collect();
    let none_starts = factors.iter().all(|factor| *factor == Factor::ONE);
    if none_starts || starts_mostly(weights.iter().copied().zip(factors.iter().copied())) {
        return picks;
    }
    scale(&mut picks, &factors);
    picks
}

/// Returns whether a backend is left out of the lists of a class because it is delayed.
pub(super) fn is_left_out(service: &Service, endpoint: &Endpoint, class: &Class) -> bool {
    service.delayed(endpoint).is_some() && others(service, class).next().is_some()
}

/// Returns the part of its share that a backend gets in the lists of a class.
pub(super) fn factor(service: &Service, endpoint: &Endpoint, class: &Class) -> Factor {
    let factor = service.factor(endpoint);
    if factor == Factor::ONE {
        return factor;
    }
    let listed = others(service, class).map(|one| (one.weight.0, service.factor(one)));
    if starts_mostly(listed) { Factor::ONE } else { factor }
}

/// Returns the backends of a class that are neither unhealthy nor delayed.
fn others<'a>(service: &'a Service, class: &'a Class) -> impl Iterator<Item = &'a Endpoint> {
    let left_out = LeftOut::new(service, class);
    let listed = move |one: &&Endpoint| {
        let kept = service.delayed(one).is_none() && !left_out.has(one);
        kept && passes::keep(service, one, class)
    };
    service.endpoints.iter().filter(listed)
}
