//! A server of etcd's v3 API over an in-memory store.
//!
//! In: a bound listener, and a future that ends when the server must stop. Out: etcd's
//! services KV, Lease, Watch, Lock and Election; Auth, which is always off; the calls of
//! Cluster and Maintenance that make sense for one member; health and version by HTTP/1.
//! It never writes to disk, and its memory is bounded whatever its clients do.
#![doc = include_str!("../README.md")]

mod auth;
mod connection;
mod data;
mod election;
mod frames;
mod http1;
mod incoming;
mod kv;
mod lease;
mod lock;
mod member;
mod message_budget;
mod node;
mod outgoing;
mod queue;
mod request_headers;
mod router;
mod store;
mod watch;
mod watchers;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use etcd_client::proto as pb;
use futures_util::stream::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use auth::AuthServer;
pub use data::Data;
use election::ElectionServer;
use lock::LockServer;
use node::Node;
use router::Router;

/// etcd's default limit for a request (`--max-request-bytes`), in bytes.
const REQUEST_MAX: usize = 1_572_864;
/// The longest message that is read, in bytes: the limit for a request plus, as in etcd,
/// 512 KiB of overhead.
const MESSAGE_MAX: usize = REQUEST_MAX + 512 * 1024;
/// The services' own limit. It is never reached, because longer messages are refused before.
const READ_MAX: usize = MESSAGE_MAX + 1;
/// The longest list of headers, announced to clients, because some obey it. Most headers are
/// dropped before the services see them.
const HEAD_MAX: u32 = 1024 * 1024;
/// The bytes of requests that a connection may buffer before room for them is reserved.
const CONNECTION_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 128 * 1024;
/// The most streams of a connection. A client may watch with thousands of streams, as with
/// etcd. With hyper's default of 200, the next stream would wait for ever.
const STREAMS_PER_CONNECTION: u32 = 10_000;
/// The time between two HTTP/2 pings. Half a minute detects a dead host before its sockets
/// cost much.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may take to answer a ping before its connection ends. It is long enough
/// for a busy client on the same machine.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long connections stay open after the server is told to stop. Streams end at once, so
/// this is for unary answers and for clients that do not react.
const GRACE: Duration = Duration::from_millis(500);

/// The reason why a server ended before `shutdown` resolved.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener has no local address.
    #[error("the embedded etcd's socket has no address: {0}")]
    Address(#[from] std::io::Error),
    /// The transport failed.
    #[error("the embedded etcd's transport failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves an empty store on `listener` until `shutdown` resolves. Then open streams end at
/// once with the status `UNAVAILABLE`, connections end half a second later, and the store
/// is dropped. No task keeps running.
///
/// # Errors
/// Returns an error if the listener or the transport fails. No client can cause that.
pub async fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    serve_data(&Data::new(), address, connection::accept(listener), shutdown).await
}

/// Serves `data` to the connections of `incoming` until `shutdown` resolves, like
/// [`serve`]. `address` is this server's address in the list of members. All leases start
/// with their full time.
///
/// # Errors
/// Returns an error if the transport fails.
pub async fn serve_data<S>(
    data: &Data,
    address: SocketAddr,
    incoming: impl Stream<Item = S>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
    S::ConnectInfo: Clone + Send + Sync + 'static,
{
    let stop = CancellationToken::new();
    let cut = CancellationToken::new();
    let node = Node::new(data.clone(), address, stop.clone());
    let routes = Routes::new(pb::PbKvServer::new(node.clone()).max_decoding_message_size(READ_MAX))
        .add_service(pb::PbLeaseServer::new(node.clone()).max_decoding_message_size(READ_MAX))
        .add_service(pb::PbWatchServer::new(node.clone()).max_decoding_message_size(READ_MAX))
        .add_service(pb::PbClusterServer::new(node.clone()))
        .add_service(pb::PbMaintenanceServer::new(node.clone()))
        .add_service(AuthServer::new(node.clone()).max_decoding_message_size(READ_MAX))
        .add_service(LockServer::new(node.clone()).max_decoding_message_size(READ_MAX))
        .add_service(ElectionServer::new(node.clone()).max_decoding_message_size(READ_MAX));
    let server = Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .http2_max_header_list_size(HEAD_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN));
    let incoming = connection::bound(incoming, cut.clone());
    let serving =
        server.serve_with_incoming_shutdown(Router::new(routes), incoming, stop.cancelled());
    let stopping = async {
        shutdown.await;
        stop.cancel();
        tokio::time::sleep(GRACE).await;
        cut.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        ended = serving => Ok(ended?),
        () = stopping => Ok(()),
        () = node.expire_leases() => Ok(()),
    }
}

#[cfg(test)]
mod tests;
