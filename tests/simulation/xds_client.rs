//! An xDS client on a stream that is open, as gRPC does: it asks for listener, cluster and
//! endpoints one after the other, and accepts every response.
//!
//! In: a stream. Out: a record of each assignment that it gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Node, address};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use h2::{SendStream, client};
use prost::{Message, Name};

use crate::balancer::ZONE;
use crate::client::{code, framed, next};
use crate::history::{History, Set, What};
use crate::plan::{Client, Protocol};

/// The types in the order in which clients ask for them.
fn types() -> [String; 3] {
    [Listener::full_name(), Cluster::full_name(), ClusterLoadAssignment::full_name()]
        .map(|name| format!("type.googleapis.com/{name}"))
}

/// Speaks to the end of the stream. Returns its status, if it has one.
pub async fn converse(
    id: usize,
    plan: &Client,
    requests: &mut SendStream<Bytes>,
    response: client::ResponseFuture,
    greeted: &mut bool,
    history: &History,
) -> Option<String> {
    let types = types();
    let name = format!("s{}.{ZONE}:443", plan.service);
    let mut ask = |url: &str, accepted: Option<&DiscoveryResponse>| {
        let node = Node { user_agent_name: agent(plan).to_owned(), ..Default::default() };
        let request = DiscoveryRequest {
            node: Some(node),
            resource_names: vec![name.clone()],
            type_url: url.to_owned(),
            version_info: accepted.map(|last| last.version_info.clone()).unwrap_or_default(),
            response_nonce: accepted.map(|last| last.nonce.clone()).unwrap_or_default(),
            ..Default::default()
        };
        // The reading side notices that a stream has ended.
        let _ = requests.send_data(framed(&request.encode_to_vec()), false);
    };
    ask(&types[0], None);
    let (head, mut body) = response.await.ok()?.into_parts();
    assert_eq!(head.status, 200, "stream {id}");
    if let Some(code) = code(&head.headers) {
        return Some(code);
    }
    let (mut waiting, mut asked) = (BytesMut::new(), 1);
    while let Some(response) = next::<DiscoveryResponse>(&mut body, &mut waiting).await? {
        let place = types.iter().position(|url| *url == response.type_url).expect("a known type");
        assert!(place < asked, "stream {id}: {} before it was asked for", response.type_url);
        assert_eq!(response.resources.len(), 1, "stream {id}: {}", response.type_url);
        ask(&response.type_url, Some(&response));
        if let Some(url) = types.get(asked).filter(|_| place + 1 == asked) {
            ask(url, None);
            asked += 1;
        }
        if response.type_url != types[2] {
            continue;
        }
        let assignment = ClusterLoadAssignment::decode(&*response.resources[0].value);
        let assignment = assignment.expect("an assignment");
        assert_eq!(assignment.cluster_name, name, "stream {id}");
        if !std::mem::replace(greeted, true) {
            history.note(What::Greeted { stream: id });
        }
        let overloads = assignment.policy.iter().flat_map(|all| &all.drop_overloads);
        let drops = overloads.map(hundredths).sum();
        let (list, shares) = backends(&assignment);
        history.note(What::ReceivedList { stream: id, list, shares, drops });
    }
    code(&body.trailers().await.ok()??)
}

/// Returns whether a balancer sends the client a change of shares at most every ten seconds.
pub fn is_damped(plan: &Client) -> bool {
    plan.protocol == Protocol::Xds && agent(plan).contains("Node")
}

fn agent(plan: &Client) -> &'static str {
    match plan.user_agent {
        agent if agent.starts_with("grpc-go") => "gRPC Go",
        agent if agent.starts_with("grpc-java") => "gRPC Java",
        _ => "gRPC Node Pure JS",
    }
}

/// Returns the backends of an assignment with their shares, and checks that clients accept
/// it. The port 0 stands for a service without backends.
fn backends(assignment: &ClusterLoadAssignment) -> (Set, Vec<u32>) {
    let mut all = BTreeMap::new();
    for home in &assignment.endpoints {
        let weight = home.load_balancing_weight.expect("a weight").value;
        assert!(weight > 0, "a locality without weight");
        let name = &home.locality.as_ref().expect("a locality").sub_zone;
        for addr in home.lb_endpoints.iter().map(address).filter(|addr| addr.port() != 0) {
            assert_eq!(*name, addr.to_string(), "a backend keeps its locality");
            assert!(all.insert(addr, weight).is_none(), "{addr} is there twice");
        }
    }
    all.into_iter().unzip()
}

/// Returns the part of the calls that a category drops, in hundredths of a percent.
fn hundredths(one: &DropOverload) -> u32 {
    let part = one.drop_percentage.as_ref().expect("a part");
    match part.denominator() {
        DenominatorType::Hundred => part.numerator * 100,
        DenominatorType::TenThousand => part.numerator,
        DenominatorType::Million => part.numerator / 100,
    }
}

fn address(endpoint: &LbEndpoint) -> SocketAddr {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        panic!("an endpoint")
    };
    let address = endpoint.address.as_ref().and_then(|address| address.address.as_ref());
    let Some(address::Address::SocketAddress(socket)) = address else { panic!("a socket") };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("a port") };
    let port = u16::try_from(port).expect("a port");
    SocketAddr::new(socket.address.parse().expect("an address"), port)
}
