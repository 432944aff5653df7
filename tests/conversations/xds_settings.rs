//! Tests what settings change in the listeners and clusters of xDS clients, in the published
//! definitions of the protocol.
//!
//! In: settings. Out: listeners and clusters, whose fields have the right numbers and types.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use envoy_types::pb::envoy::config::route::v3::{RouteAction, route};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies as policies;
use envoy_types::pb::google::protobuf::{Duration, UInt32Value};
use lookaside::settings::WhenEmpty;
use policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use policies::ring_hash::v3::{RingHash, ring_hash::HashFunction};
use policies::round_robin::v3::RoundRobin;
use policies::wrr_locality::v3::WrrLocality;
use prost::Name;

use super::wire::Balanced;
use super::xds::{Client, read};

/// A client that has all resources of a name, and what it was sent last.
struct World {
    balanced: Balanced,
    client: Client,
    nonces: [String; 3],
}

impl World {
    async fn start(settings: &str) -> Self {
        let mut balanced = Balanced::start(WhenEmpty::Wait).await;
        balanced.settle(settings).await;
        balanced.reset(&["hello 1 10.0.0.1:80 weight=3", "hello 2 10.0.0.2:81"]).await;
        let client = Client::open(&balanced).await;
        Self { balanced, client, nonces: [String::new(), String::new(), String::new()] }
    }

    async fn listener(&mut self) -> RouteAction {
        let listener: Listener = self.next(0).await;
        let manager = listener.api_listener.as_ref().unwrap().api_listener.as_ref();
        let manager: HttpConnectionManager = read(manager);
        let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
        match routes.virtual_hosts[0].routes[0].action.clone() {
            Some(route::Action::Route(action)) => action,
            other => panic!("{other:?}"),
        }
    }

    async fn cluster(&mut self) -> Cluster {
        self.next(1).await
    }

    async fn assignment(&mut self) -> ClusterLoadAssignment {
        self.next(2).await
    }

    /// Accepts the last response of a type, and returns the next.
    async fn next<M: Name + Default>(&mut self, kind: usize) -> M {
        self.client.ask::<M>(&["hello"], &self.nonces[kind]);
        let (response, mut all) = self.client.next::<M>().await;
        self.nonces[kind] = response.nonce;
        all.remove(0)
    }

    /// Accepts the last response of a type.
    fn accept<M: Name + Default>(&mut self, kind: usize) {
        self.client.ask::<M>(&["hello"], &self.nonces[kind]);
    }
}

