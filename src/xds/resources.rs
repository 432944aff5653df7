//! The listener and the cluster of a name, and the types of resources.
//!
//! In: a name as a client asked for it, and the settings of the service that it means. Out:
//! resources as bytes. Pure. All resources of a name have that name, so each can be made
//! from its name and its settings: a cluster never waits for a listener, and a name that
//! nobody registered is answered like any other. It never makes a resource that one of
//! gRPC's clients refuses.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::Any;

use crate::model::ClientKind;
use crate::policy::hash;
use crate::settings::{
    LbKind, OutlierKind, REQUESTS_DEFAULT, RetrySettings, ServiceSettings, XdsSettings,
};

use super::pb::envoy::config::cluster::v3::Cluster;
use super::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use super::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use super::pb::envoy::config::core::v3::{AggregatedConfigSource, ConfigSource, SelfConfigSource};
use super::pb::envoy::config::listener::v3::{ApiListener, Listener};
use super::pb::envoy::config::route::v3::retry_policy::RetryBackOff;
use super::pb::envoy::config::route::v3::route_action::hash_policy::{Header, PolicySpecifier};
use super::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy, MaxStreamDuration,
};
use super::pb::envoy::config::route::v3::{
    RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
    route_match,
};
use super::pb::envoy::extensions::filters::http::router::v3::Router;
use super::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
};

mod balancing;

pub(super) use balancing::time;

const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
/// How much too early C-core may end a call: the time between two clocks that it takes for
/// one, of which one counts whole seconds.
const CORE_EARLY: Duration = Duration::from_secs(2);
/// The beginning of every type.
const URL: &str = "type.googleapis.com/";
/// The beginning of a name with an authority: `xdstp://AUTHORITY/TYPE/NAME?PARAMETERS`.
const AUTHORITY: &str = "xdstp://";

/// A listener or a cluster as it is sent to all clients of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// The encoded `Any`.
    pub(super) bytes: Bytes,
    /// That of [`version`].
    pub(super) version: u64,
}

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

impl Resource {
    /// Encodes the listener or the cluster of a name.
    pub(super) fn new(kind: Kind, name: &str, settings: &ServiceSettings) -> Self {
        let any = resource(kind, name, settings);
        Self { bytes: any.encode_to_vec().into(), version: version(&any) }
    }
}

/// Returns whether clients report the calls of a service. grpc-java counts calls under way only
/// while it reports them, so a limit of these needs reports.
pub(super) fn reports(settings: &ServiceSettings) -> bool {
    let wanted = settings.xds.reports || settings.xds.requests != REQUESTS_DEFAULT;
    wanted && !settings.report_interval.is_zero()
}

/// Returns the settings as a client of this kind must be told them. C-core ends calls one to
/// two seconds before the time that it is told, and so all calls at once if it is told less.
/// In grpc-java 1.85.1, outlier detection makes calls wait for ever that choose a backend while it
/// leaves, so Java has none.
pub(super) fn for_client(
    settings: &Arc<ServiceSettings>,
    client: ClientKind,
) -> Arc<ServiceSettings> {
    let early = client == ClientKind::Core && !settings.xds.timeout.is_zero();
    let loses = client == ClientKind::Java && settings.xds.outliers.kind != OutlierKind::Off;
    if !early && !loses {
        return settings.clone();
    }
    let mut settings = (**settings).clone();
    if early {
        settings.xds.timeout = settings.xds.timeout.saturating_add(CORE_EARLY);
    }
    if loses {
        settings.xds.outliers.kind = OutlierKind::Off;
    }
    Arc::new(settings)
}

/// Returns the name of the resource of another type that belongs to a name. The names of a
/// service's resources are equal, but for those with an authority, which have their type in
/// them.
pub(super) fn name_of(kind: Kind, name: &str) -> Cow<'_, str> {
    let Some((authority, rest)) =
        name.strip_prefix(AUTHORITY).and_then(|rest| rest.split_once('/'))
    else {
        return name.into();
    };
    let rest = rest.split_once('/').map_or(rest, |(_, rest)| rest);
    let kind = kind.url().strip_prefix(URL).unwrap_or_default();
    format!("{AUTHORITY}{authority}/{kind}/{rest}").into()
}

/// Returns the name without an authority, a type and parameters. It is still encoded with
/// percent signs.
pub(super) fn plain_name(name: &str) -> &str {
    let Some(rest) = name.strip_prefix(AUTHORITY) else { return name };
    let rest = rest.splitn(3, '/').nth(2).unwrap_or_default();
    rest.split_once('?').map_or(rest, |(name, _)| name)
}

/// Returns the name like [`plain_name`], without a copy where it is the same.
pub(super) fn plain_shared_name(name: &Arc<str>) -> Arc<str> {
    let plain = plain_name(name);
    if plain.len() == name.len() { name.clone() } else { plain.into() }
}

/// Returns the listener or the cluster of a name.
pub(super) fn resource(kind: Kind, name: &str, settings: &ServiceSettings) -> Any {
    match kind {
        Kind::Cluster => cluster(name, settings),
        Kind::Listener | Kind::Endpoints => listener(name, &settings.xds),
    }
}

/// Returns a hash of a resource: equal on all replicas that send the same.
pub(super) fn version(resource: &Any) -> u64 {
    hash::hash(&resource.value)
}

