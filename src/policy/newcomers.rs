//! Heeds the newcomers among the backends that serve a class.
//!
//! In: a service, and the backends that the passes before keep for a class. Out: those without
//! the delayed ones; then each with the part of its weight that slow start gives it. Pure. A
//! class never loses its last backend to a delay, and never leaves what most of its backends
//! are due to the few that do not start.

use crate::catalog::Service;
use crate::facts::factor::Factor;
use crate::facts::slow_start::starts_mostly;

use super::{Pick, scale};

/// Returns the picks that are not delayed; all, if there are no others.
pub(super) fn undelayed(service: &Service, mut picks: Vec<Pick>) -> Vec<Pick> {
    let is_delayed =
        |pick: &Pick| service.delayed(&service.endpoints[pick.endpoint as usize]).is_some();
    if !picks.iter().all(is_delayed) {
        picks.retain(|pick| !is_delayed(pick));
    }
    picks
}

/// Returns the picks with the weights that slow start gives them.
pub(super) fn started(service: &Service, mut picks: Vec<Pick>) -> Vec<Pick> {
    let factor = |pick: &Pick| service.factor(&service.endpoints[pick.endpoint as usize]);
    let factors: Vec<_> = picks.iter().map(factor).collect();
    let weights: Vec<u32> = picks.iter().map(|pick| pick.weight.0).collect();
    let none_starts = factors.iter().all(|factor| *factor == Factor::ONE);
    if none_starts || starts_mostly(weights.into_iter().zip(factors.iter().copied())) {
        return picks;
    }
    scale(&mut picks, &factors);
    picks
}
