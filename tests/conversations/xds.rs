//! Conversations of an xDS client, in the published definitions of the protocol: they show
//! that every field of our own definitions has the right number and type.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node, address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{route, route_action, route_match};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier, http_filter,
};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use h2::client::SendRequest;
use lookaside::settings::WhenEmpty;
use lookaside::telemetry::Told;
use lookaside::xds::{DELTA_PATHS, PATH};
use prost::{Message, Name};

use super::wire::{Balanced, Stream};

#[path = "xds_sent.rs"]
mod sent;

/// A client's stream, and the zone that the client states.
pub(super) struct Client(Stream, &'static str);

impl Client {
    pub(super) async fn open(balanced: &Balanced) -> Self {
        Self::open_in_zone(balanced, "a").await
    }

    pub(super) async fn open_in_zone(balanced: &Balanced, zone: &'static str) -> Self {
        Self::open_on(&mut balanced.caller(1 << 20).await, zone)
    }

    /// Opens a stream on a connection.
    pub(super) fn open_on(connection: &mut SendRequest<Bytes>, zone: &'static str) -> Self {
        Self(Balanced::call(connection, PATH, "grpc-go/1.85.0"), zone)
    }

    /// Asks for names of a type, and accepts the response with this nonce.
    pub(super) fn ask<M: Name>(&mut self, names: &[&str], nonce: &str) {
        self.request::<M>(names, nonce, None);
    }

    pub(super) fn request<M: Name>(&mut self, names: &[&str], nonce: &str, error: Option<&str>) {
        let node = Node {
            id: "me".to_owned(),
            cluster: "shop".to_owned(),
            locality: Some(Locality { zone: self.1.to_owned(), ..Default::default() }),
            user_agent_name: "gRPC Go".to_owned(),
            client_features: vec!["envoy.lb.does_not_support_overprovisioning".to_owned()],
            ..Default::default()
        };
        let refusal = |text: &str| Status { code: 3, message: text.to_owned(), details: vec![] };
        let request = DiscoveryRequest {
            node: Some(node),
            resource_names: names.iter().map(ToString::to_string).collect(),
            type_url: url::<M>(),
            response_nonce: nonce.to_owned(),
            error_detail: error.map(refusal),
            ..Default::default()
        };
        self.0.message(&request.encode_to_vec());
    }

    /// Returns whether nothing comes for a while.
    pub(super) async fn is_silent(&mut self) -> bool {
        self.0.silent().await
    }

    pub(super) async fn next<M: Name + Default>(&mut self) -> (DiscoveryResponse, Vec<M>) {
        let bytes = self.0.maybe_bytes().await.expect("a response");
        let response = DiscoveryResponse::decode(bytes).unwrap();
        assert_eq!(response.type_url, url::<M>());
        let resources = response.resources.iter().map(|any| read(Some(any))).collect();
        (response, resources)
    }
}

fn url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}

pub(super) fn read<M: Name + Default>(any: Option<&Any>) -> M {
    let any = any.expect("a message");
    assert_eq!(any.type_url, url::<M>());
    M::decode(&any.value[..]).unwrap()
}

/// Returns address, port and weight of each locality, which has the address as its name.
pub(super) fn backends(assignment: &ClusterLoadAssignment) -> Vec<(String, u32, u32)> {
    let one = |locality: &LocalityLbEndpoints| {
        let [endpoint] = &locality.lb_endpoints[..] else { panic!("one endpoint") };
        let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
            panic!("an endpoint")
        };
        let address = endpoint.address.as_ref().unwrap().address.as_ref();
        let Some(address::Address::SocketAddress(socket)) = address else { panic!("a socket") };
        let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("a port") };
        let name = &locality.locality.as_ref().unwrap().sub_zone;
        assert_eq!(*name, format!("{}:{port}", socket.address));
        (socket.address.clone(), port, locality.load_balancing_weight.unwrap().value)
    };
    assignment.endpoints.iter().map(one).collect()
}

