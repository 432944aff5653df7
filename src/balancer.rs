//! The gRPC service `grpc.lb.v1.LoadBalancer`, complete.
//!
//! In: HTTP/2 requests for `BalanceLoad`, and the catalog. Out: responses whose bodies
//! are the streams. A stream is either refused before its initial response, or gets that
//! response and a list at once. Between the two, clients would retry in a loop or hang.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use lookaside_http2::{GracefulClose, Incoming};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use crate::catalog::{Catalog, Input};
use crate::clock;
use crate::load::Ledger;
use crate::model::{ClientIdentity, ClientKind, Target, Zone};
use crate::placements::Placements;
use crate::policy;
use crate::seed;
use crate::streams::body::StreamBody;
use crate::streams::demand::Demands;
use crate::streams::messages::{Messages, first_message};
use crate::streams::rates::Rates;
use crate::streams::response;
use crate::telemetry::{
    CellsFn, CountStreams, Counters, DemandFn, ExcessFn, FindSent, KeyBackendFn, ListClients,
    Protocol, SentList,
};

pub mod ask;
mod clients;
pub mod cycle;
mod drops;
mod encode;
mod lists;
mod message;
mod session;
mod stream;
mod token;
mod views;

use clients::{Clients, Peer};
pub use cycle::entries_per_pick;
use session::Session;
pub(crate) use stream::BalanceStream;
pub use token::token;
use views::{StreamView, Views};

/// The protocol's messages.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
pub(crate) mod pb {
    tonic::include_proto!("grpc.lb.v1");
}

/// The service's full name.
pub const SERVICE: &str = "grpc.lb.v1.LoadBalancer";
/// The path of its one method.
pub const PATH: &str = "/grpc.lb.v1.LoadBalancer/BalanceLoad";

/// The protocol's descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/load_balancer.bin"));

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Balancer(Arc<Shared>);

struct Shared {
    zone: Zone,
    views: Arc<Views>,
    clients: Arc<Clients>,
    ledger: Arc<Ledger>,
    counters: Arc<Counters>,
}

/// How long a client may take to send its name. Clients send it at once, so a client that
/// takes longer never will.
const NAME_WITHIN: Duration = Duration::from_secs(5);
/// How often stalled clients are looked for: often enough, because they have a minute.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// How often it is looked whether it is time to look at the demand of a service.
const DEMAND_CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often the memory of superseded lists is checked.
const MEMORY_CHECK_EVERY: Duration = Duration::from_millis(500);
/// How many bytes of superseded lists clients that do not read may hold: a hundred and
/// fifty lists of 10,000 backends.
const SUPERSEDED_MAX: usize = 64 * 1024 * 1024;

impl Balancer {
    /// Makes the service on top of a catalog. Names in `zone` mean services.
    #[must_use]
    pub fn new(zone: Zone, catalog: Catalog, ledger: Arc<Ledger>, counters: Arc<Counters>) -> Self {
        let views = Views::new(catalog, counters.clone());
        Self(Arc::new(Shared { zone, views, clients: Arc::default(), ledger, counters }))
    }

    /// Returns a function that lists the open streams.
    #[must_use]
    pub fn clients(&self) -> ListClients {
        let clients = self.0.clients.clone();
        Arc::new(move || clients.view())
    }

    /// Returns a function that returns the list that a stream was sent last.
    #[must_use]
    pub fn sent(&self) -> FindSent<SentList> {
        let clients = self.0.clients.clone();
        Arc::new(move |stream, _| clients.sent(stream))
    }

    /// Returns a function that counts the open streams.
    #[must_use]
    pub fn streams(&self) -> CountStreams {
        let clients = self.0.clients.clone();
        Arc::new(move || clients.len())
    }

    /// Returns a function that returns how far over its share the most favoured backend of
    /// any list in use is.
    #[must_use]
    pub fn excess(&self) -> ExcessFn {
        let views = self.0.views.clone();
        Arc::new(move || views.excess())
    }

