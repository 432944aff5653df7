//! Whether both balancers decide the same.
//!
//! In: a service as a balancer knows it. Out: a [`Digest`] of its decisions; and for the
//! checker, the services of which two digests contradict each other. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use lookaside::balancer::entries_per_pick;
use lookaside::catalog::Service;
use lookaside::model::{Class, Part, Selector, Subset};
use lookaside::policy::{self, Decision};

use crate::check::Check;
use crate::history::{Record, Set, What};
use crate::plan::{BALANCERS, Host};
use crate::zones;

/// What a balancer decides about a service, and what that follows from.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// A hash of backends, settings and marks.
    pub base: u64,
    /// A hash of what each balancer finds out itself of backends: health, load, overload.
    pub own: u64,
    /// A hash of what follows from its own clients besides: cells, demand.
    pub clients: u64,
    /// A hash of the list of each class that does not depend on its own clients.
    pub common: Vec<u64>,
    /// A hash of the list of each other class.
    pub lists: Vec<u64>,
    /// The backends of each subset.
    pub subsets: Vec<Set>,
    /// The backends of the clients of each zone that keeps its own calls.
    pub zones: BTreeMap<String, Set>,
    /// The demand of each zone's clients that is in force.
    pub demand: BTreeMap<String, u64>,
    /// Whether the service is in panic.
    pub panic: bool,
    /// How many backends the balancer cannot reach that count as healthy for now.
    pub unconfirmed: usize,
    /// What is wrong with the decisions themselves.
    pub wrong: Option<String>,
}

/// How long both balancers' decisions must last to be compared, in milliseconds: longer than
/// a step of slow start, and than news takes from one to the other.
const STEADY: u64 = 3_000;

/// Returns the digest of a service.
pub fn digest(service: &Service) -> Digest {
    let facts = &service.facts;
    let left_out: Vec<_> = service.left_out().into_iter().flatten().map(|one| *one.0).collect();
    let cells = facts.cells.as_ref().map(|cells| &cells.groups);
    let whole = Class::default();
    let mut classes = vec![whole.clone()];
    classes.extend([Part::Canaries, Part::Others].map(|part| whole.clone().with_part(part)));
    classes.extend((0..4).map(|key| {
        let value = format!("k{key}");
        Class::new(&[Selector { key: "hash".to_owned(), value }])
    }));
    let common = classes.len();
    let zoned = zones::classes(service);
    classes.extend(zoned.iter().map(|(_, class)| class.clone()));
    let bits = cells.and_then(|cells| cells.values().map(|size| size.bits).max()).unwrap_or(0);
    let subsets: Vec<Vec<Subset>> = (1..=bits)
        .map(|bits| (0..1 << bits).filter_map(|index| Subset::new(bits, index)).collect())
        .collect();
    let of = |subset: &Subset| whole.clone().with_subset(Some(*subset));
    classes.extend(subsets.iter().flatten().map(of));
    let decide = |class: &Class| policy::decide(service, class);
    let members = |class: &Class| members(service, &decide(class));
    let mut wrong = None;
    for level in &subsets {
        let parts: Vec<Set> = level.iter().map(|subset| members(&of(subset))).collect();
        if !is_partition(&parts, &members(&whole)) {
            wrong = Some(format!("the cells are no partition: {parts:?}"));
        }
    }
    if let Some(uneven) = zones::wrong(service, &zoned) {
        wrong = Some(uneven);
    }
    let demand = facts.zones.iter().flat_map(|zones| &zones.demand.zones);
    let health = facts.health.as_ref();
    let mut lists: Vec<u64> = classes.iter().map(|class| list(service, &decide(class))).collect();
    Digest {
        base: hash(&format!("{:?}{:?}{:?}", service.endpoints, service.settings, service.marks)),
        own: hash(&format!("{left_out:?}{:?}{:?}", facts.load, facts.overload_shed)),
        clients: hash(&format!("{cells:?}{:?}", facts.zones)),
        common: lists.drain(..common).collect(),
        lists,
        subsets: subsets.iter().flatten().map(|subset| members(&of(subset))).collect(),
        zones: zoned.iter().map(|(zone, class)| (zone.to_string(), members(class))).collect(),
        demand: demand.map(|(zone, demand)| (zone.to_string(), *demand)).collect(),
        panic: health.is_some_and(|health| health.panic),
        unconfirmed: health.map_or(0, |health| health.unconfirmed.len()),
        wrong,
    }
}

/// Returns whether each backend is in one part. A part without backends of its own has those of
/// its neighbours too.
fn is_partition(parts: &[Set], whole: &Set) -> bool {
    let mut parts: Vec<&Set> = parts.iter().collect();
    parts.sort_by_key(|part| part.len());
    let mut own: Vec<&Set> = Vec::new();
    for part in parts {
        if !own.iter().any(|other| other.is_subset(part)) {
            own.push(part);
        }
    }
    let sum: usize = own.iter().map(|part| part.len()).sum();
    let together: Set = own.into_iter().flatten().copied().collect();
    sum == together.len() && together == *whole
}

fn members(service: &Service, decision: &Decision) -> Set {
    let addr = |at: u32| -> SocketAddr { service.endpoints[at as usize].addr.socket_addr() };
    decision.picks().iter().map(|pick| addr(pick.endpoint)).collect()
}

/// Returns a hash of all that makes the bytes of a list.
fn list(service: &Service, decision: &Decision) -> u64 {
    let addr = |at: u32| service.endpoints[at as usize].addr;
    let picks: Vec<_> =
        decision.picks().iter().map(|pick| (addr(pick.endpoint), pick.weight)).collect();
    let Decision { drop_percent, fallback, .. } = decision;
    let (split, entries) = (decision.split(), entries_per_pick(decision));
    hash(&format!("{picks:?}{split:?}{entries:?}{drop_percent}{fallback}"))
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Check<'_> {
    /// Checks that balancers that know the same about a service decide the same (P1), and
    /// that no decision is wrong in itself.
    pub fn agreement(&mut self) {
        let mut now: BTreeMap<(usize, usize), (u64, &Digest)> = BTreeMap::new();
        for Record { at, what } in self.records {
            match what {
                What::Decides { balancer, service, digest } => {
                    if let Some(wrong) = &digest.wrong {
                        self.breaches.push(format!("P1 {at} balancer {balancer}: {wrong}"));
                    }
                    let same = compare(&now, *service, *at);
                    self.breaches.extend(same);
                    now.insert((*balancer, *service), (*at, digest));
                }
                What::Crashed(Host::Balancer(balancer)) => {
                    now.retain(|(one, _), _| one != balancer);
                }
                _ => {}
            }
        }
        let services: Vec<_> = now.keys().map(|(_, service)| *service).collect();
        for service in services {
            self.breaches.extend(compare(&now, service, self.plan.end));
        }
        self.breaches.dedup();
    }
}

/// Returns the breach if the balancers' last decisions about a service contradict each other.
fn compare(
    now: &BTreeMap<(usize, usize), (u64, &Digest)>,
    service: usize,
    at: u64,
) -> Option<String> {
    let [one, other] = [0, BALANCERS - 1].map(|balancer| now.get(&(balancer, service)));
    let ((since_one, one), (since_other, other)) = (one?, other?);
    let since = *since_one.max(since_other);
    let same = one.base == other.base && one.own == other.own && at >= since + STEADY;
    let differ = one.clients == other.clients && one.lists != other.lists;
    (same && (one.common != other.common || differ)).then(|| {
        format!("P1 s{service}: from {since} to {at} both know the same and decide differently")
    })
}
