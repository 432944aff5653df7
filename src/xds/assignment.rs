//! A decision as a `ClusterLoadAssignment`, encoded once and sent to many streams.
//!
//! In: a service and a decision. Out: an [`Assignment`]. Pure. It never makes a message that
//! a client refuses: no address twice, no locality without weight, no sum of weights beyond
//! 32 bits, nothing beyond 4 MiB.
//!
//! gRPC's `round_robin` ignores weights of endpoints and obeys weights of localities. A
//! client connects anew to an endpoint that changes its locality. So `localities` decides
//! where each backend lives. Backends and localities are in the order of addresses, because
//! Node connects to every backend anew when the bytes change.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use prost::Message;

use crate::catalog::Service;
use crate::facts::factor::Factor;
use crate::model::ClientKind;
use crate::policy::{Decision, Pick, hash};
use crate::settings::WhenEmpty;
use crate::streams::held_bytes::WeakHeldBytes;
use crate::telemetry::Told;

use super::localities::{Backend, Grouping, Groups, Home};
use super::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use super::pb::envoy::config::core::v3::{Address, Locality, SocketAddress, address};
use super::pb::envoy::config::endpoint::v3::cluster_load_assignment::{Policy, policy};
use super::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use super::pb::envoy::r#type::v3::FractionalPercent;
use super::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

/// The backends of one class of a service's clients: a `ClusterLoadAssignment` without its
/// name, so that all spellings of a name share it.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    /// The encoded fields.
    pub(super) body: Bytes,
    /// A hash of the fields: equal on all replicas that send the same.
    pub(super) version: u64,
    /// A hash of everything but the weights.
    pub(super) members: u64,
    /// What it tells the client.
    pub(super) told: Told,
    /// How many backends it has.
    pub(super) backends: usize,
    /// How many backends were left out, because a client takes no larger message.
    pub(super) omitted: usize,
    /// The handle that shows whether anything holds the bytes.
    pub(super) held: WeakHeldBytes,
}

/// gRPC's limit for a received message is 4 MiB. A client that gets a longer one ends the
/// stream and asks again, for ever. The head of a response has less than the rest.
const BODY_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// The bits of the largest share, if calls are split.
const SHARE_BITS: u32 = 40;
/// The category of calls that a mark drops.
const SHED: &str = "shed";
/// The category of calls that are dropped because no backend is there.
const NO_BACKENDS: &str = "no backends";

impl Assignment {
    /// Encodes the picks of a decision, and the part of calls that clients drop. A mark for
    /// fallback has no counterpart in xDS, so clients keep their backends.
    pub(super) fn new(
        service: &Service,
        decision: &Decision,
        grouping: Grouping,
        groups: &Groups,
    ) -> Self {
        let shares = shares(decision);
        let pick = |(at, pick): (usize, &Pick)| {
            let endpoint = &service.endpoints[pick.endpoint as usize];
            Backend {
                addr: endpoint.addr,
                share: shares[at],
                weight: pick.weight.0,
                registered: endpoint.weight.0,
                group: groups.name(pick.endpoint).clone(),
            }
        };
        let mut picks: Vec<_> = decision.picks().iter().enumerate().map(pick).collect();
        picks.sort_unstable();
        let policy = drops(SHED, decision.drop_percent);
        Self::encode(&grouping.homes(&picks), policy, Told::List, BODY_MAX)
    }

    /// Makes what a client of this kind gets when there is no backend for it.
    ///
    /// Without endpoints, calls that are not wait-for-ready fail at once, and the others wait.
    /// Java ignores an assignment without endpoints and keeps its former backends. An
    /// endpoint that refuses every connection does for Java what no endpoint does for the
    /// others, and tonic-xds hangs without an endpoint. Fallback has no counterpart in xDS,
    /// so these clients wait.
    pub(super) fn without_backends(when_empty: WhenEmpty, kind: ClientKind) -> Self {
        match when_empty {
            WhenEmpty::Drop => Self::nobody(drops(NO_BACKENDS, 100), Told::Drop, kind),
            WhenEmpty::Wait | WhenEmpty::Fallback => Self::nobody(None, Told::Empty, kind),
        }
    }

    fn nobody(policy: Option<Policy>, told: Told, kind: ClientKind) -> Self {
        if !matches!(kind, ClientKind::Java | ClientKind::Rust) {
            return Self::encode(&[], policy, told, BODY_MAX);
        }
        let mut body = Vec::new();
        // No server can have the port 0.
        let refusing = endpoint(Ipv4Addr::LOCALHOST.into(), 0);
        field(&mut body, &locality("unreachable".to_owned(), vec![refusing], 1));
        let told = if told == Told::Empty { Told::Unreachable } else { told };
        close(body, policy, 0, told, (0, 0))
    }

    /// Makes what a client of this kind gets that may not ask for a name: its calls fail at
    /// once, as far as clients can be told so.
    pub(super) fn denied(kind: ClientKind) -> Self {
        Self { told: Told::Denied, ..Self::without_backends(WhenEmpty::Drop, kind) }
    }