    /// Returns a function that returns the clients of a service by zone.
    #[must_use]
    pub fn demand(&self) -> DemandFn {
        let views = self.0.views.clone();
        Arc::new(move |service| views.demands().of(service))
    }

    /// Returns the demand of the clients of services with zones, for other protocols to count
    /// theirs.
    #[must_use]
    pub fn demands(&self) -> Arc<Demands> {
        self.0.views.demands().clone()
    }

    /// Returns the calls of the clients of services that may be overloaded, for other protocols
    /// to count theirs.
    #[must_use]
    pub fn rates(&self) -> Arc<Rates> {
        self.0.views.rates().clone()
    }

    /// Returns which cells the clients of services with cells use, for other protocols to place
    /// theirs.
    #[must_use]
    pub fn placements(&self) -> Arc<Placements> {
        self.0.views.placements().clone()
    }

    /// Returns a function that returns how the clients of a service are placed on its cells.
    #[must_use]
    pub fn cells(&self) -> CellsFn {
        let views = self.0.views.clone();
        Arc::new(move |service| views.placements().of(service))
    }

    /// Returns a function that returns the backend of a key in use.
    #[must_use]
    pub fn key_backend(&self) -> KeyBackendFn {
        let views = self.0.views.clone();
        Arc::new(move |service, all, key| views.placements().key_backend(service, all, key))
    }

