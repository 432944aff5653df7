//! Serves the gRPC port: accepts connections, speaks TLS and HTTP/2, and hands each
//! request to its service.
//!
//! In: a bound socket. Out: one task per connection.
//! It has its own accept loop, because a stock loop lacks three things: a backlog that
//! holds all clients when they return at once, a deadline for silent connections, and a
//! pause when file descriptors run out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, Response};
use lookaside_http2::{Common, Connection, Incoming, Metered, ResponseFuture, WithMeter};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::balancer::{Balancer, PATH};
use crate::model::ClientIdentity;
use crate::reload::{Chain, Reloading, ServerTls};
use crate::telemetry::Counters;
use crate::xds::{self, Xds};
use crate::{clock, seed};

mod body;
mod connections;
mod handshakes;
mod identity;
mod limits;
mod other_services;
mod peers;
mod read_limit;
mod spread;

use body::ServeBody;
use connections::{Admitted, Connections};
use handshakes::Computing;
use identity::FromCertificate;
pub use limits::raise_open_files;
pub use other_services::MESSAGE_MAX;
use read_limit::ReadLimit;
pub use spread::Spread;

/// The services that a connection may call.
#[derive(Clone)]
pub struct Services {
    /// Serves `BalanceLoad`.
    pub balancer: Balancer,
    /// Serves `StreamAggregatedResources`, `StreamEndpoints` and `StreamLoadStats`.
    pub xds: Xds,
    /// Serves all other calls: health and reflection.
    pub others: Routes,
}

/// The gRPC port, ready to serve.
#[derive(Clone)]
pub struct Server {
    /// The services behind the port.
    pub services: Services,
    /// The TLS configuration; `None` means plaintext. Each handshake uses the newest
    /// certificate.
    pub tls: Option<Reloading<ServerTls>>,
    /// The counters that the port increments.
    pub counters: Arc<Counters>,
    /// Tracks the tasks of connections and streams.
    pub tasks: TaskTracker,
    /// Once cancelled, the port accepts no more connections and tells the open ones to
    /// leave, spread over some time.
    pub drain: CancellationToken,
    /// How many connections may be open at a time.
    pub connections_max: u64,
    /// How many connections one network may have open at a time; 0 means no limit of
    /// its own.
    pub connections_per_peer: u64,
    /// The age at which a connection is told to leave, a tenth more or less; `None`: none.
    pub max_connection_age: Option<Duration>,
    /// How clients are spread over balancers; `None` if there are no others.
    pub spread: Option<Spread>,
}

/// A [`Server`] while it serves, with what its connections share.
struct Serving {
    server: Server,
    common: Arc<Common>,
    computing: Computing,
}

/// The client at the other end of a connection. The connection counts as open until this
/// is dropped.
struct Caller {
    identity: ClientIdentity,
    admitted: Admitted,
}

/// How many connections may wait to be accepted: the kernel's own default limit
/// (`somaxconn`). When a balancer returns, all of its clients connect at once, and a
/// dropped SYN costs its client a second or more.
const BACKLOG: u32 = 4096;
/// How long a TLS handshake may take. One that takes longer will not complete.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait after a connection could not be accepted. Descriptors become free
/// when other connections end, not by trying again at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How often connections are ended whose time is over.
const END_EVERY: Duration = Duration::from_secs(1);

/// Binds the port, which no other process can then bind.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the connections of the previous process.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// Accepts connections until `drain` is cancelled. Then closes the port and tells
    /// the open connections to leave; they end in `tasks`.
    pub async fn run(self, listener: TcpListener) {
        let (max, per_peer) = (self.connections_max, self.connections_per_peer);
        let connections = Connections::new(max, per_peer, self.counters.clone());
        let serving = Arc::new(Serving::new(self));
        let counters = &serving.server.counters;
        let mut ends = tokio::time::interval(END_EVERY);
        ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let spread = serving.server.spread.clone();
        let mut spreading = std::pin::pin!(spread::run(spread, &connections, counters));
        let files = serving.server.tls.clone();
        let mut verifying = std::pin::pin!(connections.verify_again(files));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut spreading => continue,
                () = &mut verifying => continue,
                () = serving.server.drain.cancelled() => break,
                _ = ends.tick() => {
                    connections.end_old(Instant::now());
                    continue;
                }
            };
            match accepted {
                Ok((stream, addr)) => match connections.admit(addr.ip()) {
                    Some(admitted) => {
                        counters.connections.increment();
                        if let Some(age) = serving.server.max_connection_age {
                            admitted.end_within(jittered(age, seed::random()));
                        }
                        let talk = serving.connection(stream, Caller::new(addr, admitted));
                        let served = serving.clone();
                        serving.server.tasks.spawn(talk.map(move |spoke| {
                            if !spoke {
                                served.server.counters.connections_failed.increment();
                            }
                        }));
                    }
                    // The connection is closed before it has a stream, so the client
                    // backs off.
                    None => counters.connections_refused.increment(),
                },
                Err(error) => serving.server.cannot_accept(&error).await,
            }
        }
        drop(listener);
        connections.close_all().await;
    }

    async fn cannot_accept(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        // The peer gave up; nothing is wrong on this side.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if self.counters.accept_errors.total() == 0 {
            tracing::error!(%error, "cannot accept connections: raise the limit of open files");
        }
        self.counters.accept_errors.increment();
        tokio::time::sleep(ACCEPT_AGAIN).await;
    }

    /// Serves one connection to its end, as if it were the only one. Returns false if
    /// the peer never spoke HTTP/2.
    pub async fn http2<S>(&self, stream: S, addr: SocketAddr) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connections = Connections::new(1, 0, self.counters.clone());
        let Some(admitted) = connections.admit(addr.ip()) else { return false };
        let stream = ReadLimit::new(stream, admitted.peer());
        let serving = Arc::new(Serving::new(self.clone()));
        serving.speak(stream, Caller::new(addr, admitted)).await
    }
}