#[tokio::test]
async fn every_field_is_what_the_published_definitions_say() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.reset(&["hello 1 10.0.0.1:80 weight=3", "hello 2 10.0.0.2:81"]).await;
    let mut client = Client::open(&balanced).await;
    client.ask::<Listener>(&["Hello:80"], "");
    let (response, listeners) = client.next::<Listener>().await;
    let [listener] = &listeners[..] else { panic!("{listeners:?}") };
    assert_eq!(listener.name, "Hello:80");
    let manager = listener.api_listener.as_ref().unwrap().api_listener.as_ref();
    let manager: HttpConnectionManager = read(manager);
    let Some(RouteSpecifier::RouteConfig(routes)) = &manager.route_specifier else { panic!() };
    let [host] = &routes.virtual_hosts[..] else { panic!("{routes:?}") };
    assert_eq!(host.domains, ["*"]);
    let [only] = &host.routes[..] else { panic!("{host:?}") };
    let path = only.r#match.as_ref().unwrap().path_specifier.as_ref();
    assert_eq!(path, Some(&route_match::PathSpecifier::Prefix(String::new())));
    let Some(route::Action::Route(action)) = &only.action else { panic!("{only:?}") };
    let cluster = route_action::ClusterSpecifier::Cluster("Hello:80".to_owned());
    assert_eq!(action.cluster_specifier, Some(cluster));
    let [filter] = &manager.http_filters[..] else { panic!("{manager:?}") };
    let Some(http_filter::ConfigType::TypedConfig(router)) = &filter.config_type else { panic!() };
    let Router { .. } = read(Some(router));

    client.ask::<Listener>(&["Hello:80"], &response.nonce);
    client.ask::<Cluster>(&["Hello:80"], "");
    let (response, clusters) = client.next::<Cluster>().await;
    let [cluster] = &clusters[..] else { panic!("{clusters:?}") };
    assert_eq!(cluster.name, "Hello:80");
    let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
    assert_eq!((cluster.cluster_discovery_type.clone(), cluster.lb_policy), (eds, 0));
    let config = cluster.eds_cluster_config.as_ref().unwrap();
    assert_eq!(config.service_name, "Hello:80");
    let source = config.eds_config.as_ref().unwrap().config_source_specifier.as_ref();
    assert!(matches!(source, Some(ConfigSourceSpecifier::Ads(_))), "{source:?}");

    client.ask::<Cluster>(&["Hello:80"], &response.nonce);
    client.ask::<ClusterLoadAssignment>(&["Hello:80"], "");
    let (first, assignments) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!(assignments[0].cluster_name, "Hello:80");
    let expected = [("10.0.0.1".to_owned(), 80, 3), ("10.0.0.2".to_owned(), 81, 1)];
    assert_eq!(backends(&assignments[0]), expected);
    client.request::<ClusterLoadAssignment>(&["Hello:80"], &first.nonce, Some("do not like it"));
    assert!(client.0.silent().await, "a refusal is no reason to repeat");
    let counters = &balanced.counters.xds_endpoints;
    assert_eq!((counters.sent.total(), counters.refused.total()), (1, 1));
    let view = &balanced.xds.clients()()[0];
    let xds = view.xds.as_ref().unwrap();
    assert_eq!((xds.refusal.as_deref(), xds.accepted), (Some("do not like it"), None));
    assert_eq!((&*view.user_agent, view.kind.as_str(), view.entries), ("gRPC Go", "go", 2));
    balanced.delete("hello 1 10.0.0.1:80").await;
    let (second, assignments) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!(backends(&assignments[0]), expected[1..]);
    assert_ne!(first.version_info, second.version_info);
}

