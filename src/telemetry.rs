//! Counters and views that the parts of the balancer fill and the admin server shows.
//!
//! In: increments from the drivers. Out: totals since the start.
//! It decides nothing and never waits. The parts that count and the parts that show need
//! not know each other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::facts::demand::Demand;
use crate::load::Calls;
use crate::model::{CertificateNames, Class, ClientKind, ServiceName, Subset};

pub mod audit;
mod denials;
mod sent;

pub use denials::{Denials, Denied, Protocol};
pub use sent::{
    FindSent, SentEndpoints, SentEntry, SentList, SentLocality, SentName, SentResource,
    SentResources, SentType, Told, WantedNames,
};

/// A total since the start.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A current number.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// Every total and every current number.
#[derive(Debug, Default)]
pub struct Counters {
    /// TCP connections accepted on the gRPC port.
    pub connections: Counter,
    /// Connections that are open on the gRPC port.
    pub connections_open: Gauge,
    /// Connections that ended before they spoke HTTP/2 (silent, or TLS failed).
    pub connections_failed: Counter,
    /// Connections closed at once because the limit was reached.
    pub connections_refused: Counter,
    /// Connections told to leave because others needed room.
    pub connections_replaced: Counter,
    /// Connections told to leave because of their age, or because their certificate ended.
    pub connections_ended: Counter,
    /// Connections told to leave because changed files refuse their client's certificate.
    pub connections_revoked: Counter,
    /// Connections asked to leave so that streams spread over balancers.
    pub connections_spread: Counter,
    /// Times when a connection could not be accepted (no descriptors left).
    pub accept_errors: Counter,
    /// BalanceLoad streams that got their first list.
    pub streams: Counter,
    /// BalanceLoad streams refused before their first list.
    pub streams_refused: Counter,
    /// BalanceLoad streams ended because their clients do not read.
    pub streams_stalled: Counter,
    /// Lists sent, including first ones.
    pub lists_sent: Counter,
    /// Lists not sent because the client already has an equal one.
    pub lists_suppressed: Counter,
    /// Lists encoded. Streams share an encoded list.
    pub lists_encoded: Counter,
    /// Lists that are kept: one per service and class of clients.
    pub list_classes: Gauge,
    /// Bytes of all encoded lists in memory.
    pub list_bytes: Gauge,
    /// Fallback responses sent.
    pub fallbacks_sent: Counter,
    /// Load reports read.
    pub reports: Counter,
    /// Load reports and other messages that were invalid.
    pub reports_rejected: Counter,
    /// xDS streams that were opened.
    pub xds_streams: Counter,
    /// xDS streams refused before their first response.
    pub xds_streams_refused: Counter,
    /// xDS streams ended because their clients do not read.
    pub xds_streams_stalled: Counter,
    /// xDS requests that could not be read, or are of a type that is not served.
    pub xds_requests_rejected: Counter,
    /// Names on xDS streams that get no backends, because there are too many.
    pub xds_names_refused: Counter,
    /// Responses on xDS streams, and what clients say of them.
    pub xds_listeners: XdsCounters,
    /// The same for clusters.
    pub xds_clusters: XdsCounters,
    /// The same for assignments.
    pub xds_endpoints: XdsCounters,
    /// Assignments encoded. Streams share an encoded assignment.
    pub assignments_encoded: Counter,
    /// Bytes of all encoded assignments in memory.
    pub assignment_bytes: Gauge,
    /// DNS questions answered.
    pub dns_answers: Counter,
    /// DNS questions refused, and messages that were no questions.
    pub dns_rejected: Counter,
    /// Times a secondary DNS server was sent the zone, or asked for it and had it.
    pub dns_transfers: Counter,
    /// Notices of a changed zone that no secondary DNS server acknowledged.
    pub dns_notices_failed: Counter,
    /// Records for CoreDNS that are to be in etcd.
    pub skydns_keys: Gauge,
    /// Times the state was saved, or was found saved already.
    pub states_saved: Counter,
    /// Times the state could not be saved.
    pub states_failed: Counter,
    /// Health checks that found their backend healthy.
    pub checks_healthy: Counter,
    /// Health checks whose backend said that it is not serving.
    pub checks_not_serving: Counter,
    /// Health checks without an answer, or with an error.
    pub checks_failed: Counter,
    /// Health checks that could not be made here, and count against no backend.
    pub checks_not_made: Counter,
    /// Connections that are kept so that backends can push their health.
    pub health_watches: Gauge,
    /// Reports of load that backends sent.
    pub load_reports: Counter,
    /// Reports of load without calls or without utilisation, which count for nothing.
    pub load_reports_empty: Counter,
    /// Times a backend did not report its load, or stopped.
    pub load_report_failures: Counter,
    /// Clients that were denied a service.
    pub denials: Denials,
    /// Certificates, keys and passwords that are read from files.
    pub credentials: Credentials,
    /// Requests that the admin address refused.
    pub admin_refused: AdminRefused,
}

/// Requests that the admin address refused, by reason.
#[derive(Debug, Default)]
pub struct AdminRefused {
    /// Without a token.
    pub no_token: Counter,
    /// With a token that is not known.
    pub unknown_token: Counter,
    /// With a reader's token, where an operator's is needed.
    pub not_operator: Counter,
}