/// Returns the listener of a name: every call goes to the cluster of the same name.
///
/// The router is the only filter; without it, Go, Java and C-core refuse the listener. The
/// route is in the listener, which saves clients a round trip. Its own names are short, because
/// the listeners of ten thousand names must fit into one response.
fn listener(name: &str, settings: &XdsSettings) -> Any {
    let cluster = name_of(Kind::Cluster, name).into_owned();
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        retry_policy: retry(&settings.retry),
        hash_policy: hashed_by(settings),
        max_stream_duration: (!settings.timeout.is_zero())
            .then(|| MaxStreamDuration { max_stream_duration: Some(time(settings.timeout)) }),
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
        }),
        action: Some(route::Action::Route(action)),
    };
    let host =
        VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], routes: vec![route] };
    let routes = RouteConfiguration { name: "all".to_owned(), virtual_hosts: vec![host] };
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

fn retry(retry: &RetrySettings) -> Option<RetryPolicy> {
    let back_off = RetryBackOff {
        base_interval: Some(time(retry.backoff)),
        max_interval: Some(time(retry.backoff.saturating_mul(10))),
    };
    (!retry.on.is_empty()).then(|| RetryPolicy {
        retry_on: retry.on.text(","),
        num_retries: Some(retry.times),
        retry_back_off: Some(back_off),
    })
}

fn hashed_by(settings: &XdsSettings) -> Vec<HashPolicy> {
    let hashes = settings.balancing.kind == LbKind::RingHash;
    let header = settings.balancing.header.as_ref().filter(|_| hashes);
    let policy = header.map(|name| HashPolicy {
        policy_specifier: Some(PolicySpecifier::Header(Header {
            header_name: (**name).to_owned(),
        })),
    });
    policy.into_iter().collect()
}

/// Returns the cluster of a name: its backends are a resource of the same name on the same
/// stream.
fn cluster(name: &str, settings: &ServiceSettings) -> Any {
    let source = |specifier| ConfigSource { config_source_specifier: Some(specifier) };
    let itself = || source(ConfigSourceSpecifier::Self_(SelfConfigSource {}));
    let cluster = Cluster {
        name: name.to_owned(),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(source(ConfigSourceSpecifier::Ads(AggregatedConfigSource {}))),
            service_name: name_of(Kind::Endpoints, name).into_owned(),
        }),
        lb_policy: LbPolicy::RoundRobin.into(),
        circuit_breakers: balancing::circuit_breakers(&settings.xds),
        outlier_detection: balancing::outlier_detection(&settings.xds.outliers),
        load_balancing_policy: balancing::policy(&settings.xds.balancing),
        lrs_server: reports(settings).then(itself),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
    };
    any(Kind::Cluster.url(), &cluster)
}

fn any(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_a_name_with_an_authority_have_their_types_in_their_names() {
        let listener = "xdstp://auth/envoy.config.listener.v3.Listener/dev%2Fgame:80?a=b";
        let cluster = "xdstp://auth/envoy.config.cluster.v3.Cluster/dev%2Fgame:80?a=b";
        assert_eq!(name_of(Kind::Cluster, listener), cluster);
        assert_eq!(name_of(Kind::Listener, cluster), listener);
        assert_eq!(plain_name(listener), "dev%2Fgame:80");
        assert_eq!(name_of(Kind::Cluster, "dev/game"), "dev/game");
        for odd in ["xdstp://", "xdstp://a", "xdstp://a/b", "xdstp://a//?"] {
            assert_eq!(plain_name(odd), "", "{odd}");
            let _ = name_of(Kind::Cluster, odd);
        }
    }

    #[test]
    fn c_core_is_told_a_longer_time() {
        let mut settings = ServiceSettings::DEFAULT;
        let told = |settings: &ServiceSettings, client| {
            for_client(&Arc::new(settings.clone()), client).xds.timeout
        };
        assert_eq!(told(&settings, ClientKind::Core), Duration::ZERO);
        settings.xds.timeout = Duration::from_millis(500);
        assert_eq!(told(&settings, ClientKind::Core), Duration::from_millis(2_500));
        assert_eq!(told(&settings, ClientKind::Go), Duration::from_millis(500));
    }

    #[test]
    fn java_is_told_of_no_outlier_detection() {
        let mut settings = ServiceSettings::DEFAULT;
        settings.xds.outliers.kind = OutlierKind::SuccessRate;
        let settings = Arc::new(settings);
        for client in [ClientKind::Java, ClientKind::Go] {
            let told = for_client(&settings, client).xds.outliers.kind;
            assert_eq!(told == OutlierKind::Off, client == ClientKind::Java);
        }
    }

    /// A setting that is not used changes nothing, so that clients are sent nothing.
    #[test]
    fn settings_that_do_not_matter_are_not_sent() {
        let plain = ServiceSettings::DEFAULT;
        let mut other = plain.clone();
        other.xds.retry.times = 4;
        other.xds.outliers.most = 99;
        other.xds.balancing.header = Some("user-id".into());
        other.xds.reports = true;
        other.report_interval = Duration::ZERO;
        for kind in [Kind::Listener, Kind::Cluster] {
            assert_eq!(resource(kind, "a", &plain), resource(kind, "a", &other));
        }
    }
}
