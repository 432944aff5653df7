//! Tests of the crowd's xDS: its bytes are what the published definitions say, and each rule
//! can be broken.

use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, Locality, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use prost::Message;

use crate::support::ads::{self, Kind};
use crate::support::crowd::xds::{News, Resources, Xds};

/// A client that asks for `s`, and what it has written.
#[derive(Default)]
struct Client {
    xds: Xds,
    known: Resources,
    out: Vec<u8>,
}

impl Client {
    /// Begins a stream.
    fn begin() -> Self {
        let mut client = Self::default();
        client.xds.begin("s", &mut client.out);
        client
    }

    /// Begins a stream, and takes a listener.
    fn with_listener() -> Self {
        let mut client = Self::begin();
        assert!(matches!(client.take(response("1", "1", &[listener("s")])), News::Described));
        client
    }

    /// Takes a response. Its answer is written at once.
    fn take(&mut self, response: DiscoveryResponse) -> News {
        self.xds.written();
        self.take_unwritten(response)
    }

    fn take_unwritten(&mut self, response: DiscoveryResponse) -> News {
        let bytes = response.encode_to_vec();
        self.xds.take("s", &bytes, &mut self.known, &mut self.out)
    }

    /// Returns the requests that it has written since the last call.
    fn requests(&mut self) -> Vec<DiscoveryRequest> {
        let out = std::mem::take(&mut self.out);
        let (mut requests, mut rest) = (Vec::new(), &out[..]);
        while let Some((&[0, length @ ..], after)) = rest.split_first_chunk::<5>() {
            let (message, after) = after.split_at(u32::from_be_bytes(length) as usize);
            requests.push(DiscoveryRequest::decode(message).expect("a request"));
            rest = after;
        }
        requests
    }
}

fn any(kind: Kind, message: &impl Message) -> Any {
    Any { type_url: kind.url().to_owned(), value: message.encode_to_vec() }
}

fn listener(name: &str) -> Any {
    any(Kind::Listener, &Listener { name: name.to_owned(), ..Default::default() })
}

fn response(version: &str, nonce: &str, resources: &[Any]) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        type_url: Kind::Listener.url().to_owned(),
        resources: resources.to_vec(),
        ..Default::default()
    }
}

/// Returns a locality with a name, a weight and the last bytes of its addresses.
fn locality(name: &str, weight: u32, ips: &[u8]) -> LocalityLbEndpoints {
    let endpoint = |ip: &u8| {
        let socket = SocketAddress {
            address: format!("10.0.0.{ip}"),
            port_specifier: Some(PortSpecifier::PortValue(80)),
            ..Default::default()
        };
        let address = Address { address: Some(address::Address::SocketAddress(socket)) };
        let endpoint = Endpoint { address: Some(address), ..Default::default() };
        let host_identifier = Some(HostIdentifier::Endpoint(endpoint));
        LbEndpoint { host_identifier, ..Default::default() }
    };
    LocalityLbEndpoints {
        locality: Some(Locality { sub_zone: name.to_owned(), ..Default::default() }),
        load_balancing_weight: Some(UInt32Value { value: weight }),
        lb_endpoints: ips.iter().map(endpoint).collect(),
        ..Default::default()
    }
}

fn assignment(endpoints: Vec<LocalityLbEndpoints>) -> Vec<u8> {
    ClusterLoadAssignment { cluster_name: "s".to_owned(), endpoints, ..Default::default() }
        .encode_to_vec()
}

