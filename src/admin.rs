//! The admin HTTP server: liveness, readiness, metrics, JSON, dashboard.
//!
//! In: a bound listener, and the state of all parts. Out: answers to GET, and the
//! operator's decisions as marks in etcd, each for senders whose token allows it.
//! It decides nothing. A client's silence, garbage, slow reading or a panic of its
//! handler affects only its own connection. No client can shut out others, or delay the
//! shutdown for longer than `GRACE`.

use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Input};
use crate::load::Ledger;
use crate::marks::report::Report as MarksReport;
use crate::marks::{MarkWriter, Timestamp};
use crate::model::{BackendAddr, ServiceName, Zone};
use crate::policy::Decision;
use crate::readiness::Readiness;
use crate::replica::known::Replicas;
use crate::settings::source::Report;
use crate::telemetry::{CellsFn, Counters, DemandFn, ExcessFn, KeyBackendFn, ListClients};
use access::PEER;
use connection_slots::{ConnectionSlots, TrackedStream};
use listener::{Accepted, Duplex};

pub use access::Access;
pub use listener::{Address, Listener, SocketFile, Tls};
pub use sent::Sent;
pub use tokens::Tokens;

mod access;
mod answer_memory;
mod api;
mod audit;
mod balancers;
mod cells;
mod client_class;
mod client_marks;
mod connection_slots;
mod explain;
mod host;
pub mod json;
mod list_changes;
mod listener;
mod marks;
mod metrics;
mod pages;
mod query;
mod sent;
mod services;
mod settings;
mod shares;
mod tokens;
mod zones;

/// The state that is shown, and its sources.
#[derive(Clone)]
pub struct State {
    /// The services, the rejected keys, and the registry's status.
    pub catalog: Catalog,
    /// The zone in which services have names.
    pub zone: Zone,
    /// The totals of all parts.
    pub counters: Arc<Counters>,
    /// The sums of the calls that clients report.
    pub ledger: Arc<Ledger>,
    /// Returns the open streams of clients.
    pub clients: ListClients,
    /// Returns what one of them was sent.
    pub sent: Sent,
    /// Returns the bootstrap file of xDS clients.
    pub xds_bootstrap: XdsBootstrap,
    /// The conditions that are missing.
    pub readiness: Readiness,
    /// When the process started.
    pub started: Instant,
    /// Returns the `lb-token` of calls to a service's backend.
    pub tokens: fn(&ServiceName, BackendAddr) -> String,
    /// Returns how far over its share the most favoured backend of any list is.
    pub excess: ExcessFn,
    /// Returns the clients of a service by zone.
    pub demand: DemandFn,
    /// Returns how the clients of a service are placed on its cells.
    pub cells: CellsFn,
    /// Returns the backend of a key in use.
    pub key_backend: KeyBackendFn,
    /// Returns how many entries each pick of a decision has in one cycle.
    pub entries_per_pick: fn(&Decision) -> Vec<u32>,
    /// The program's version.
    pub version: &'static str,
    /// Takes the operator's releases and questions to the catalog.
    pub inputs: mpsc::Sender<Input>,
    /// The status of the sources of per-service settings.
    pub sources: watch::Receiver<Report>,
    /// The marks, and where new ones are written.
    pub marks: Marks,
    /// The names of this server, besides its IP addresses and `localhost`.
    pub hosts: Arc<[String]>,
    /// The tokens that let senders in.
    pub access: Access,
    /// The balancers that share etcd, this one included.
    pub replicas: watch::Receiver<Arc<Replicas>>,
}

/// Returns the bootstrap file of xDS clients, or what of the question does not fit together.
pub type XdsBootstrap = Arc<dyn Fn(XdsClients) -> Result<String, String> + Send + Sync>;

/// What a question for a bootstrap file says of the clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XdsClients {
    /// Where they reach the balancers; `None`: by the name that DNS gives them.
    pub server: Option<String>,
    /// The zone in which they run.
    pub zone: Option<String>,
    /// The PEM file of the authority that they trust.
    pub ca: Option<String>,
    /// The PEM file of their certificate.
    pub cert: Option<String>,
    /// The PEM file of its key.
    pub key: Option<String>,
    /// How often they read these files again.
    pub refresh: Option<String>,
}

/// The marks that this balancer knows.
#[derive(Clone)]
pub struct Marks {
    /// Writes marks; `None` without etcd.
    pub writer: Option<MarkWriter>,
    /// All marks, and the status of their source.
    pub report: watch::Receiver<MarksReport>,
    /// Returns the time of the wall clock.
    pub now: fn() -> Timestamp,
    /// Held while a drain is checked and set, so that drains do not overlap.
    pub drain_lock: Arc<Semaphore>,
}

