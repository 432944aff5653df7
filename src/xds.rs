//! The gRPC services `envoy.service.discovery.v3.AggregatedDiscoveryService` (xDS): its
//! method for the state of the world, for gRPC clients that balance without a proxy;
//! `envoy.service.endpoint.v3.EndpointDiscoveryService` (EDS), by which Envoy gets endpoints
//! alone; and `envoy.service.load_stats.v3.LoadReportingService` (LRS), by which clients report
//! their calls.
//!
//! In: HTTP/2 requests for `StreamAggregatedResources`, `StreamEndpoints` and
//! `StreamLoadStats`, and the catalog. Out: responses whose bodies are the streams. A stream opens only once the catalog has been read, and
//! never ends after a response but with its connection or the balancer: Go would come back
//! at once, and again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use lookaside_http2::{GracefulClose, Incoming};
use tonic::Status;

use crate::catalog::Catalog;
use crate::clock;
use crate::load::Ledger;
use crate::model::{ClientIdentity, ClientKind, Zone};
use crate::placements::Placements;
use crate::streams::body::{Conversation, StreamBody};
use crate::streams::demand::Demands;
use crate::streams::messages::{LONG_MAX, Messages, first_message};
use crate::streams::rates::Rates;
use crate::streams::response;
use crate::telemetry::{CountStreams, Counters, FindSent, ListClients, SentResources, XdsCounters};
use crate::warning_limit::WarningLimit;

mod assignment;
mod assignments;
pub mod bootstrap;
mod changes;
mod clients;
mod load_stream;
mod localities;
mod members;
mod name_room;
mod name_set;
mod reports;
mod request;
mod resources;
mod responses;
mod session;
mod shown;
mod stream;
mod watches;

use clients::{ClientRow, Clients, Peer};
pub(crate) use load_stream::LoadStream;
use members::Members;
use name_room::NameRooms;
use request::ReadRequest;
use resources::Kind;
pub(crate) use stream::XdsStream;
use watches::Watches;

/// The protocol's messages.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
#[allow(dead_code, reason = "responses are written in place, and only read by tests")]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/xds.rs"));
}

/// The service's full name.
pub const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
/// The path of its method for the state of the world.
pub const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// The full name of the service for endpoints alone.
pub const ENDPOINTS_SERVICE: &str = "envoy.service.endpoint.v3.EndpointDiscoveryService";
/// The path of its method for the state of the world. Its messages are those of [`PATH`].
pub const ENDPOINTS_PATH: &str =
    "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints";
/// The paths of the methods for deltas, which are not served.
pub const DELTA_PATHS: [&str; 2] = [
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
];
/// The full name of the service for load reports.
pub const LOAD_SERVICE: &str = "envoy.service.load_stats.v3.LoadReportingService";
/// The path of its one method.
pub const LOAD_PATH: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// The protocol's descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xds.bin"));

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Xds(Arc<Shared>);

struct Shared {
    catalog: Catalog,
    watches: Arc<Watches>,
    members: Arc<Members>,
    clients: Arc<Clients>,
    names: Arc<NameRooms>,
    counters: Arc<Counters>,
    refusal_warnings: Mutex<WarningLimit>,
}

/// How long a client may take to send its first request. Clients send it at once.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long a stream waits until the registry has been read, before it is refused. A stream
/// that is refused makes clients fail calls, and some never release calls that wait. After
/// 15 seconds, clients take a name for one that does not exist. Further requests are not read
/// meanwhile, and the connection resets a stream with a message that has not been read for ten
/// seconds: the client would get a code that means something else, and no reason.
const READ_WITHIN: Duration = Duration::from_secs(8);
/// How often stalled clients are looked for: often enough, because they have a minute.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// How often the memory of superseded assignments is checked.
const MEMORY_CHECK_EVERY: Duration = Duration::from_millis(500);
/// How many bytes of assignments may be in memory before clients that do not read have to
/// leave.
const ASSIGNMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often clients report where nothing says so: as by the default of the settings.
const REPORTS_EVERY: Duration = Duration::from_secs(10);
/// The least time between two log lines about refusals. Thousands of clients refuse the same
/// response at once.
const REFUSALS_EVERY: Duration = Duration::from_secs(10);
/// A longer zone, in bytes, is ignored.
const ZONE_MAX: usize = 255;

