//! Reads resources as they were sent, for operators.
//!
//! In: the bytes of listeners, clusters and assignments. Out: what they say, in words. Pure.

use std::net::SocketAddr;

use prost::Message;
use prost_types::{Any, Duration};

use crate::telemetry::SentLocality;

use super::pb::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy, OutlierDetection};
use super::pb::envoy::config::core::v3::{address, socket_address::PortSpecifier};
use super::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use super::pb::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use super::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use super::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints,
};
use super::pb::envoy::config::listener::v3::Listener;
use super::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use super::pb::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use super::pb::envoy::config::route::v3::{RouteAction, route};
use super::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use super::resources::Kind;

/// What a resource says: parts with their names.
type Says = Vec<(&'static str, String)>;

/// Returns what a listener or a cluster says.
pub(super) fn resource(kind: Kind, resource: &Any) -> Says {
    match kind {
        Kind::Listener => listener(&resource.value),
        Kind::Cluster => cluster(&resource.value),
        Kind::Endpoints => Vec::new(),
    }
}

/// Returns the localities of an assignment, and the part of calls that each category drops, in
/// percent.
pub(super) fn assignment(body: &[u8]) -> (Vec<SentLocality>, Vec<(String, u32)>) {
    let read = ClusterLoadAssignment::decode(body).unwrap_or_default();
    let localities = read.endpoints.iter().map(locality).collect();
    (localities, read.policy.as_ref().map(drops).unwrap_or_default())
}

fn listener(bytes: &[u8]) -> Says {
    let manager = Listener::decode(bytes).ok().and_then(|all| all.api_listener?.api_listener);
    let manager = manager.and_then(|any| HttpConnectionManager::decode(&any.value[..]).ok());
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.and_then(|all| all.route_specifier)
    else {
        return Vec::new();
    };
    let hosts = routes.virtual_hosts.into_iter().flat_map(|host| host.routes);
    let mut says = Vec::new();
    for route::Action::Route(action) in hosts.filter_map(|route| route.action) {
        put_route(action, &mut says);
    }
    says
}

fn put_route(action: RouteAction, says: &mut Says) {
    if let Some(ClusterSpecifier::Cluster(cluster)) = action.cluster_specifier {
        says.push(("cluster", cluster));
    }
    let most = action.max_stream_duration.and_then(|most| most.max_stream_duration);
    says.extend(most.map(|most| ("timeout", time(&most))));
    if let Some(retry) = action.retry_policy {
        let times = retry.num_retries.unwrap_or(1);
        says.push(("retry", format!("{times} times on {}", retry.retry_on)));
        let pause = retry.retry_back_off.and_then(|pause| pause.base_interval);
        says.extend(pause.map(|pause| ("retry_pause", time(&pause))));
    }
    for policy in action.hash_policy {
        if let Some(PolicySpecifier::Header(header)) = policy.policy_specifier {
            says.push(("hashed_header", header.header_name));
        }
    }
}

fn cluster(bytes: &[u8]) -> Says {
    let Ok(cluster) = Cluster::decode(bytes) else { return Vec::new() };
    let mut says = Vec::new();
    let endpoints = cluster.eds_cluster_config.map(|config| config.service_name);
    says.extend(endpoints.map(|name| ("endpoints", name)));
    says.push(("policy", policy(cluster.load_balancing_policy.as_ref())));
    let limits = cluster.circuit_breakers.into_iter().flat_map(|all| all.thresholds);
    says.extend(limits.filter_map(|one| Some(("max_requests", one.max_requests?.to_string()))));
    says.extend(cluster.outlier_detection.map(|outliers| ("outliers", detection(&outliers))));
    says.push(("reports", if cluster.lrs_server.is_some() { "on" } else { "off" }.to_owned()));
    says
}

/// Returns the names of the policies, the outer one first.
fn policy(policy: Option<&LoadBalancingPolicy>) -> String {
    let Some(policy) = policy else { return "round_robin".to_owned() };
    let one = policy.policies.first().and_then(|one| one.typed_extension_config.as_ref());
    one.map(|config| config.name.clone()).unwrap_or_default()
}

fn detection(outliers: &OutlierDetection) -> String {
    let (kind, by) = match outliers.enforcing_success_rate {
        Some(1..) => ("success rate", outliers.success_rate_stdev_factor),
        _ => ("failure percentage", outliers.failure_percentage_threshold),
    };
    let every = outliers.interval.as_ref().map(time).unwrap_or_default();
    let out = outliers.base_ejection_time.as_ref().map(time).unwrap_or_default();
    let (most, by) = (outliers.max_ejection_percent.unwrap_or_default(), by.unwrap_or_default());
    format!("{kind} {by}, looked at every {every}, out for {out}, at most {most} %")
}

fn locality(locality: &LocalityLbEndpoints) -> SentLocality {
    SentLocality {
        name: locality.locality.as_ref().map(|one| one.sub_zone.clone()).unwrap_or_default(),
        weight: locality.load_balancing_weight.unwrap_or_default(),
        backends: locality.lb_endpoints.iter().filter_map(backend).collect(),
    }
}

fn backend(endpoint: &LbEndpoint) -> Option<SocketAddr> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    let address = endpoint.address.as_ref()?.address.as_ref()?;
    let address::Address::SocketAddress(socket) = address;
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse().ok()?, u16::try_from(port).ok()?))
}

fn drops(policy: &Policy) -> Vec<(String, u32)> {
    // All parts are in hundredths.
    let part = |drop: &DropOverload| {
        Some((drop.category.clone(), drop.drop_percentage.as_ref()?.numerator))
    };
    policy.drop_overloads.iter().filter_map(part).collect()
}

/// Returns a time in seconds, as settings write it.
fn time(time: &Duration) -> String {
    let seconds = time.seconds as f64 + f64::from(time.nanos) / 1e9;
    format!("{seconds}s")
}