    /// Follows the demand of clients. Tells the catalog the demand by zone, whenever it is
    /// worth new lists; the calls of services that may be overloaded; and which services'
    /// clients were placed on other cells, or keys moved. `part` returns the part of all
    /// balancers' clients that this one has. Ends when the receiver is dropped.
    pub async fn follow_demand(self, inputs: mpsc::Sender<Input>, part: impl Fn() -> f64) {
        let views = self.0.views.clone();
        loop {
            tokio::time::sleep(DEMAND_CHECK_EVERY).await;
            let part = part();
            for (service, demand) in views.demands().due(clock::now()) {
                let known = views.catalog().service(&service);
                let shares = known.as_deref().and_then(policy::zones::shares);
                if !shares.is_some_and(|shares| shares.must_renew(&demand, part)) {
                    continue;
                }
                let input = Input::Demand(service, Arc::new(demand));
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            let rates = views.rates().all();
            if !rates.is_empty() && inputs.send(Input::Started(rates)).await.is_err() {
                return;
            }
            for service in views.placements().rebalance(clock::now()) {
                if inputs.send(Input::Placed(service)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Ends the connections of clients that do not read new lists: after a minute, or when
    /// they hold too many bytes of superseded lists. Never returns.
    pub async fn sweep(self) {
        let Shared { clients, counters, .. } = &*self.0;
        let mut swept = clock::now();
        let mut freeing = false;
        loop {
            tokio::time::sleep(MEMORY_CHECK_EVERY).await;
            let now = clock::now();
            if now.saturating_duration_since(swept) >= SWEEP_EVERY {
                swept = now;
                let stalled = clients.sweep(now);
                counters.streams_stalled.add(stalled);
                if stalled > 0 {
                    tracing::info!(stalled, "clients do not read: connections closed");
                }
            }
            let all = usize::try_from(counters.list_bytes.now()).unwrap_or(usize::MAX);
            if all <= SUPERSEDED_MAX {
                freeing = false;
                continue;
            }
            let stalled = clients.free_memory(now, SUPERSEDED_MAX);
            counters.streams_stalled.add(stalled);
            if stalled > 0 && !std::mem::replace(&mut freeing, true) {
                let bytes = all;
                tracing::warn!(
                    stalled,
                    bytes,
                    "clients that do not read hold too many old lists: \
                     closing the connections that have waited longest, as often as needed"
                );
            }
        }
    }

    /// Answers one request: waits for the client's name, then refuses it with a status
    /// alone, or answers with a stream. `close` is asked when the connection must end.
    pub(crate) async fn balance_load(
        &self,
        request: Request<Incoming>,
        identity: ClientIdentity,
        close: Arc<GracefulClose>,
    ) -> Response<Option<StreamBody<BalanceStream>>> {
        let peer = identity.addr;
        let opened = tokio::time::Instant::now().into_std();
        let (parts, mut body) = request.into_parts();
        let mut messages = Messages::default();
        let first = tokio::time::timeout(NAME_WITHIN, first_message(&mut body, &mut messages));
        let late = || Status::deadline_exceeded("the first message did not come within 5 seconds");
        let opened = first
            .await
            .unwrap_or_else(|_| Err(late()))
            .and_then(|message| self.name(message))
            .and_then(|name| self.open(&name, &parts.headers, identity, close, opened));
        let (session, client, stream_view) = match opened {
            Ok(opened) => opened,
            Err(status) => {
                self.0.counters.streams_refused.increment();
                tracing::debug!(%peer, code = ?status.code(), reason = status.message(), "stream refused");
                return response(Some(&status)).map(|()| None);
            }
        };
        self.0.counters.streams.increment();
        let stream = BalanceStream::new(session, client, self.0.clone(), stream_view);
        response(None).map(|()| Some(StreamBody::new(body, messages, stream)))
    }

    fn name(&self, message: Bytes) -> Result<String, Status> {
        use pb::load_balance_request::LoadBalanceRequestType as Kind;
        let request = pb::LoadBalanceRequest::decode(message).map_err(|error| {
            Status::invalid_argument(format!("the first message cannot be read: {error}"))
        })?;
        match request.load_balance_request_type {
            Some(Kind::InitialRequest(initial)) => Ok(initial.name),
            Some(Kind::ClientStats(_)) | None => {
                Err(Status::invalid_argument("the first message must be an initial_request"))
            }
        }
    }

    fn open(
        &self,
        name: &str,
        headers: &HeaderMap,
        identity: ClientIdentity,
        close: Arc<GracefulClose>,
        opened: Instant,
    ) -> Result<(Session, clients::ClientRow, StreamView), Status> {
        let target = Target::parse(name, &self.0.zone)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let closing = || Status::unavailable("the balancer is shutting down");
        let view = self.0.views.view(&target).ok_or_else(closing)?;
        if view.has_closed() {
            return Err(closing());
        }
        let known = view.known();
        let Some(settings) = known.settings() else {
            return Err(Status::unavailable("the registry has not been read yet"));
        };
        // Before anything that depends on the service, so that it says nothing of it.
        if !settings.clients.may_ask(&identity) {
            return Err(self.0.deny(&target.canonical(), &identity));
        }
        let stream_view = view.admit(identity.addr, &known).ok_or_else(|| {
            Status::resource_exhausted(
                "too many different selections of backends are listed at once: \
                 ask for the whole service, or for fewer selections on one connection",
            )
        })?;
        let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let clients = &self.0.clients;
        let user_agent = clients.texts.share_user_agent(user_agent.unwrap_or_default());
        let kind = ClientKind::from_user_agent(&user_agent);
        let name = clients.texts.share(name);
        let peer = Peer { identity, user_agent, kind, name };
        let client = clients.register(peer, view.clone(), close, opened);
        let session = Session::new(settings.report_interval, seed::random());
        Ok((session, client, stream_view))
    }
}

impl Shared {
    /// Counts a client that was denied a name. Returns the status for it, which is the same
    /// for every name. It must come before the initial response or end a stream that was sent
    /// a list without backends: clients then come back more and more slowly.
    fn deny(&self, canonical: &str, client: &ClientIdentity) -> Status {
        self.counters.denials.add(Protocol::Grpclb, canonical, client, clock::now());
        Status::permission_denied("this client may not ask for this name")
    }
}
