//! The gRPC port: accepts connections, speaks TLS and HTTP/2, and hands
//! requests to their service.
//!
//! In: a bound socket. Out: a task per connection. The accept loop is our own
//! for what a stock one lacks: a backlog that holds a herd, a deadline for the
//! silent, and no spinning when descriptors run out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::balancer::{Balancer, PATH};
use crate::http2::{Answer, Connection, Incoming, Leave};
use crate::reload::Reloading;
use crate::telemetry::Counters;

mod body;
mod connections;
mod inbound;
mod limits;

use body::ServeBody;
use connections::Connections;
use inbound::Inbound;
pub use limits::raise_open_files;

/// What a connection may ask for.
#[derive(Clone)]
pub struct Services {
    /// `BalanceLoad`.
    pub balancer: Balancer,
    /// Everything else: health, reflection.
    pub others: Routes,
}

/// The gRPC port, ready to serve.
pub struct Server {
    /// What is served.
    pub services: Services,
    /// With TLS, or without. A handshake is made with the newest certificate.
    pub tls: Option<Reloading<Arc<ServerConfig>>>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Owns the tasks of connections and streams.
    pub tasks: TaskTracker,
    /// Cancelled: take no more connections, and send the others away, spread
    /// over some time.
    pub drain: CancellationToken,
    /// How many connections there may be at a time.
    pub connections_max: u64,
}

/// As many connections may wait to be accepted as the kernel allows by default
/// (`somaxconn`): when a balancer returns, all of its clients do so at once,
/// and a SYN that is dropped costs its client a second or more.
const BACKLOG: u32 = 4096;
/// A handshake that is not done after this long never will be.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted: descriptors are freed
/// by others, not by trying again at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Binds the port, to be shared with nobody.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// Accepts until told to drain; then closes the port, and sends the
    /// connections away, which come to their end in `tasks`.
    pub async fn run(self, listener: TcpListener) {
        let server = Arc::new(self);
        let connections = Connections::new(server.connections_max, server.counters.clone());
        let origin = Instant::now();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = server.drain.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => match connections.admit() {
                    Some(admitted) => {
                        server.counters.connections.increment();
                        let served = server.clone();
                        let talk = server.connection(stream, peer, origin, &admitted.leave);
                        server.tasks.spawn(talk.map(move |spoke| {
                            if !spoke {
                                served.counters.connections_failed.increment();
                            }
                            drop(admitted);
                        }));
                    }
                    // Refused where a client backs off: before it has a stream.
                    None => server.counters.connections_refused.increment(),
                },
                Err(error) => server.cannot_accept(&error).await,
            }
        }
        drop(listener);
        connections.send_away().await;
    }

    async fn cannot_accept(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        // The peer changed its mind; nothing is wrong here.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if self.counters.accept_errors.total() == 0 {
            tracing::error!(%error, "cannot accept connections: raise the limit of open files");
        }
        self.counters.accept_errors.increment();
        tokio::time::sleep(ACCEPT_AGAIN).await;
    }

    /// A connection to its end. As small as can be: there are many, and what a
    /// future is made of stays within it.
    fn connection(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        origin: Instant,
        leave: &Arc<Leave>,
    ) -> impl Future<Output = bool> + use<> {
        // Lists are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => Either::Left(self.speak(stream, peer, origin, leave)),
            Some(tls) => {
                let accept = TlsAcceptor::from(tls.value()).accept(stream);
                let (server, leave) = (self.clone(), leave.clone());
                let handshake = async move { server.handshake(accept, peer, origin, &leave).await };
                Either::Right(Box::pin(handshake))
            }
        }
    }

    async fn handshake(
        &self,
        accept: tokio_rustls::Accept<TcpStream>,
        peer: SocketAddr,
        origin: Instant,
        leave: &Arc<Leave>,
    ) -> bool {
        match tokio::time::timeout(HANDSHAKE_WITHIN, accept).await {
            Ok(Ok(stream)) => self.speak(stream, peer, origin, leave).await,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "tls handshake failed");
                false
            }
            Err(_) => false,
        }
    }

    /// Serves a connection to its end. False when it never spoke HTTP/2.
    pub async fn http2<S>(&self, stream: S, peer: SocketAddr) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.speak(stream, peer, Instant::now(), &Arc::default()).await
    }

    fn speak<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        origin: Instant,
        leave: &Arc<Leave>,
    ) -> impl Future<Output = bool> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (services, told) = (self.services.clone(), leave.clone());
        let handler = move |request| -> Answer<ServeBody> {
            let (services, leave) = (services.clone(), told.clone());
            Box::pin(services.call(request, peer, leave))
        };
        Connection::new(Inbound::new(stream), origin, leave.clone(), handler)
    }
}

impl Services {
    async fn call(
        self,
        request: Request<Incoming>,
        peer: SocketAddr,
        leave: Arc<Leave>,
    ) -> Response<ServeBody> {
        if request.uri().path() == PATH && body::is_grpc(&request) {
            let response = self.balancer.balance_load(request, peer, leave).await;
            return response.map(ServeBody::from);
        }
        let mut others = self.others;
        let request = request.map(tonic::body::Body::new);
        match tower::Service::call(&mut others, request).await {
            Ok(response) => response.map(ServeBody::Other),
            Err(never) => match never {},
        }
    }
}