/// A name that nobody registered has all resources at once, and drops have their field.
#[tokio::test]
async fn a_name_without_backends_is_answered_at_once() {
    let balanced = Balanced::start(WhenEmpty::Drop).await;
    let mut client = Client::open(&balanced).await;
    client.ask::<Listener>(&["nobody"], "");
    assert_eq!(client.next::<Listener>().await.1.len(), 1);
    client.ask::<Cluster>(&["nobody"], "");
    assert_eq!(client.next::<Cluster>().await.1.len(), 1);
    client.ask::<ClusterLoadAssignment>(&["nobody"], "");
    let (_, assignments) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!(assignments[0].endpoints, []);
    let drops = &assignments[0].policy.as_ref().unwrap().drop_overloads;
    let part = drops[0].drop_percentage.unwrap();
    assert_eq!((part.numerator, part.denominator), (100, DenominatorType::Hundred.into()));
}

/// Without a listener, clients wait for 15 seconds, and Node for ever.
#[tokio::test]
async fn a_name_that_can_mean_no_service_is_answered_with_the_reason() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut client = Client::open(&balanced).await;
    client.ask::<Listener>(&["a..b"], "");
    let (response, listeners) = client.next::<Listener>().await;
    assert_eq!((listeners.len(), response.resource_errors.len()), (1, 0));
    client.ask::<Cluster>(&["a..b"], "");
    assert_eq!(client.next::<Cluster>().await.1.len(), 1);
    client.ask::<ClusterLoadAssignment>(&["a..b"], "");
    let (_, assignments) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!((&*assignments[0].cluster_name, assignments[0].endpoints.len()), ("a..b", 0));
    let drop = &assignments[0].policy.as_ref().unwrap().drop_overloads[0];
    assert!(drop.category.contains("\"a..b\" holds no service"), "{}", drop.category);
    assert_eq!(drop.drop_percentage.unwrap().numerator, 100);
    let view = &balanced.xds.clients()()[0];
    assert_eq!((view.told, &view.service), (Told::Invalid, &None));
}

