//! The gRPC port: accepts connections, speaks TLS and HTTP/2, and hands
//! requests to their service.
//!
//! In: a bound socket. Out: a task per connection. The accept loop is our own
//! for what a stock one lacks: a backlog that holds a herd, a deadline for the
//! silent, and no spinning when descriptors run out.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::balancer::{Balancer, PATH};
use crate::seed;
use crate::telemetry::Counters;

mod body;
mod inbound;
mod limits;

use body::ServeBody;
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
    /// With TLS, or without.
    pub tls: Option<TlsAcceptor>,
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
/// A connection that has not spoken HTTP/2 after this long never will.
const SPEAK_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted: descriptors are freed
/// by others, not by trying again at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// A peer that is gone without a word is found out after both together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client channel has one stream; only proxies have many. RFC 9113 advises
/// against less than 100.
const STREAMS_MAX: u32 = 100;
/// Together with the window of a stream this bounds what a connection can make
/// us hold: its largest message fits, and no more.
const CONNECTION_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 68 * 1024;
/// After a connection is told to go, until it is closed: long enough for the
/// telling to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Requests have a handful of short headers.
const HEADERS_MAX: u32 = 8 * 1024;

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
    /// Accepts until told to drain; then the port is closed, but connections
    /// go on to their end in `tasks`.
    pub async fn run(self, listener: TcpListener) {
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = server.drain.cancelled() => return,
            };
            match accepted {
                // Refused where a client backs off: before it has a stream.
                Ok(_) if server.counters.connections_open.now() >= server.connections_max => {
                    server.counters.connections_refused.increment();
                }
                Ok((stream, peer)) => {
                    server.counters.connections.increment();
                    let open = Open::new(server.counters.clone());
                    let server = server.clone();
                    let tasks = server.tasks.clone();
                    tasks.spawn(async move {
                        server.connection(stream, peer).await;
                        drop(open);
                    });
                }
                Err(error) => server.cannot_accept(&error).await,
            }
        }
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

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        // Lists are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let spoke = match &self.tls {
            None => self.http2(stream, peer).await,
            Some(tls) => match tokio::time::timeout(SPEAK_WITHIN, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.http2(stream, peer).await,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "tls handshake failed");
                    false
                }
                Err(_) => false,
            },
        };
        if !spoke {
            self.counters.connections_failed.increment();
        }
    }

    /// Serves a connection to its end. False when it never spoke HTTP/2.
    pub async fn http2<S>(&self, stream: S, peer: SocketAddr) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, spoke) = Inbound::new(stream);
        let services = self.services.clone();
        let leave = Arc::new(Notify::new());
        let told_to_leave = leave.clone();
        let service = hyper::service::service_fn(move |request| {
            let (services, leave) = (services.clone(), leave.clone());
            async move { services.call(request, peer, leave).await }
        });
        let connection = http2::Builder::new(Spawner(self.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_header_list_size(HEADERS_MAX)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut patience = pin!(tokio::time::sleep(SPEAK_WITHIN));
        let mut waiting = true;
        let turn = loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    return spoke.get();
                }
                () = patience.as_mut(), if waiting => {
                    waiting = false;
                    if !spoke.get() {
                        return false;
                    }
                }
                () = self.drain.cancelled() => {
                    // Another balancer takes it in; not all at once.
                    let open = self.counters.connections_open.now();
                    break limits::spread(open).mul_f64(seed::fraction());
                }
                () = told_to_leave.notified() => break Duration::ZERO,
            }
        };
        if tokio::time::timeout(turn, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST_WORDS, connection).await;
        }
        spoke.get()
    }
}

/// A connection, counted from its acceptance to the end of its task.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: Arc<Counters>) -> Self {
        counters.connections_open.increment();
        Self(counters)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_open.decrement();
    }
}

impl Services {
    async fn call(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        leave: Arc<Notify>,
    ) -> Result<hyper::Response<ServeBody>, Infallible> {
        if request.uri().path() == PATH && body::is_grpc(&request) {
            let response = self.balancer.balance_load(request, peer, leave).await;
            return Ok(response.map(ServeBody::from));
        }
        let request = request.map(tonic::body::Body::new);
        let mut others = self.others.clone();
        Ok(tower::Service::call(&mut others, request).await?.map(ServeBody::Other))
    }
}

/// Puts a connection's streams beside it under the same tracker.
#[derive(Clone)]
struct Spawner(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
