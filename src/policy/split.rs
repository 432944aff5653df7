//! Splits calls, clients or keys between canaries and the other backends.
//!
//! In: a service with a split in force, a class, and the backends that the passes before
//! keep. Out: the backends of the class's part, or both groups with the canaries' share.
//! Pure. If one group has no backend, the other gets everything. A name that selects by the
//! key of the split is not split.

use std::net::IpAddr;

use super::hash::{hash, pair};
use super::passes::{Pass, Watch};
use super::{CallSplit, Decision, Pick, rendezvous, zones};
use crate::catalog::{Service, Split, is_chosen};
use crate::facts::factor::Factor;
use crate::model::{Class, Endpoint, Part};
use crate::settings::SplitBy;

/// Returns the part of the clients to which a client belongs. It depends on the client's
/// address, the service and what the split selects. So a client that connects again, or to
/// another replica, stays in its part, and a canary of another version has other clients.
/// A split of calls divides the clients that do not obey weights.
pub(super) fn part_of_client(
    service: &Service,
    class: &Class,
    client: IpAddr,
    obeys_weights: bool,
) -> Part {
    match in_force(service, class) {
        Some(split)
            if class.key().is_none() && (split.by == SplitBy::Clients || !obeys_weights) =>
        {
            let id = match client.to_canonical() {
                IpAddr::V4(ip) => hash(&ip.octets()),
                IpAddr::V6(ip) => hash(&ip.octets()),
            };
            place(service, &split, id)
        }
        _ => Part::Both,
    }
}

/// Returns the part of a class. Keys are split as clients are, because one key has one
/// backend.
pub(super) fn part(service: &Service, class: &Class) -> Part {
    match (in_force(service, class), class.key()) {
        (None, _) => Part::Both,
        (Some(split), Some(key)) => place(service, &split, hash(key.as_bytes())),
        (Some(Split { by: SplitBy::Clients, .. }), None) => class.part(),
        (Some(Split { share: Factor::ZERO, .. }), None) => Part::Others,
        (Some(Split { share: Factor::ONE, .. }), None) => Part::Canaries,
        // A client that does not obey weights has a part.
        (Some(_), None) => class.part(),
    }
}

/// Returns the decision for a class without a key: runs this pass and that of zones.
pub(super) fn decide(
    service: &Service,
    class: &Class,
    picks: Vec<Pick>,
    watch: &mut impl Watch,
) -> Decision {
    let picks = keep(service, class, part(service, class), picks, watch);
    let Some(split) = by_calls(service, class) else {
        return Decision::new(zones::heed(service, class, picks, watch));
    };
    let is_canary = |pick: &Pick| is_canary(service, &split, pick);
    let picks = zones::heed_groups(service, class, picks, is_canary, watch);
    let canaries: Box<[bool]> = picks.iter().map(is_canary).collect();
    let both = canaries.contains(&true) && canaries.contains(&false);
    let split = both.then(|| Box::new(CallSplit { share: split.share, canaries }));
    Decision { split, ..Decision::new(picks) }
}

/// Returns the picks among which the calls are shared out to a backend: those of its group, if
/// the calls are split, or all.
pub(super) fn group(
    service: &Service,
    class: &Class,
    endpoint: &Endpoint,
    picks: &[Pick],
) -> Vec<Pick> {
    let Some(split) = by_calls(service, class) else { return picks.to_vec() };
    let canaries = is_chosen(endpoint, split.select);
    let own = |pick: &&Pick| is_canary(service, &split, pick) == canaries;
    picks.iter().filter(own).copied().collect()
}

/// Returns the split if the calls of one client go to both groups, each with its share.
fn by_calls<'a>(service: &'a Service, class: &Class) -> Option<Split<'a>> {
    let split = in_force(service, class)?;
    let by_calls = split.by == SplitBy::Calls && part(service, class) == Part::Both;
    by_calls.then_some(split)
}

/// Returns the picks of one part; all, if the part has none.
pub(super) fn keep(
    service: &Service,
    class: &Class,
    part: Part,
    mut picks: Vec<Pick>,
    watch: &mut impl Watch,
) -> Vec<Pick> {
    let Some(split) = in_force(service, class) else { return picks };
    if part != Part::Both {
        let canaries = part == Part::Canaries;
        let is_in = |pick: &Pick| is_canary(service, &split, pick) == canaries;
        if picks.iter().any(is_in) {
            picks.retain(is_in);
        }
    }
    watch.after(Pass::Split, &picks);
    picks
}

/// Returns the split that applies to a class.
pub(super) fn in_force<'a>(service: &'a Service, class: &Class) -> Option<Split<'a>> {
    let split = service.split()?;
    let selects = class.selectors().iter().any(|one| one.key == split.select.key);
    (!selects).then_some(split)
}

/// Returns whether a pick is a canary.
pub(super) fn is_canary(service: &Service, split: &Split<'_>, pick: &Pick) -> bool {
    is_chosen(&service.endpoints[pick.endpoint as usize], split.select)
}

fn place(service: &Service, split: &Split<'_>, id: u64) -> Part {
    let [name, key, value] = [service.name.as_str(), &split.select.key, &split.select.value]
        .map(|text| hash(text.as_bytes()));
    let salt = pair(name, pair(key, value));
    match rendezvous::is_in_share(id, salt, split.share) {
        true => Part::Canaries,
        false => Part::Others,
    }
}
