//! HTTP for those who run the balancer: live, ready, metrics, JSON, dashboard.
//!
//! In: a bound listener and what the parts know. Out: answers to GET, and the
//! operator's word to the catalog. It decides nothing. Nothing a client does here (silence, garbage, a slow reader, a
//! handler's panic) reaches beyond that client's connection, and no client can
//! hold the end up for longer than `GRACE`.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Input};
use crate::load::Ledger;
use crate::model::{BackendAddr, ServiceName, Zone};
use crate::readiness::Readiness;
use crate::telemetry::{Counters, ListClients};

mod api;
pub mod json;
mod metrics;
mod pages;

/// What is shown, and where it comes from.
#[derive(Clone)]
pub struct State {
    /// Services, rejected keys, freshness.
    pub catalog: Catalog,
    /// The zone in which services have names.
    pub zone: Zone,
    /// Totals of what the parts did.
    pub counters: Arc<Counters>,
    /// Sums of what clients report.
    pub ledger: Arc<Ledger>,
    /// The open BalanceLoad streams.
    pub clients: ListClients,
    /// What is missing.
    pub readiness: Readiness,
    /// When the process started.
    pub started: Instant,
    /// The `lb-token` that a call to a service's backend carries.
    pub tokens: fn(&ServiceName, BackendAddr) -> String,
    /// The program's version.
    pub version: &'static str,
    /// Where the operator's word goes.
    pub inputs: mpsc::Sender<Input>,
}

/// More connections wait to be accepted: a scraper, some dashboards and a few
/// commands need a handful.
const CONNECTIONS_MAX: usize = 256;
/// For a request's head to arrive, an idle connection's next one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection ends after the request at hand once it is this old, so that
/// those who only hold one cannot keep the others out.
const LIFETIME: Duration = Duration::from_secs(60);
/// For that last request, at the end of a connection's life or of all.
const GRACE: Duration = Duration::from_secs(3);
/// The longest head of a request, in bytes; names have at most 255.
const HEAD_MAX: usize = 16 * 1024;
/// Before accepting again when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers until `shutdown`, then finishes what is being answered within
/// `GRACE`.
///
/// Connections live in this future, not in tasks of their own: dropping it
/// ends them all, and their number is known.
///
/// # Errors
/// None yet: a connection that cannot be accepted is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    state: State,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let service = TowerToHyperService::new(pages::router(Arc::new(state)));
    let mut connections = FuturesUnordered::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(()) = connections.next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                connections.push(converse(stream, peer, service.clone(), shutdown.clone()));
            }
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "admin connections cannot be accepted");
                }
                let pause = tokio::time::sleep(ACCEPT_PAUSE);
                let _ = shutdown.run_until_cancelled(pause).await;
            }
        }
    }
    drop(listener);
    while connections.next().await.is_some() {}
    Ok(())
}

/// One connection, from its first request to its end.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    service: TowerToHyperService<axum::Router>,
    shutdown: CancellationToken,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let conversation = async {
        let mut served = pin!(served);
        tokio::select! {
            ended = &mut served => return ended,
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(LIFETIME) => {}
        }
        served.as_mut().graceful_shutdown();
        tokio::time::timeout(GRACE, served).await.unwrap_or(Ok(()))
    };
    match AssertUnwindSafe(conversation).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "admin connection failed"),
        Err(_) => tracing::error!(%peer, "an admin request panicked: this is a bug in lookaside"),
    }
}

/// The connection was gone before it was accepted.
fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
