//! Affinity: assigns a name's key (`hash--KEY`) to one backend.
//!
//! In: a service, and a class with a key. Out: the backend of the key. Pure. Every replica
//! assigns a key to the same backend, because neither loads nor zones are an input: they
//! differ from replica to replica and from client to client. Where settings bound the load of
//! a backend, the class says which backend this replica gives the key.
//!
//! Keys are assigned by the weights that all other passes give. So a backend in slow start
//! gets its keys step by step, and each key moves once.

use std::sync::Arc;

use super::hash::{hash, pair};
use super::passes::{Pass, Watch};
use super::{Decision, Pick, before_split, rendezvous, split};
use crate::catalog::{Candidate, Service};
use crate::model::{Class, Weight};

/// How many candidates are compared in the time in which a pass looks at one endpoint.
const COMPARED_AT_ONCE: usize = 8;

/// Returns the decision for a class with a key: one backend, or none.
pub(super) fn decide(
    service: &Service,
    class: &Class,
    key: &str,
    watch: &mut impl Watch,
) -> Decision {
    let candidates = candidates(service, &keys_of(service, class), watch);
    let is_given = |one: &Candidate| class.backend() == Some(one.id);
    let first = || rendezvous::choose(hash(key.as_bytes()), &candidates);
    let assigned = candidates.iter().position(is_given).or_else(first);
    // The weight is always the same, because a list of one backend does not depend on it.
    let pick = |at: usize| Pick { endpoint: candidates[at].endpoint, weight: Weight::DEFAULT };
    let picks: Vec<Pick> = assigned.map(pick).into_iter().collect();
    watch.after(Pass::Affinity, &picks);
    Decision::new(picks)
}

/// Returns the work of [`decide`], in endpoints; `None` if the candidates of the class must
/// be found first.
pub(super) fn work(service: &Service, class: &Class) -> Option<usize> {
    let candidates = service.cached_candidates(&keys_of(service, class))?;
    Some(candidates.len().div_ceil(COMPARED_AT_ONCE))
}

/// Returns the class whose candidates are those of a class with a key. Classes with many
/// keys share them.
pub(super) fn keys_of(service: &Service, class: &Class) -> Class {
    class.without_key().with_part(split::part(service, class)).in_zone(None)
}

/// Returns the backends to which keys of a class can be assigned. Finds them once for all
/// keys.
pub(super) fn candidates<W: Watch>(
    service: &Service,
    base: &Class,
    watch: &mut W,
) -> Arc<Vec<Candidate>> {
    if let Some(kept) = service.cached_candidates(base).filter(|_| !W::WATCHES) {
        return kept;
    }
    let picks = before_split(service, base, watch);
    let picks = split::keep(service, base, base.part(), picks, watch);
    let mut before = None;
    let mut all: Vec<Candidate> = picks
        .iter()
        .map(|pick| {
            let endpoint = &service.endpoints[pick.endpoint as usize];
            let id = hash(endpoint.id.as_bytes());
            // Several addresses can have one id. All but the first are told apart by address.
            let shares_id = before.replace(&endpoint.id) == Some(&endpoint.id);
            let at = || hash(endpoint.addr.to_string().as_bytes());
            let id = if shares_id { pair(id, at()) } else { id };
            Candidate { endpoint: pick.endpoint, weight: pick.weight.0, id }
        })
        .collect();
    // `choose` is fastest then. Stable, so all replicas have the same order.
    all.sort_by_key(|one| one.weight);
    let all = Arc::new(all);
    service.cache_candidates(base, &all);
    all
}