impl Xds {
    /// Makes the service on top of a catalog. Names in `zone` mean services. Its clients
    /// count among those of `demands`, `rates` and `placements`, and `ledger` sums up their calls.
    #[must_use]
    pub fn new(
        zone: Zone,
        catalog: Catalog,
        (demands, rates, placements): (Arc<Demands>, Arc<Rates>, Arc<Placements>),
        ledger: Arc<Ledger>,
        counters: Arc<Counters>,
    ) -> Self {
        let members = Members::new(demands, rates, placements, ledger);
        let (clients, names) = (Arc::default(), Arc::<NameRooms>::default());
        let watches = Watches::new(zone, catalog.clone(), members.clone(), &names, &counters);
        let refusal_warnings = Mutex::new(WarningLimit::every(REFUSALS_EVERY));
        let shared =
            Shared { catalog, watches, members, clients, names, counters, refusal_warnings };
        Self(Arc::new(shared))
    }

    /// Returns a function that lists the names on the open streams.
    #[must_use]
    pub fn clients(&self) -> ListClients {
        let clients = self.0.clients.clone();
        Arc::new(move || clients.view())
    }

    /// Returns a function that returns what a stream was sent last.
    #[must_use]
    pub fn sent(&self) -> FindSent<SentResources> {
        let Shared { clients, watches, .. } = &*self.0;
        let (clients, watches) = (clients.clone(), watches.clone());
        Arc::new(move |stream, wanted| clients.sent(stream, wanted, &watches))
    }

    /// Returns a function that counts the open streams.
    #[must_use]
    pub fn streams(&self) -> CountStreams {
        let clients = self.0.clients.clone();
        Arc::new(move || clients.len())
    }

    /// Ends the connections of clients that do not read: after a minute, or when all
    /// assignments take too much memory. Never returns.
    pub async fn sweep(self) {
        let Shared { clients, counters, .. } = &*self.0;
        let mut swept = clock::now();
        loop {
            tokio::time::sleep(MEMORY_CHECK_EVERY).await;
            let now = clock::now();
            let mut stalled = 0;
            if now.saturating_duration_since(swept) >= SWEEP_EVERY {
                swept = now;
                stalled += clients.sweep(now);
            }
            if counters.assignment_bytes.now() > ASSIGNMENT_BYTES_MAX {
                stalled += clients.free_memory(now);
            }
            counters.xds_streams_stalled.add(stalled);
            if stalled > 0 {
                tracing::info!(stalled, "xds clients do not read: connections closed");
            }
        }
    }

    /// Answers one request: waits for the client's first message and for the registry, then
    /// refuses it with a status alone, or answers with a stream. `close` is asked when the
    /// connection must end.
    pub(crate) async fn stream(
        &self,
        request: Request<Incoming>,
        client: ClientIdentity,
        close: Arc<GracefulClose>,
    ) -> Response<Option<Box<StreamBody<XdsStream>>>> {
        let opened = tokio::time::Instant::now().into_std();
        let (parts, mut body) = request.into_parts();
        let peer = client.addr;
        let mut messages = Messages::up_to(LONG_MAX);
        match self.open(&mut body, &mut messages, &parts.headers, client, close, opened).await {
            Ok((first, client)) => {
                self.0.counters.xds_streams.increment();
                let mut stream = XdsStream::new(client, self.0.clone());
                stream.take_message(first);
                let body = StreamBody::new(body, messages, stream);
                response(None).map(|()| Some(Box::new(body)))
            }
            Err(status) => {
                self.0.counters.xds_streams_refused.increment();
                tracing::debug!(%peer, code = ?status.code(), reason = status.message(), "xds stream refused");
                response(Some(&status)).map(|()| None)
            }
        }
    }

    /// Answers one request for a stream of deltas: there are none.
    pub(crate) fn no_deltas(&self) -> Response<()> {
        self.0.counters.xds_streams_refused.increment();
        response(Some(&Status::unimplemented(
            "deltas are not served: use api_type GRPC, which is the state of the world",
        )))
    }