fn policy<M: Name + Default>(policy: &LoadBalancingPolicy, at: usize) -> M {
    let extension = policy.policies[at].typed_extension_config.as_ref().unwrap();
    read(extension.typed_config.as_ref())
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

#[tokio::test]
async fn a_route_has_a_timeout_and_retries() {
    let mut world = World::start(
        "[service.hello]\ntimeout = '2s'\n\
         retry = { on = 'unavailable, cancelled', times = 3, backoff = '20ms' }\n",
    )
    .await;
    let route = world.listener().await;
    let longest = route.max_stream_duration.unwrap();
    assert_eq!((longest.max_stream_duration, longest.grpc_timeout_header_max), (seconds(2), None));
    let retry = route.retry_policy.unwrap();
    assert_eq!((&*retry.retry_on, retry.num_retries), ("cancelled,unavailable", number(3)));
    let pause = retry.retry_back_off.unwrap();
    let milliseconds = |n: i32| Some(Duration { seconds: 0, nanos: n * 1_000_000 });
    assert_eq!((pause.base_interval, pause.max_interval), (milliseconds(20), milliseconds(200)));
    assert_eq!(route.hash_policy, []);
}

#[tokio::test]
async fn a_cluster_has_limits() {
    let mut world = World::start(
        "[service.hello]\ncircuit-breaking.requests = 7\nxds-reports = 'on'\n\
         outlier-detection = { kind = 'failure-percentage', interval = '2s', ejection = '3s',\
         most = 40, threshold = 60, backends = 4, requests = 5 }\n",
    )
    .await;
    let cluster = world.cluster().await;
    let [threshold] = &cluster.circuit_breakers.as_ref().unwrap().thresholds[..] else { panic!() };
    assert_eq!((threshold.max_requests, threshold.priority), (number(7), 0));
    let found = cluster.outlier_detection.unwrap();
    assert_eq!((found.interval, found.base_ejection_time), (seconds(2), seconds(3)));
    assert_eq!((found.max_ejection_time, found.max_ejection_percent), (seconds(30), number(40)));
    assert_eq!((found.enforcing_success_rate, found.success_rate_minimum_hosts), (number(0), None));
    assert_eq!(found.enforcing_failure_percentage, number(100));
    assert_eq!(found.failure_percentage_threshold, number(60));
    assert_eq!(found.failure_percentage_minimum_hosts, number(4));
    assert_eq!(found.failure_percentage_request_volume, number(5));
    let source = cluster.lrs_server.unwrap().config_source_specifier.unwrap();
    assert!(matches!(source, ConfigSourceSpecifier::Self_(_)), "{source:?}");
    assert_eq!(cluster.load_balancing_policy, None);
    let by_rate =
        "[service.hello]\noutlier-detection = { kind = 'success-rate', deviation = 1000 }";
    world.accept::<Cluster>(1);
    world.assignment().await;
    world.accept::<ClusterLoadAssignment>(2);
    world.balanced.settle(by_rate).await;
    let found: Cluster = world.next(1).await;
    assert_eq!((found.lrs_server, found.circuit_breakers), (None, None));
    let found = found.outlier_detection.unwrap();
    assert_eq!(
        (found.enforcing_success_rate, found.success_rate_stdev_factor),
        (number(100), number(1_000))
    );
    assert_eq!(
        (found.success_rate_minimum_hosts, found.success_rate_request_volume),
        (number(5), number(50))
    );
    assert_eq!(
        (found.enforcing_failure_percentage, found.failure_percentage_threshold),
        (number(0), None)
    );
}

/// A client multiplies the weights of a locality and of its endpoints, so each has its own.
#[tokio::test]
async fn hashed_calls_have_a_ring_of_weighted_backends() {
    let settings = "[service.hello]\nlb-policy = { kind = 'ring-hash', header = 'User-ID' }\n";
    let mut world = World::start(settings).await;
    let route = world.listener().await;
    let [hash] = &route.hash_policy[..] else { panic!("{route:?}") };
    let Some(PolicySpecifier::Header(header)) = &hash.policy_specifier else { panic!("{hash:?}") };
    assert_eq!(header.header_name, "user-id");
    let cluster = world.cluster().await;
    let ring: RingHash = policy(&cluster.load_balancing_policy.unwrap(), 0);
    assert_eq!(ring.hash_function, i32::from(HashFunction::XxHash));
    // Clients that do not know the field get round robin: tonic-xds refuses a ring.
    assert_eq!(cluster.lb_policy, 0);
    world.assignment().await;
    world.accept::<ClusterLoadAssignment>(2);
    let many: Vec<_> = (1..=200).map(|n| format!("hello {n} 10.0.0.{n}:80 weight=2")).collect();
    world.balanced.reset(&many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let all: ClusterLoadAssignment = world.next(2).await;
    assert_eq!(all.endpoints.len(), 200);
    assert!(all.endpoints.iter().all(|one| one.lb_endpoints.len() == 1));
}

/// Clients weigh backends only within a locality, so these share one.
#[tokio::test]
async fn clients_weigh_the_backends_of_one_locality() {
    let settings = |interval: &str| {
        format!("[service.hello]\nlb-policy = {{ kind = 'weighted', interval = '{interval}' }}\n")
    };
    let mut world = World::start(&settings("5s")).await;
    let cluster = world.cluster().await;
    let within = |cluster: &Cluster| {
        let localities: WrrLocality = policy(cluster.load_balancing_policy.as_ref().unwrap(), 0);
        localities.endpoint_picking_policy.unwrap()
    };
    let weighted: ClientSideWeightedRoundRobin = policy(&within(&cluster), 0);
    assert!(weighted.enable_oob_load_report.unwrap().value);
    assert_eq!(weighted.oob_reporting_period, seconds(5));
    let RoundRobin { .. } = policy(&within(&cluster), 1);
    let assignment = world.assignment().await;
    let [all] = &assignment.endpoints[..] else { panic!("{assignment:?}") };
    assert_eq!((all.lb_endpoints.len(), all.load_balancing_weight), (2, number(4)));
    world.accept::<Cluster>(1);
    world.accept::<ClusterLoadAssignment>(2);
    world.balanced.settle(&settings("0s")).await;
    let cluster = world.cluster().await;
    let weighted: ClientSideWeightedRoundRobin = policy(&within(&cluster), 0);
    assert_eq!((weighted.enable_oob_load_report, weighted.oob_reporting_period), (None, None));
}

/// A change reaches a client that has everything, and only the resource that it changes.
#[tokio::test]
async fn a_change_of_settings_is_sent_where_it_matters() {
    let mut world = World::start("").await;
    assert_eq!(world.listener().await.max_stream_duration, None);
    world.cluster().await;
    world.assignment().await;
    world.accept::<Listener>(0);
    world.accept::<Cluster>(1);
    world.accept::<ClusterLoadAssignment>(2);
    world.balanced.settle("[service.hello]\nguard = 3\n").await;
    assert!(world.client.is_silent().await);
    world.balanced.settle("[service.hello]\ntimeout = '1m'\n").await;
    let route = world.listener().await;
    assert_eq!(route.max_stream_duration.unwrap().max_stream_duration, seconds(60));
    world.accept::<Listener>(0);
    assert!(world.client.is_silent().await, "cluster and endpoints stay");
    // A service that loses all backends keeps the settings of its name.
    world.balanced.reset(&[]).await;
    assert_eq!(world.assignment().await.endpoints, []);
    world.accept::<ClusterLoadAssignment>(2);
    assert!(world.client.is_silent().await);
    world.balanced.settle("").await;
    assert_eq!(world.listener().await.max_stream_duration, None);
}
