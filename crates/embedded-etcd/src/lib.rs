//! Serves etcd's v3 API over a store in memory.
//!
//! In: a bound listener, and when to stop. Out: what any etcd client expects
//! (KV, Lease, Watch, Lock, Election, Auth that is off, and of Cluster and
//! Maintenance what one member can say; health and version by HTTP/1). It keeps
//! nothing on disk, and must never grow without bound, whatever its clients do or
//! leave undone.
#![doc = include_str!("../README.md")]

mod auth;
mod connection;
mod data;
mod election;
mod flight;
mod frames;
mod front;
mod heads;
mod http1;
mod incoming;
mod kv;
mod lease;
mod lock;
mod member;
#[cfg(test)]
mod naive;
mod node;
mod outgoing;
mod queue;
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
use front::Front;
use lock::LockServer;
use node::Node;

/// etcd's own limit for a request (`--max-request-bytes`).
const REQUEST_MAX: usize = 1_572_864;
/// A message larger than this is not even read: the limit and, as in etcd, half
/// a megabyte for what is around a request.
const MESSAGE_MAX: usize = REQUEST_MAX + 512 * 1024;
/// What the services would take; a longer one does not come to them.
const READ_MAX: usize = MESSAGE_MAX + 1;
/// Told to clients, of which some send no longer head than they are told. Most
/// of it is dropped before anybody else sees it.
const HEAD_MAX: u32 = 1024 * 1024;
/// What a connection's requests take before anybody has leave to read them.
const CONNECTION_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 128 * 1024;
/// A client may watch from thousands of streams on one connection, as with
/// etcd. hyper's own default of 200 lets the next one wait for ever.
const STREAMS_PER_CONNECTION: u32 = 10_000;
/// A client that does not answer HTTP/2's ping is gone. Half a minute notices a
/// host that died before its sockets cost anything.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Long enough for a busy client on the same machine.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long answers under way may take once the server is told to stop. Streams
/// are told at once, so this is for those that do not listen.
const GRACE: Duration = Duration::from_millis(500);

/// Why a server ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener does not know its own address.
    #[error("the embedded etcd's socket has no address: {0}")]
    Address(#[from] std::io::Error),
    /// The transport gave up.
    #[error("the embedded etcd's transport failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves an empty store on `listener` until `shutdown` resolves. What was stored
/// is gone then. Open streams are ended at once with the status `UNAVAILABLE`,
/// connections half a second later, and nothing is left running.
///
/// # Errors
/// When the listener or the transport fails; no client can bring this about.
pub async fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    serve_data(&Data::new(), address, connection::accept(listener), shutdown).await
}

/// Serves `data` to the connections of `incoming` until `shutdown` resolves, as
/// [`serve`] does. `address` is where clients find this server: it is told to
/// those that ask for the list of members. Leases begin their time anew.
///
/// # Errors
/// When the transport fails.
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
        server.serve_with_incoming_shutdown(Front::new(routes), incoming, stop.cancelled());
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