/// Each spelling of a name is a resource of its own, of the one service.
#[tokio::test]
async fn every_spelling_of_a_name_means_the_service() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.reset(&["dev/game 7 10.0.0.7:80 weight=3", "dev/game 8 10.0.0.8:80"]).await;
    let mut client = Client::open(&balanced).await;
    let plain = [
        "dev/game",
        "dev%2Fgame",
        "dev%2fgame:80",
        "game.dev",
        "game.dev.",
        "game.dev.:50051",
        "GAME.Dev",
        "game.dev.lookaside.internal",
        "game.dev.LOOKASIDE.internal.:443",
    ];
    let authority = |name: &str| {
        let of = |kind: &str| format!("xdstp://any/envoy.config.{kind}/{name}");
        [of("listener.v3.Listener"), of("endpoint.v3.ClusterLoadAssignment")]
    };
    let templates = ["dev%2Fgame", "game.dev.", "game.dev:80?a=b"].map(authority);
    let names = plain.map(|name| [name.to_owned(), name.to_owned()]);
    for [listener, endpoints] in names.iter().chain(&templates) {
        client.ask::<Listener>(&[listener], "");
        let (response, listeners) = client.next::<Listener>().await;
        assert_eq!(listeners[0].name, *listener, "as it is asked for");
        client.ask::<Listener>(&[listener], &response.nonce);
        client.ask::<ClusterLoadAssignment>(&[endpoints], "");
        let (response, assignments) = client.next::<ClusterLoadAssignment>().await;
        assert_eq!(assignments[0].cluster_name, *endpoints);
        let expected = [("10.0.0.7".to_owned(), 80, 3), ("10.0.0.8".to_owned(), 80, 1)];
        assert_eq!(backends(&assignments[0]), expected, "{endpoints}");
        client.ask::<ClusterLoadAssignment>(&[endpoints], &response.nonce);
    }
    client.ask::<ClusterLoadAssignment>(&["ID--7.game.dev."], "");
    let (_, assignments) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!(backends(&assignments[0]), [("10.0.0.7".to_owned(), 80, 3)]);
    for bad in ["a%20b", "a b", "..", "", "hello..lookaside.internal"] {
        let mut client = Client::open(&balanced).await;
        client.ask::<ClusterLoadAssignment>(&[bad], "");
        if bad.is_empty() {
            assert!(client.is_silent().await, "no name is asked for");
            continue;
        }
        let (_, assignments) = client.next::<ClusterLoadAssignment>().await;
        let policy = assignments[0].policy.as_ref().expect(bad);
        assert_eq!(policy.drop_overloads[0].drop_percentage.unwrap().numerator, 100, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unread_registry_answers_no_client() {
    let mut balanced = Balanced::unread(WhenEmpty::Wait, Duration::from_secs(10));
    let mut early = Client::open(&balanced).await;
    // A connection counts in whole seconds how long a message has been unread.
    tokio::time::sleep(Duration::from_millis(400)).await;
    early.ask::<Listener>(&["hello"], "");
    // Node.js asks for each of its targets by a request of its own.
    early.ask::<Listener>(&["hello", "other"], "");
    let (code, text) = early.0.status().await;
    assert_eq!((code, text.as_str()), (14, "the registry has not been read yet"));
    let mut waiting = Client::open(&balanced).await;
    waiting.ask::<Listener>(&["hello"], "");
    tokio::time::sleep(Duration::from_secs(5)).await;
    balanced.reset(&["hello 1 10.0.0.1:80"]).await;
    assert_eq!(waiting.next::<Listener>().await.1.len(), 1);
}

#[tokio::test]
async fn nothing_that_is_invalid_ends_a_stream() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut client = Client::open(&balanced).await;
    client.ask::<Router>(&["of a type that is not served"], "");
    client.ask::<Listener>(&[], "");
    client.ask::<Listener>(&["*"], "");
    client.0.message(&[0xff; 9]);
    client.0.message(&[]);
    assert!(client.0.silent().await);
    client.ask::<Listener>(&["hello"], "no number");
    assert_eq!(client.next::<Listener>().await.1.len(), 1);
    assert_eq!(balanced.counters.xds_requests_rejected.total(), 3);
}

/// They are counted once, however often the client names them again.
#[tokio::test]
async fn names_for_which_there_is_no_room_are_counted() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut client = Client::open(&balanced).await;
    let names: Vec<_> = (0..10_003).map(|n| format!("s{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    client.ask::<Listener>(&names, "");
    let (response, listeners) = client.next::<Listener>().await;
    assert_eq!(listeners.len(), 10_000);
    client.ask::<Listener>(&names, &response.nonce);
    client.ask::<Cluster>(&names[..2], "");
    assert_eq!(client.next::<Cluster>().await.1.len(), 2);
    assert_eq!(balanced.counters.xds_names_refused.total(), 3);
}

/// Requests are longer than a stream's window, and a change costs one short response.
#[tokio::test(start_paused = true)]
async fn ten_thousand_names_on_one_stream() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let names: Vec<_> =
        (0..10_000).map(|n| format!("a-service-with-a-usual-name-{n:05}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut client = Client::open(&balanced).await;
    client.ask::<Listener>(&names, "");
    let (response, listeners) = client.next::<Listener>().await;
    let asked = listeners.iter().map(|one| one.name.as_str());
    assert!(asked.eq(names.iter().copied()));
    client.ask::<Listener>(&names, &response.nonce);
    client.ask::<Cluster>(&names, "");
    let (response, clusters) = client.next::<Cluster>().await;
    assert_eq!(clusters.len(), 10_000);
    client.ask::<Cluster>(&names, &response.nonce);
    client.ask::<ClusterLoadAssignment>(&names, "");
    let mut answered = 0;
    while answered < names.len() {
        let (response, assignments) = client.next::<ClusterLoadAssignment>().await;
        answered += assignments.len();
        client.ask::<ClusterLoadAssignment>(&names, &response.nonce);
    }
    balanced.put(&format!("{} 1 10.0.0.1:80", names[7_777])).await;
    let (_, assignments) = client.next::<ClusterLoadAssignment>().await;
    let [changed] = &assignments[..] else { panic!("{} names", assignments.len()) };
    assert_eq!((changed.cluster_name.as_str(), changed.endpoints.len()), (names[7_777], 1));
    assert_eq!(balanced.counters.xds_names_refused.total(), 0);
}

/// The names of all streams of a connection are bounded together.
#[tokio::test(start_paused = true)]
async fn the_streams_of_a_connection_share_the_room_for_names() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut connection = balanced.caller(1 << 20).await;
    // A kilobyte each: 5,847 of them, and what each stream has for nothing.
    let fit = |streams: usize| (6 * 1024 * 1024 + 512 * streams) / (96 + 980);
    let names: Vec<_> = (0..900).map(|n| format!("{n:0980}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut streams = Vec::new();
    for at in 0..8 {
        let mut client = Client::open_on(&mut connection, "a");
        client.ask::<Listener>(&names, "");
        let (_, listeners) = client.next::<Listener>().await;
        let fits = (fit(at + 1) - 900 * at).min(900);
        assert_eq!(listeners.len(), fits, "stream {at}");
        streams.push(client);
        if fits < 900 {
            break;
        }
    }
    assert_eq!(streams.len(), 7);
    let refused = balanced.counters.xds_names_refused.total();
    assert_eq!(usize::try_from(refused).unwrap(), 7 * 900 - fit(7));
}

#[tokio::test]
async fn deltas_are_not_served() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut connection = balanced.caller(1 << 20).await;
    for path in DELTA_PATHS {
        let mut stream = Balanced::call(&mut connection, path, "envoy");
        stream.message(&[]);
        let (code, text) = stream.status().await;
        assert_eq!(code, 12);
        assert!(text.starts_with("deltas are not served: use api_type GRPC"), "{text}");
    }
}

/// Names that mean one service share its bytes, and each resource has the name asked for.
#[tokio::test]
async fn spellings_of_a_name_are_answered_as_they_were_asked() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.reset(&["dev/game 1 10.0.0.1:80", "dev/game 2 10.0.0.2:80"]).await;
    let names = ["dev/game", "game.dev", "GAME.DEV.lookaside.internal:443", "id--2.game.dev"];
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let mut client = Client::open(&balanced).await;
    client.ask::<ClusterLoadAssignment>(&names, "");
    let (_, all) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!(all.iter().map(|one| &one.cluster_name).collect::<Vec<_>>(), sorted);
    let counts: Vec<_> = all.iter().map(|one| one.endpoints.len()).collect();
    assert_eq!(counts, [2, 2, 2, 1]);
    assert_eq!(balanced.counters.assignments_encoded.total(), 2);
}

/// A change that is not sent must not cost the stream its place among those that are woken.
#[tokio::test]
async fn a_change_after_one_that_is_not_sent_arrives() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.reset(&["hello 1 10.0.0.1:80"]).await;
    let mut client = Client::open(&balanced).await;
    client.ask::<ClusterLoadAssignment>(&["hello"], "");
    let (first, _) = client.next::<ClusterLoadAssignment>().await;
    client.ask::<ClusterLoadAssignment>(&["hello"], &first.nonce);
    for zone in ["a", "b"] {
        balanced.put(&format!("hello 1 10.0.0.1:80 zone={zone}")).await;
        assert!(client.0.silent().await, "metadata are not sent");
    }
    balanced.put("hello 2 10.0.0.2:80").await;
    let (_, assignments) = client.next::<ClusterLoadAssignment>().await;
    assert_eq!(assignments[0].endpoints.len(), 2);
}
