//! HTTP for those who run the balancer: live, ready, metrics, JSON, dashboard.
//!
//! In: a bound listener and what the parts know. Out: answers to GET, and the
//! operator's word, as marks in etcd. It decides nothing. Nothing that a client does
//! here (silence, garbage, a slow reader, a handler's panic) reaches beyond that
//! client's connection. No client keeps others out, and none can hold the end up
//! for longer than `GRACE`.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Input};
use crate::load::Ledger;
use crate::marks::source::Report as MarksReport;
use crate::marks::{Desk, Moment};
use crate::model::{BackendAddr, ServiceName, Zone};
use crate::policy::Decision;
use crate::readiness::Readiness;
use crate::settings::source::Report;
use crate::telemetry::{Counters, ListClients, TellExcess};
use seats::{Seated, Seats};

mod answers;
mod api;
mod explain;
mod host;
pub mod json;
mod marks;
mod metrics;
mod pages;
mod query;
mod seats;
mod services;
mod settings;
mod shares;

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
    /// How far over its share the most favoured backend of any list is.
    pub excess: TellExcess,
    /// How often each pick of a decision stands in one cycle of the list.
    pub turns: fn(&Decision) -> Vec<u32>,
    /// The program's version.
    pub version: &'static str,
    /// Where the operator's word goes.
    pub inputs: mpsc::Sender<Input>,
    /// How the sources of per-service settings are.
    pub sources: watch::Receiver<Report>,
    /// The marks, and where new ones are written.
    pub marks: Marks,
    /// Names of this server, beside its IP addresses and `localhost`.
    pub hosts: Arc<[String]>,
}

/// The marks, as far as they are known here.
#[derive(Clone)]
pub struct Marks {
    /// Where they are written; none without etcd.
    pub desk: Option<Desk>,
    /// Every mark.
    pub report: watch::Receiver<MarksReport>,
    /// The wall clock.
    pub now: fn() -> Moment,
    /// Drains are checked and set one after the other.
    pub turn: Arc<Semaphore>,
}

/// A scraper, some dashboards and a few commands need a handful. One more takes
/// the place of the one on which nothing has moved for longest.
const CONNECTIONS_MAX: usize = 256;
/// For a request's head to arrive, an idle connection's next one included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing moves for so long ends: an answer that is not
/// read takes room from others. Longer than a reader in a terminal pauses.
const STILL_MAX: Duration = Duration::from_secs(15);
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
    let seats = Seats::default();
    let service = TowerToHyperService::new(pages::router(Arc::new(state), seats.clone()));
    let mut connections = FuturesUnordered::new();
    let mut failing = false;
    loop {
        // Those that must go are still there until their turn comes.
        let room = connections.len() < 2 * CONNECTIONS_MAX;
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(()) = connections.next() => continue,
            accepted = listener.accept(), if room => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                let stream = Seated::new(stream, seats.take(CONNECTIONS_MAX));
                connections.push(converse(stream, service.clone(), shutdown.clone()));
            }
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "admin connections cannot be accepted");
                }
                // The open ones are served meanwhile, and may make room.
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

/// One connection, from its first request to its end.
async fn converse(
    stream: Seated<TcpStream>,
    service: TowerToHyperService<axum::Router>,
    shutdown: CancellationToken,
) {
    let (gone, still) = (stream.seat.gone.clone(), stream.seat.still(STILL_MAX));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let conversation = async {
        let mut served = pin!(served);
        tokio::select! {
            ended = &mut served => return ended,
            () = gone.cancelled() => return Ok(()),
            () = still => return Ok(()),
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(LIFETIME) => {}
        }
        served.as_mut().graceful_shutdown();
        tokio::select! {
            ended = served => ended,
            () = gone.cancelled() => Ok(()),
            () = tokio::time::sleep(GRACE) => Ok(()),
        }
    };
    match AssertUnwindSafe(conversation).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection failed"),
        Err(_) => tracing::error!("an admin request panicked: this is a bug in lookaside"),
    }
}

/// The connection was gone before it was accepted.
fn is_peers_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
