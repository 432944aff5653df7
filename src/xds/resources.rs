//! The listener and the cluster of a name, and the types of resources.
//!
//! In: a name as a client asked for it. Out: resources as bytes. Pure. All resources of a
//! name have that name, so each can be made from its name alone: a cluster never waits
//! for a listener, and a name that nobody registered is answered like any other. It never
//! makes a resource that one of gRPC's clients refuses.

use prost::Message;
use prost_types::Any;

use super::pb::envoy::config::cluster::v3::Cluster;
use super::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use super::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use super::pb::envoy::config::core::v3::{AggregatedConfigSource, ConfigSource};
use super::pb::envoy::config::listener::v3::{ApiListener, Listener};
use super::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action,
    route_match,
};
use super::pb::envoy::extensions::filters::http::router::v3::Router;
use super::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
};

const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// A type of resource that this server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// What a client asks for first: the name in its target.
    Listener,
    /// How the client balances.
    Cluster,
    /// The backends.
    Endpoints,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Listener, Self::Cluster, Self::Endpoints];

    /// Returns the type of a URL; `None` if this server has no such resources.
    pub(super) fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// Returns the URL that stands for the type in requests and responses.
    pub(super) fn url(self) -> &'static str {
        match self {
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        }
    }

    /// Returns the word that logs and metrics show.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
        }
    }
}

/// Returns the listener of a name: every call goes to the cluster of the same name.
///
/// The router is the only filter; without it, Go, Java and C-core refuse the listener. The
/// route is in the listener, which saves clients a round trip.
pub(super) fn listener(name: &str) -> Any {
    let cluster = route_action::ClusterSpecifier::Cluster(name.to_owned());
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
        }),
        action: Some(route::Action::Route(RouteAction { cluster_specifier: Some(cluster) })),
    };
    let host =
        VirtualHost { name: name.to_owned(), domains: vec!["*".to_owned()], routes: vec![route] };
    let routes = RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host] };
    let router = HttpFilter {
        name: "router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(ROUTER, &Router {}))),
    };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![router],
    };
    let listener = Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(any(MANAGER, &manager)) }),
    };
    any(Kind::Listener.url(), &listener)
}

/// Returns the cluster of a name: its backends are a resource of the same name on the same
/// stream.
pub(super) fn cluster(name: &str) -> Any {
    let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    let cluster = Cluster {
        name: name.to_owned(),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ConfigSource { config_source_specifier: Some(ads) }),
            service_name: name.to_owned(),
        }),
        lb_policy: LbPolicy::RoundRobin.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
    };
    any(Kind::Cluster.url(), &cluster)
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}
