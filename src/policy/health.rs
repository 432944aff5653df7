//! Leaves out the unhealthy among the backends that serve a class.
//!
//! In: a service, and the backends that the passes before keep for a class. Out: the
//! healthy ones; all of them if the service is in panic, is only observed, or if none of
//! them is healthy. Pure. It gives back only what health alone left out.

use super::Pick;
use crate::catalog::Service;

/// Returns the picks without the unhealthy backends, unless all of them are.
pub(super) fn heed(service: &Service, mut picks: Vec<Pick>) -> Vec<Pick> {
    let Some(unhealthy) = service.left_out() else { return picks };
    let is_healthy = |pick: &Pick| {
        let addr = service.endpoints[pick.endpoint as usize].addr;
        !unhealthy.contains_key(&addr)
    };
    if picks.iter().any(is_healthy) {
        picks.retain(is_healthy);
    }
    picks
}