/// The most connections. A scraper, some dashboards and a few commands need a handful.
/// One more takes the place of the connection that has been idle for longest.
const CONNECTIONS_MAX: usize = 256;
/// How long the head of a request may take, including the time before the next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may move no byte: an answer that is not read takes room from
/// others. Longer than a reader at a terminal pauses.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// The age at which a connection ends after its current request, so that clients that
/// only hold a connection cannot shut out others.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long that last request may take, at the end of a connection or of the server.
const GRACE: Duration = Duration::from_secs(3);
/// The longest head of a request, in bytes. Names have at most 255.
const HEAD_MAX: usize = 16 * 1024;
/// How long to wait before accepting again when no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers requests until `shutdown` is cancelled, then finishes open requests within
/// `GRACE`.
///
/// Connections live in this future, not in tasks of their own. So dropping it ends all of
/// them, and their number is known.
///
/// # Errors
/// None yet: a connection that cannot be accepted is logged and tried again.
pub async fn serve(
    listener: Listener,
    state: State,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let slots = ConnectionSlots::default();
    let service = TowerToHyperService::new(pages::router(Arc::new(state), slots.clone()));
    let mut connections = FuturesUnordered::new();
    let mut failing = false;
    loop {
        // Connections that are to end count until they have ended.
        let room = connections.len() < 2 * CONNECTIONS_MAX;
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(()) = connections.next() => continue,
            accepted = listener.accept(), if room => accepted,
        };
        match accepted {
            Ok(Accepted { stream, peer, tls }) => {
                failing = false;
                let stream = TrackedStream::new(stream, slots.acquire(CONNECTIONS_MAX));
                let talk = serve_connection(stream, tls, service.clone(), shutdown.clone());
                connections.push(PEER.scope(peer, talk));
            }
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept admin connections");
                }
                // The open connections are served meanwhile, and may end.
                let pause = tokio::time::sleep(ACCEPT_PAUSE);
                let serve = async { while connections.next().await.is_some() {} };
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = pause => {}
                    () = serve => {}
                }
            }
        }
    }
    drop(listener);
    while connections.next().await.is_some() {}
    Ok(())
}

/// The pages, as a connection asks for them.
type Pages = TowerToHyperService<axum::Router>;

/// Serves one connection from its first byte to its end.
async fn serve_connection(
    stream: TrackedStream<Box<dyn Duplex>>,
    tls: Option<Arc<ServerConfig>>,
    service: Pages,
    shutdown: CancellationToken,
) {
    let (evicted, idle) = (stream.slot.evicted.clone(), stream.slot.until_idle(IDLE_MAX));
    let conversation = async {
        tokio::select! {
            ended = converse(stream, tls, service, shutdown) => ended,
            () = evicted.cancelled() => Ok(()),
            () = idle => Ok(()),
        }
    };
    match AssertUnwindSafe(conversation).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection failed"),
        Err(_) => tracing::error!("an admin request panicked: this is a bug in lookaside"),
    }
}

/// Performs the TLS handshake, if there is one, then answers requests.
async fn converse(
    stream: TrackedStream<Box<dyn Duplex>>,
    tls: Option<Arc<ServerConfig>>,
    service: Pages,
    shutdown: CancellationToken,
) -> hyper::Result<()> {
    let Some(tls) = tls else { return answer(stream, service, shutdown).await };
    let handshake = timeout(HEAD_TIMEOUT, TlsAcceptor::from(tls).accept(stream));
    let handshake = tokio::select! {
        done = handshake => done,
        () = shutdown.cancelled() => return Ok(()),
    };
    match handshake {
        Ok(Ok(stream)) => answer(stream, service, shutdown).await,
        Ok(Err(error)) => {
            tracing::debug!(peer = access::peer(), %error, "tls handshake at the admin address failed");
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// Answers the requests of one connection until it ends, is too old, or `shutdown` is
/// cancelled.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: Pages,
    shutdown: CancellationToken,
) -> hyper::Result<()> {
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_header_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        ended = &mut served => return ended,
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(LIFETIME) => {}
    }
    served.as_mut().graceful_shutdown();
    timeout(GRACE, served).await.unwrap_or(Ok(()))
}

/// Returns whether the error means that the peer closed the connection before it was
/// accepted.
fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
