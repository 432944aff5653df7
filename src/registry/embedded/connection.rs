//! Accepts connections, and ends those that must end.
//!
//! In: a listener or whatever else brings connections, and when to cut every one
//! of them. Out: connections for tonic: not too many, none that never says a word, none that outlives the
//! server.

use std::io;
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
use tonic::transport::server::Connected;

/// Who develops on one machine has tens; the next one waits until one ends.
const CONNECTIONS_MAX: usize = 4_096;
/// An HTTP/2 client speaks first and at once.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(10);
/// Out of file descriptors, say: trying again at once would only burn a core.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections as they come, for ever.
pub(super) fn accept(listener: TcpListener) -> impl Stream<Item = TcpStream> {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((io, _)) => {
                    // Without it small answers wait for the client's delayed acknowledgement.
                    let _ = io.set_nodelay(true);
                    return Some((io, listener));
                }
                Err(error) => {
                    tracing::debug!(%error, "embedded registry cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// The same, not too many at a time, each until it must end.
pub(super) fn bound<S>(
    incoming: impl Stream<Item = S>,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection<S>>> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::unfold((Box::pin(incoming), permits, cut), |(mut incoming, permits, cut)| async move {
        let permit = permits.clone().acquire_owned().await.ok()?;
        let connection = Connection {
            io: incoming.next().await?,
            cut: Box::pin(cut.clone().cancelled_owned()),
            silence: Some(Box::pin(tokio::time::sleep(FIRST_WORD_WITHIN))),
            _permit: permit,
        };
        Some((Ok(connection), (incoming, permits, cut)))
    })
}

/// A connection that fails once it is cut.
pub(super) struct Connection<S> {
    io: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until the first byte came.
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
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
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

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.io.connect_info()
    }
}
