//! Accepts connections and limits their number and life.
//!
//! In: a listener or another stream of connections, and a token that cuts all of them. Out:
//! connections for tonic, each with its share of the bytes in flight. At most
//! [`CONNECTIONS_MAX`] are open; a connection ends if it does not begin HTTP/2 in time, and
//! at the latest with the server.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::frames::{Blocks, Frames};
use super::message_budget::Share;

/// The most open connections. On a development machine there are tens. Further connections
/// wait until one ends.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a connection may take to begin HTTP/2. HTTP/2 clients send at once. A connection
/// with HTTP/1 ends after this time: it needs one short answer only.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept, for example without free file descriptors. Retrying at
/// once would only use processor time.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns the connections of a listener, for ever.
pub(super) fn accept(listener: TcpListener) -> impl Stream<Item = TcpStream> {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((io, _)) => {
                    // Otherwise small answers wait for the client's delayed acknowledgement.
                    let _ = io.set_nodelay(true);
                    return Some((io, listener));
                }
                Err(error) => {
                    tracing::debug!(%error, "embedded etcd cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Limits connections in number and life. `cut` ends all of them.
pub(super) fn bound<S>(
    incoming: impl Stream<Item = S>,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection<S>>> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let blocks = Blocks::default();
    let incoming = Box::pin(incoming);
    stream::unfold(
        (incoming, permits, blocks, cut),
        |(mut incoming, permits, blocks, cut)| async move {
            let permit = permits.clone().acquire_owned().await.ok()?;
            let connection = Connection {
                io: Frames::new(incoming.next().await?, blocks.clone()),
                shares: Shares::default(),
                cut: Box::pin(cut.clone().cancelled_owned()),
                silence: Some(Box::pin(tokio::time::sleep(PREFACE_TIMEOUT))),
                _permit: permit,
            };
            Some((Ok(connection), (incoming, permits, blocks, cut)))
        },
    )
}

/// A connection that fails once it is cut.
pub(super) struct Connection<S> {
    io: Frames<S>,
    shares: Shares,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The timer until which HTTP/2 must begin; `None` afterwards.
    silence: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl<S> Connection<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.silence.is_some() && self.io.is_http2() {
            self.silence = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for Connection<S>
where
    S::ConnectInfo: 'static,
{
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let info = self.io.get_ref().connect_info();
        let tcp = (&info as &dyn Any).downcast_ref::<TcpConnectInfo>();
        Peer { local: tcp.and_then(TcpConnectInfo::local_addr), share: self.shares.clone() }
    }
}

/// The connection of a request, as the services see it.
#[derive(Clone, Default)]
pub(super) struct Peer {
    /// The server's address that the client connected to.
    pub(super) local: Option<SocketAddr>,
    pub(super) share: Shares,
}

/// A connection's shares of the bytes in flight.
#[derive(Clone, Default)]
pub(super) struct Shares {
    pub(super) requests: Share,
    pub(super) answers: Share,
}
