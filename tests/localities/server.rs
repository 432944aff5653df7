//! An xDS server that sends the backends of one service in as many localities as wanted.
//!
//! In: [`Localities`]. Out: listener, cluster and endpoints of every name, to every client;
//! endpoints again with each change. It counts what clients acknowledge.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ConfigSource, Locality, SocketAddress, address,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action,
    route_match,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use prost::Name;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// The backends of the service: `backends` of them, at addresses from `host` on, evenly in
/// `localities`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Localities {
    pub(crate) backends: usize,
    pub(crate) localities: usize,
    pub(crate) port: u16,
    /// The weight of the first locality; that of each other is 1.
    pub(crate) first_weight: u32,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    newest: watch::Sender<(u64, Localities)>,
    acknowledged: Arc<AtomicU64>,
    _runtime: Runtime,
}

#[derive(Clone)]
struct Service {
    newest: watch::Receiver<(u64, Localities)>,
    acknowledged: Arc<AtomicU64>,
}

type Responses<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    pub(crate) fn start(localities: Localities) -> Self {
        let (newest, receiver) = watch::channel((1, localities));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("loopback has a free port");
        let addr = listener.local_addr().expect("it is bound");
        let service = Service { newest: receiver, acknowledged: acknowledged.clone() };
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(server);
        Self { addr, newest, acknowledged, _runtime: runtime }
    }

    /// Sends other endpoints, and returns their number.
    pub(crate) fn change(&self, localities: Localities) -> u64 {
        let version = self.newest.borrow().0 + 1;
        self.newest.send_replace((version, localities));
        version
    }

    /// Returns the newest number that a client has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (responses, receiver) = mpsc::channel(4);
        tokio::spawn(self.clone().converse(request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("no deltas"))
    }
}

impl Service {
    async fn converse(
        mut self,
        mut requests: Streaming<DiscoveryRequest>,
        responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    ) {
        let mut wanted: HashMap<String, Vec<String>> = HashMap::new();
        loop {
            let kind = tokio::select! {
                request = requests.message() => {
                    let Ok(Some(request)) = request else { return };
                    if let Some(refusal) = request.error_detail {
                        panic!("the client refuses a response: {}", refusal.message);
                    }
                    let names = wanted.entry(request.type_url.clone()).or_default();
                    if *names == request.resource_names {
                        if request.type_url == ClusterLoadAssignment::type_url() {
                            let version = request.version_info.parse().unwrap_or(0);
                            self.acknowledged.fetch_max(version, Ordering::SeqCst);
                        }
                        continue;
                    }
                    *names = request.resource_names;
                    request.type_url
                }
                changed = self.newest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    ClusterLoadAssignment::type_url()
                }
            };
            let names = wanted.get(&kind).map(Vec::as_slice).unwrap_or_default();
            if names.is_empty() {
                continue;
            }
            let (version, localities) = *self.newest.borrow_and_update();
            let resource = |name: &String| resource(&kind, name, &localities);
            let response = DiscoveryResponse {
                version_info: version.to_string(),
                resources: names.iter().map(resource).collect(),
                type_url: kind.clone(),
                nonce: version.to_string(),
                ..Default::default()
            };
            if responses.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

fn resource(kind: &str, name: &str, localities: &Localities) -> Any {
    if kind == Listener::type_url() {
        any(&listener(name))
    } else if kind == Cluster::type_url() {
        any(&cluster(name))
    } else {
        let one = Localities { backends: 1, localities: 1, ..*localities };
        let localities = if name == super::WARM { one } else { *localities };
        any(&localities.assignment(name))
    }
}

fn listener(name: &str) -> Listener {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(name.to_owned())),
        ..Default::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
            ..Default::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    let host = VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    };
    let routes = RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![host],
        ..Default::default()
    };
    let router = HttpFilter {
        name: "router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..Default::default()
    };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![router],
        ..Default::default()
    };
    let api_listener = Some(ApiListener { api_listener: Some(any(&manager)) });
    Listener { name: name.to_owned(), api_listener, ..Default::default() }
}

fn cluster(name: &str) -> Cluster {
    let source = ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    let source = ConfigSource { config_source_specifier: Some(source), ..Default::default() };
    let eds = EdsClusterConfig { eds_config: Some(source), service_name: name.to_owned() };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(eds),
        ..Default::default()
    }
}

impl Localities {
    fn assignment(&self, name: &str) -> ClusterLoadAssignment {
        // The backends of a locality are not neighbours, as with weights by chance.
        let locality = |at: usize| LocalityLbEndpoints {
            locality: Some(Locality {
                sub_zone: format!("locality-{at:05}"),
                ..Default::default()
            }),
            lb_endpoints: (at..self.backends)
                .step_by(self.localities)
                .map(|backend| endpoint(host(backend), self.port))
                .collect(),
            load_balancing_weight: Some(UInt32Value {
                value: if at == 0 { self.first_weight } else { 1 },
            }),
            ..Default::default()
        };
        ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: (0..self.localities).map(locality).collect(),
            ..Default::default()
        }
    }
}

/// Returns the address of a backend.
pub(crate) fn host(backend: usize) -> String {
    format!("127.100.{}.{}", backend / 250, backend % 250 + 1)
}

fn endpoint(host: String, port: u16) -> LbEndpoint {
    let socket = SocketAddress {
        address: host,
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    let endpoint = Endpoint { address: Some(address), ..Default::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() }
}

fn any<M: Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}