#[test]
fn a_client_asks_for_one_type_after_the_other_and_for_all_on_a_new_stream() {
    let mut client = Client::begin();
    let asked = |client: &mut Client| -> Vec<_> {
        let requests = client.requests().into_iter();
        requests
            .map(|one| {
                assert_eq!(one.resource_names, ["s"]);
                let kind = Kind::of(one.type_url.as_bytes()).expect("a known type");
                (kind, one.version_info, one.response_nonce, one.node.is_some())
            })
            .collect()
    };
    let request =
        |kind, version: &str, nonce: &str, node| (kind, version.to_owned(), nonce.to_owned(), node);
    assert_eq!(asked(&mut client), [request(Kind::Listener, "", "", true)]);
    client.take(response("7", "1", &[listener("s")]));
    let expected =
        [request(Kind::Listener, "7", "1", false), request(Kind::Cluster, "", "", false)];
    assert_eq!(asked(&mut client), expected);
    let endpoints = assignment(vec![locality("a", 1, &[1])]);
    client.take(DiscoveryResponse {
        type_url: Kind::Cluster.url().to_owned(),
        ..response("8", "2", &[Any { type_url: Kind::Cluster.url().to_owned(), ..listener("s") }])
    });
    let news = client.take(DiscoveryResponse {
        type_url: Kind::Endpoints.url().to_owned(),
        ..response("9", "3", &[Any { type_url: Kind::Endpoints.url().into(), value: endpoints }])
    });
    let News::Assigned(assigned) = news else { panic!("{news:?}") };
    assert_eq!(assigned.servers, ["10.0.0.1:80".parse().expect("an address")]);
    client.requests();
    client.xds.begin("s", &mut client.out);
    let expected = [
        request(Kind::Endpoints, "9", "", true),
        request(Kind::Cluster, "8", "", false),
        request(Kind::Listener, "7", "", false),
    ];
    assert_eq!(asked(&mut client), expected);
    // On a new stream, everything is sent again.
    assert!(matches!(client.take(response("7", "1", &[listener("s")])), News::Described));
}

#[test]
fn each_broken_rule_is_found() {
    let other = [Any { value: [listener("s").value, vec![0x10, 1]].concat(), ..listener("s") }];
    for (resources, version, nonce, rule) in [
        (&[][..], "2", "2", "0 resources and 0 errors"),
        (&[listener("s"), listener("t")], "2", "2", "2 resources"),
        (&[listener("t")], "2", "2", "a resource named \"t\""),
        (&[listener("s")], "1", "2", "sent again without a change"),
        (&[listener("s")], "2", "2", "a new version without a change"),
        (&other[..], "1", "2", "a version with two contents"),
        (&other[..], "2", "1", "no new nonce"),
        (&other[..], "2", "", "no new nonce"),
        (&other[..], "", "2", "no version"),
    ] {
        let news = Client::with_listener().take(response(version, nonce, resources));
        let News::Broken(what) = news else { panic!("{rule}: {news:?}") };
        assert!(what.contains(rule), "{what}, not {rule}");
    }
    let mut client = Client::with_listener();
    let next = response("2", "2", &other[..]);
    assert!(matches!(client.take_unwritten(next.clone()), News::Broken(_)), "not answered yet");
    assert!(matches!(Client::with_listener().take(next), News::Described));
    let endpoints = Kind::Endpoints.url().to_owned();
    let early = DiscoveryResponse { type_url: endpoints, ..response("1", "1", &[]) };
    assert!(matches!(Client::begin().take(early), News::Broken(_)), "not asked for");
}

#[test]
fn assignments_that_clients_refuse_are_found() {
    let good = vec![locality("a", 1, &[1]), locality("b", u32::MAX - 1, &[2, 3])];
    assert_eq!(ads::problem(&assignment(good)), None);
    assert_eq!(ads::problem(&assignment(vec![])), None);
    let (mut nowhere, mut later, mut sick) =
        (locality("a", 1, &[1]), locality("a", 1, &[1]), locality("a", 1, &[1]));
    nowhere.locality = None;
    later.priority = 1;
    sick.lb_endpoints[0].health_status = 2;
    for (localities, problem) in [
        (vec![nowhere], "an endpoint without a locality"),
        (vec![locality("a", 1, &[1]), locality("a", 1, &[2])], "a locality twice"),
        (vec![locality("a", 1, &[1]), locality("b", 1, &[1])], "an address twice"),
        (vec![locality("a", 0, &[1])], "a locality without a weight"),
        (vec![locality("a", u32::MAX, &[1]), locality("b", 1, &[2])], "weights beyond 32 bits"),
        (vec![later], "a priority"),
        (vec![sick], "an unhealthy endpoint"),
    ] {
        assert_eq!(ads::problem(&assignment(localities)), Some(problem));
    }
}
