//! Leaves out the unhealthy among the backends that serve a class.
//!
//! In: a service, and the backends that the passes before keep for a class. Out: the
//! healthy ones; all of them if the service is in panic, is only observed, or if none of
//! them is healthy. Pure. It gives back only what health alone left out.

use std::collections::BTreeMap;

use crate::catalog::{HealthAnswer, Service};
use crate::model::{BackendAddr, Class, Endpoint};

use super::{Pick, passes};

/// The unhealthy backends that the lists of a class leave out.
pub(super) struct LeftOut<'a>(Option<&'a BTreeMap<BackendAddr, HealthAnswer>>);

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

impl<'a> LeftOut<'a> {
    /// Returns the backends that the lists of a class leave out. Looks for a healthy
    /// backend of the class, and at no more backends than until it finds one.
    pub(super) fn new(service: &'a Service, class: &Class) -> Self {
        let unhealthy = service.left_out().filter(|unhealthy| {
            let is_healthy = |one: &Endpoint| {
                !unhealthy.contains_key(&one.addr) && passes::keep(service, one, class)
            };
            service.endpoints.iter().any(is_healthy)
        });
        Self(unhealthy)
    }

    /// Returns whether a backend is left out.
    pub(super) fn has(&self, endpoint: &Endpoint) -> bool {
        self.0.is_some_and(|unhealthy| unhealthy.contains_key(&endpoint.addr))
    }
}