    /// Answers one request for a stream of load reports, with the stream or a status.
    pub(crate) async fn load_stream(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Option<Box<StreamBody<LoadStream>>>> {
        let (mut body, mut messages) = (request.into_body(), Messages::up_to(LONG_MAX));
        match first_request(&mut body, &mut messages).await {
            Ok(first) => {
                let interval = self.0.members.interval(peer);
                let usual = || self.0.catalog.settings().for_canonical("").report_interval;
                let interval = interval.unwrap_or_else(usual);
                let interval = if interval.is_zero() { REPORTS_EVERY } else { interval };
                let mut stream = LoadStream::new(peer, self.0.clone(), interval);
                stream.take_message(first);
                let body = StreamBody::new(body, messages, stream);
                response(None).map(|()| Some(Box::new(body)))
            }
            Err(status) => {
                self.0.counters.xds_streams_refused.increment();
                tracing::debug!(%peer, code = ?status.code(), reason = status.message(), "xds load stream refused");
                response(Some(&status)).map(|()| None)
            }
        }
    }

    async fn open(
        &self,
        body: &mut Incoming,
        messages: &mut Messages,
        headers: &HeaderMap,
        client: ClientIdentity,
        close: Arc<GracefulClose>,
        opened: Instant,
    ) -> Result<(Bytes, ClientRow), Status> {
        let first = first_request(body, messages).await?;
        let mut status = self.0.catalog.watch_status();
        let read = status.wait_for(|status| status.synced);
        if tokio::time::timeout(READ_WITHIN, read).await.is_err() {
            return Err(Status::unavailable("the registry has not been read yet"));
        }
        let peer = self.peer(first.clone(), headers, client)?;
        Ok((first, self.0.clients.register(peer, close, opened)))
    }

    fn peer(
        &self,
        first: Bytes,
        headers: &HeaderMap,
        identity: ClientIdentity,
    ) -> Result<Peer, Status> {
        let request = ReadRequest::read(first);
        let unread = || Status::invalid_argument("the first request cannot be read");
        let node = request.ok_or_else(unread)?.rest.node.unwrap_or_default();
        let kind = ClientKind::from_xds_agent(&node.user_agent_name);
        let agent = match node.user_agent_name.as_str() {
            "" => headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()),
            _ => None,
        };
        let agent = agent.map(str::to_owned);
        let agent = agent
            .unwrap_or_else(|| format!("{} {}", node.user_agent_name, node.user_agent_version));
        let texts = &self.0.clients.texts;
        let zone = node.locality.map(|locality| locality.zone).unwrap_or_default();
        let zone = Some(zone).filter(|zone| (1..=ZONE_MAX).contains(&zone.len()));
        let zone = zone.map(|zone| texts.share(&zone));
        Ok(Peer { identity, user_agent: texts.share_user_agent(&agent), kind, zone })
    }
}

/// Waits for a client's first message, longer for a long one.
async fn first_request(body: &mut Incoming, messages: &mut Messages) -> Result<Bytes, Status> {
    let began = tokio::time::Instant::now();
    loop {
        let until = began + REQUEST_WITHIN + messages.extra_time();
        if let Ok(first) = tokio::time::timeout_at(until, first_message(body, messages)).await {
            return first;
        }
        if until == began + REQUEST_WITHIN + messages.extra_time() {
            let text = "the first request did not come within 5 seconds";
            return Err(Status::deadline_exceeded(text));
        }
    }
}

impl Shared {
    fn counters(&self, kind: Kind) -> &XdsCounters {
        match kind {
            Kind::Listener => &self.counters.xds_listeners,
            Kind::Cluster => &self.counters.xds_clusters,
            Kind::Endpoints => &self.counters.xds_endpoints,
        }
    }

    /// Logs that a client refuses a response, unless that was logged a short time ago.
    fn log_refusal(&self, peer: SocketAddr, kind: Kind, words: &str) {
        let mut warnings = self.refusal_warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let due = warnings.count(1, clock::now());
        drop(warnings);
        if let Some(times) = due {
            let kind = kind.as_str();
            tracing::warn!(%peer, kind, times, words, "xds client refuses a response");
        }
    }
}