/// The responses of one type of xDS resource.
#[derive(Debug, Default)]
pub struct XdsCounters {
    /// Responses sent.
    pub sent: Counter,
    /// Responses that clients accepted.
    pub accepted: Counter,
    /// Responses that clients refused.
    pub refused: Counter,
}

/// The credentials as they are now.
#[derive(Debug, Default)]
pub struct Credentials(Mutex<Vec<Credential>>);

/// A credential that is read from files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its use, in one word.
    pub used_for: &'static str,
    /// When the certificates in it expire, in seconds since 1970, each with its use.
    pub expiries: Vec<(&'static str, i64)>,
    /// Whether the newest files cannot be used, so that their former contents are.
    pub broken: bool,
    /// How often it was read again because the files changed.
    pub reloads: u64,
    /// How often changed files could not be used.
    pub failures: u64,
}

/// One BalanceLoad stream, or one name on an xDS stream, as it is shown to operators.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// The number of its stream among those of its protocol.
    pub stream: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The names in the client's certificate; `None` if it has none.
    pub certificate: Option<Arc<CertificateNames>>,
    /// The client's user agent.
    pub user_agent: Arc<str>,
    /// The gRPC implementation, by the user agent.
    pub kind: ClientKind,
    /// The name that the client asked for, as typed.
    pub name: Arc<str>,
    /// The name without what only xDS has around it: an authority, a type and parameters.
    pub target: Arc<str>,
    /// The zone in which the client is; `None` if it is unknown or does not matter.
    pub zone: Option<Arc<str>>,
    /// The subset of the service's backends that the client's list has; `None`: all.
    pub subset: Option<Subset>,
    /// The service that the name means now.
    pub service: Option<ServiceName>,
    /// What the newest response tells the client.
    pub told: Told,
    /// How many entries the client's list has.
    pub entries: usize,
    /// The registry's revision that brought the list.
    pub revision: i64,
    /// When the stream opened.
    pub opened: Instant,
    /// When the list was handed to the connection.
    pub pushed_at: Instant,
    /// The calls that the client has reported on this stream.
    pub calls: Calls,
    /// What only xDS streams have; `None` for a BalanceLoad stream.
    pub xds: Option<XdsView>,
}

/// What an xDS client was sent and what it said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XdsView {
    /// The zone in which the client says that it is.
    pub stated_zone: Option<Arc<str>>,
    /// The version of the newest assignment that was sent.
    pub sent: Option<u64>,
    /// The version of the newest assignment that the client accepted.
    pub accepted: Option<u64>,
    /// The client's own words about a response that it refused, until it accepts one of that
    /// type.
    pub refusal: Option<Arc<str>>,
}

impl ClientView {
    /// Returns the protocol of the stream.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.xds.is_some() { Protocol::Xds } else { Protocol::Grpclb }
    }
}

/// Returns every open stream.
pub type ListClients = Arc<dyn Fn() -> Vec<ClientView> + Send + Sync>;

/// Returns the number of open streams.
pub type CountStreams = Arc<dyn Fn() -> usize + Send + Sync>;

/// Returns how far over its share the most favoured backend of any list in use is: 0.05
/// means 5 % over.
pub type ExcessFn = Arc<dyn Fn() -> f32 + Send + Sync>;

/// Returns how many clients of a service there are in each zone, sorted by zone, and their
/// demand; `None` if the service has no zones or no clients. The zone `None` is unknown.
pub type DemandFn = Arc<dyn Fn(&ServiceName) -> Option<ZoneDemand> + Send + Sync>;

/// Returns how the clients of a service are placed on its cells, by their zone; empty if the
/// service has no cells or no clients.
pub type CellsFn = Arc<dyn Fn(&ServiceName) -> Vec<CellClients> + Send + Sync>;

/// Returns the backend of a key of a service, by the hash of its id; `None` if no open stream
/// has the key, or keys are not bounded. The class is that of all keys that are bounded with it.
pub type KeyBackendFn = Arc<dyn Fn(&ServiceName, &Class, &str) -> Option<u64> + Send + Sync>;

/// How the clients of a service in one zone are placed on its cells.
#[derive(Debug, Clone, PartialEq)]
pub struct CellClients {
    /// Their zone; `None` if it is unknown or does not matter.
    pub zone: Option<Arc<str>>,
    /// How many cells there are for them.
    pub cells: usize,
    /// How many clients there are.
    pub clients: usize,
    /// How many of them use more than one cell.
    pub wide: usize,
    /// The load of the hottest cell for its weight, as a multiple of the mean.
    pub hottest: f64,
}

/// The clients of a service by zone, as they are shown to operators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneDemand {
    /// How many clients there are, by zone.
    pub clients: Vec<(Option<Arc<str>>, usize)>,
    /// Their demand as it is now.
    pub demand: Demand,
}

impl Credentials {
    /// Replaces all credentials.
    pub fn set(&self, all: Vec<Credential>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Returns all credentials.
    #[must_use]
    pub fn all(&self) -> Vec<Credential> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `more`.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the total since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `more`.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Subtracts `less`.
    pub fn take(&self, less: usize) {
        self.0.fetch_sub(u64::try_from(less).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, now: usize) {
        self.0.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Subtracts one.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the current number.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
