//! Changes the shares of backends by the load that they report.
//!
//! In: a service, and the backends that all other passes keep for a class. Out: the same
//! backends, with weights multiplied by their load factors. Pure. It leaves out none.

use crate::catalog::Service;
use crate::facts::factor::Factor;

use super::{Pick, scale};

/// Returns the picks with the weights that clients get.
pub(super) fn heed(service: &Service, mut picks: Vec<Pick>) -> Vec<Pick> {
    let load_factor = |pick: &Pick| service.load_factor(&service.endpoints[pick.endpoint as usize]);
    let factors: Vec<_> = picks.iter().map(load_factor).collect();
    if factors.iter().all(|factor| *factor == Factor::ONE) {
        return picks;
    }
    scale(&mut picks, &factors);
    picks
}