impl Serving {
    fn new(server: Server) -> Self {
        Self { server, common: Common::new(), computing: Computing::default() }
    }

    /// Serves one connection to its end. Returns a small future: there are many
    /// connections, and each one keeps its future's size for as long as it is open.
    fn connection(
        self: &Arc<Self>,
        stream: TcpStream,
        caller: Caller,
    ) -> impl Future<Output = bool> + use<> {
        // Lists are written whole, so waiting for more data would only delay them.
        let _ = stream.set_nodelay(true);
        match &self.server.tls {
            None => {
                let stream = ReadLimit::new(stream, caller.admitted.peer());
                Either::Left(self.speak(stream, caller))
            }
            Some(tls) => {
                // In this order, so that the value is at least as new as its version.
                let (version, config) = (tls.version(), tls.value().config);
                let serving = self.clone();
                let talk = async move { serving.secure(stream, config, version, caller).await };
                Either::Right(Box::pin(talk))
            }
        }
    }

    async fn secure(
        self: &Arc<Self>,
        stream: TcpStream,
        config: Arc<ServerConfig>,
        version: u64,
        mut caller: Caller,
    ) -> bool {
        let peer = caller.admitted.peer();
        let stream = ReadLimit::for_handshake(stream, peer.clone());
        let handshake = peer.handshakes().handshake(stream, config, &self.computing);
        let close = caller.admitted.close.clone();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE_WITHIN, handshake) => shaken,
            () = std::future::poll_fn(|cx| close.poll_requested(cx)) => return false,
        };
        let mut stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(peer = %caller.identity.addr, %error, "tls handshake failed");
                return false;
            }
            Err(_) => return false,
        };
        stream.get_mut().0.handshake_done();
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let FromCertificate { names, ends } = identity::of(chain);
        caller.identity.certificate = names;
        if !chain.is_empty() {
            let chain: Chain = chain.iter().map(|one| one.clone().into_owned()).collect();
            caller.admitted.remember(chain, version);
        }
        if let Some(left) = ends.map(|ends| ends.saturating_sub(clock::wall())) {
            // A resumed session does not verify its certificate again.
            if left.is_zero() {
                tracing::debug!(peer = %caller.identity.addr, "client certificate has ended");
                return false;
            }
            caller.admitted.end_within(left);
        }
        let stream = WithMeter::new(stream, |stream, cost| stream.get_mut().0.charge(cost));
        let spoke = self.speak(stream, caller).await;
        if !spoke {
            peer.handshakes().failed();
        }
        spoke
    }

    fn speak<S>(self: &Arc<Self>, stream: S, caller: Caller) -> impl Future<Output = bool> + use<S>
    where
        S: AsyncRead + AsyncWrite + Metered + Unpin,
    {
        let (serving, close) = (self.clone(), caller.admitted.close.clone());
        let handler = move |request| -> ResponseFuture<ServeBody> {
            Box::pin(serving.server.services.clone().call(request, &caller))
        };
        Connection::new(stream, self.common.clone(), close, handler)
    }
}

/// Returns a time, up to a tenth more or less, so that connections that began together do not
/// end together.
fn jittered(time: Duration, seed: u64) -> Duration {
    let part = u32::try_from(seed % 2_001).unwrap_or_default();
    time - time / 10 + time / 10_000 * part
}

impl Caller {
    fn new(addr: SocketAddr, admitted: Admitted) -> Self {
        Self { identity: addr.into(), admitted }
    }
}

impl Services {
    fn call(
        self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> impl Future<Output = Response<ServeBody>> + use<> {
        let Caller { identity, admitted } = caller;
        let (client, peer) = (identity.clone(), admitted.peer());
        let close = admitted.close.clone();
        async move {
            if request.uri().path() == PATH && body::is_grpc(&request) {
                let response = self.balancer.balance_load(request, client, close).await;
                return response.map(ServeBody::from);
            }
            if [xds::PATH, xds::ENDPOINTS_PATH].contains(&request.uri().path())
                && body::is_grpc(&request)
            {
                let response = self.xds.stream(request, client, close).await;
                return response.map(ServeBody::from);
            }
            if xds::DELTA_PATHS.contains(&request.uri().path()) && body::is_grpc(&request) {
                return self.xds.no_deltas().map(|()| ServeBody::Nothing);
            }
            if request.uri().path() == xds::LOAD_PATH && body::is_grpc(&request) {
                return self.xds.load_stream(request, client.addr).await.map(ServeBody::from);
            }
            other_services::call(self.others, request, &peer).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes of a connection's future. A task is stored in steps of 128 bytes, and
    /// with one more of them each stream takes 7 % more memory.
    const FUTURE_MAX: usize = 776;

    #[test]
    fn a_connection_takes_no_further_step_of_memory() {
        type Handler = (Arc<Serving>, Caller);
        let size = size_of::<Connection<ReadLimit<TcpStream>, Handler, ServeBody>>();
        assert!(size <= FUTURE_MAX, "{size} bytes");
    }
}