    /// Makes what a client of this kind gets for a name that cannot mean a service: its calls
    /// fail at once, mostly with the reason, because clients show the category of a drop.
    pub(super) fn invalid(reason: &str, kind: ClientKind) -> Self {
        Self::nobody(drops(reason, 100), Told::Invalid, kind)
    }

    /// Makes what a name gets for which there is no room.
    pub(super) fn none() -> Self {
        Self::encode(&[], None, Told::Empty, BODY_MAX)
    }

    fn encode(homes: &[Home], policy: Option<Policy>, told: Told, max: usize) -> Self {
        let sum = homes.iter().map(|home| home.weight).fold(0, u64::saturating_add);
        let all: usize = homes.iter().map(|home| home.backends.len()).sum();
        let mut body = Vec::with_capacity(40 * homes.len() + 40 * all);
        let (mut sent, mut members) = (0, 0);
        for home in homes {
            let weight = scaled(home.weight, sum, homes.len());
            // An endpoint has less than 80 bytes, and a locality without them too.
            let room = (max.saturating_sub(body.len()) / 80).saturating_sub(1);
            let backends = &home.backends[..home.backends.len().min(room)];
            if backends.is_empty() {
                break;
            }
            let endpoints = backends.iter().map(|addr| endpoint(addr.ip(), addr.port())).collect();
            field(&mut body, &locality(home.name.clone(), endpoints, weight));
            for addr in backends {
                members = hash::pair(members, hash::hash(addr.to_string().as_bytes()));
            }
            sent += backends.len();
        }
        close(body, policy, members, told, (sent, all - sent))
    }
}

/// Returns the share of each pick, as whole numbers in the proportions of [`Decision::dues`].
fn shares(decision: &Decision) -> Vec<u64> {
    let weights = || decision.picks().iter().map(|pick| u64::from(pick.weight.0));
    let Some(split) = decision.split() else { return weights().collect() };
    let mut sums = [0_u64; 2];
    for (weight, &canary) in weights().zip(&split.canaries) {
        sums[usize::from(canary)] += weight;
    }
    let share = split.share.as_millionths();
    let shares = [Factor::ONE.as_millionths().saturating_sub(share), share];
    // Each group's weights are multiplied by its share, and by the other group's sum.
    let product = |(weight, &canary): (u64, &bool)| {
        let (own, other) = (usize::from(canary), usize::from(!canary));
        u128::from(weight) * u128::from(shares[own]) * u128::from(sums[other])
    };
    let products: Vec<u128> = weights().zip(&split.canaries).map(product).collect();
    let most = products.iter().copied().max().unwrap_or(0);
    // Sums of these stay within 64 bits, and rounding costs nothing that a client can see.
    let shift = (u128::BITS - most.leading_zeros()).saturating_sub(SHARE_BITS);
    let fit = |product: u128| u64::try_from((product >> shift).max(1)).unwrap_or(u64::MAX);
    products.into_iter().map(fit).collect()
}

fn close(
    mut body: Vec<u8>,
    policy: Option<Policy>,
    members: u64,
    told: Told,
    (backends, omitted): (usize, usize),
) -> Assignment {
    let policy = ClusterLoadAssignment { policy, ..Default::default() }.encode_to_vec();
    let members = hash::pair(members, hash::hash(&policy));
    body.extend(policy);
    let version = hash::hash(&body);
    let held = WeakHeldBytes::default();
    Assignment { body: body.into(), version, members, told, backends, omitted, held }
}

/// Appends one element of `ClusterLoadAssignment.endpoints`.
fn field(body: &mut Vec<u8>, locality: &LocalityLbEndpoints) {
    // A vector takes any number of bytes.
    prost::encoding::message::encode(2, locality, body);
}

fn locality(name: String, endpoints: Vec<LbEndpoint>, weight: u32) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(Locality { sub_zone: name, ..Default::default() }),
        lb_endpoints: endpoints,
        load_balancing_weight: Some(weight),
    }
}

fn endpoint(ip: IpAddr, port: u16) -> LbEndpoint {
    let socket = SocketAddress {
        address: ip.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    let endpoint = Endpoint { address: Some(address) };
    LbEndpoint { host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) }
}

/// Returns a weight, made smaller if the sum of all weights has more than 32 bits: Java's
/// channel panics at such a sum, and the others refuse it. Never 0.
fn scaled(weight: u64, sum: u64, count: usize) -> u32 {
    let max = u64::from(u32::MAX);
    if sum <= max {
        return u32::try_from(weight).unwrap_or(u32::MAX);
    }
    // Each weight that becomes 1 may add up to one.
    let room = max - u64::try_from(count).unwrap_or(max).min(max);
    let scaled = u128::from(weight) * u128::from(room) / u128::from(sum);
    u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
}

fn drops(category: &str, percent: u32) -> Option<Policy> {
    let drop = policy::DropOverload {
        category: category.to_owned(),
        drop_percentage: Some(FractionalPercent {
            numerator: percent.min(100),
            denominator: DenominatorType::Hundred.into(),
        }),
    };
    (percent > 0).then(|| Policy { drop_overloads: vec![drop] })
}

#[cfg(test)]
mod tests;
