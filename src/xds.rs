//! The gRPC service `envoy.service.discovery.v3.AggregatedDiscoveryService` (xDS): its
//! method for the state of the world, for gRPC clients that balance without a proxy.
//!
//! In: HTTP/2 requests for `StreamAggregatedResources`, and the catalog. Out: responses
//! whose bodies are the streams. A stream opens only once the catalog has been read, and
//! never ends after a response but with its connection or the balancer: Go would come back
//! at once, and again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use lookaside_http2::{GracefulClose, Incoming};
use prost::Message;
use tonic::Status;

use crate::catalog::Catalog;
use crate::clock;
use crate::model::{ClientKind, Zone};
use crate::streams::body::{Conversation, StreamBody};
use crate::streams::demand::Demands;
use crate::streams::messages::{Messages, first_message};
use crate::streams::response;
use crate::telemetry::{CountStreams, Counters, ListClients, XdsCounters};
use crate::warning_limit::WarningLimit;

mod assignment;
mod assignments;
pub mod bootstrap;
mod clients;
mod localities;
mod resources;
mod responses;
mod session;
mod stream;
mod watches;

use clients::{ClientRow, Clients, Peer};
use resources::Kind;
pub(crate) use stream::XdsStream;
use watches::Watches;

/// The protocol's messages.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/xds.rs"));
}

/// The service's full name.
pub const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
/// The path of its method for the state of the world.
pub const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// The protocol's descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xds.bin"));

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Xds(Arc<Shared>);

struct Shared {
    catalog: Catalog,
    watches: Arc<Watches>,
    clients: Arc<Clients>,
    counters: Arc<Counters>,
    refusal_warnings: Mutex<WarningLimit>,
}

/// How long a client may take to send its first request. Clients send it at once.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long a stream waits until the registry has been read, before it is refused. A stream
/// that is refused makes clients fail calls, and some never release calls that wait. After
/// 15 seconds, clients take a name for one that does not exist.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// How often stalled clients are looked for: often enough, because they have a minute.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// How often the memory of superseded assignments is checked.
const MEMORY_CHECK_EVERY: Duration = Duration::from_millis(500);
/// How many bytes of assignments may be in memory before clients that do not read have to
/// leave.
const ASSIGNMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The least time between two log lines about refusals. Thousands of clients refuse the same
/// response at once.
const REFUSALS_EVERY: Duration = Duration::from_secs(10);
/// A longer zone, in bytes, is ignored.
const ZONE_MAX: usize = 255;

impl Xds {
    /// Makes the service on top of a catalog. Names in `zone` mean services. Its clients
    /// count among those of `demands`.
    #[must_use]
    pub fn new(
        zone: Zone,
        catalog: Catalog,
        demands: Arc<Demands>,
        counters: Arc<Counters>,
    ) -> Self {
        let watches = Watches::new(zone, catalog.clone(), demands, counters.clone());
        let refusal_warnings = Mutex::new(WarningLimit::every(REFUSALS_EVERY));
        let clients = Arc::default();
        Self(Arc::new(Shared { catalog, watches, clients, counters, refusal_warnings }))
    }

    /// Returns a function that lists the names on the open streams.
    #[must_use]
    pub fn clients(&self) -> ListClients {
        let clients = self.0.clients.clone();
        Arc::new(move || clients.view())
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
        peer: SocketAddr,
        close: Arc<GracefulClose>,
    ) -> Response<Option<Box<StreamBody<XdsStream>>>> {
        let opened = tokio::time::Instant::now().into_std();
        let (parts, mut body) = request.into_parts();
        let mut messages = Messages::default();
        match self.open(&mut body, &mut messages, &parts.headers, peer, close, opened).await {
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

    async fn open(
        &self,
        body: &mut Incoming,
        messages: &mut Messages,
        headers: &HeaderMap,
        peer: SocketAddr,
        close: Arc<GracefulClose>,
        opened: Instant,
    ) -> Result<(Bytes, ClientRow), Status> {
        let late = |_| Status::deadline_exceeded("the first request did not come within 5 seconds");
        let first = tokio::time::timeout(REQUEST_WITHIN, first_message(body, messages)).await;
        let first = first.map_err(late)??;
        let mut status = self.0.catalog.watch_status();
        let read = status.wait_for(|status| status.synced);
        if tokio::time::timeout(READ_WITHIN, read).await.is_err() {
            return Err(Status::unavailable("the registry has not been read yet"));
        }
        let peer = self.peer(first.clone(), headers, peer)?;
        Ok((first, self.0.clients.register(peer, close, opened)))
    }

    fn peer(&self, first: Bytes, headers: &HeaderMap, addr: SocketAddr) -> Result<Peer, Status> {
        let request = pb::envoy::service::discovery::v3::DiscoveryRequest::decode(first);
        let request = request.map_err(|error| {
            Status::invalid_argument(format!("the first request cannot be read: {error}"))
        })?;
        let node = request.node.unwrap_or_default();
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
        Ok(Peer { addr, user_agent: texts.share_user_agent(&agent), kind, zone })
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
