//! Tells whether a peer has begun to speak HTTP/2.
//!
//! In: a connection's bytes, passed through. Out: a flag, set once as many
//! have come as the preface has. What they say is HTTP/2's to judge.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that is listened to.
pub(super) struct Prefaced<S> {
    inner: S,
    missing: Arc<AtomicUsize>,
}

/// Whether the peer has spoken.
pub(super) struct Spoke(Arc<AtomicUsize>);

/// `PRI * HTTP/2.0`, two blank lines and `SM` between (RFC 9113, 3.4).
const PREFACE: usize = 24;

impl<S> Prefaced<S> {
    pub(super) fn new(inner: S) -> (Self, Spoke) {
        let missing = Arc::new(AtomicUsize::new(PREFACE));
        (Self { inner, missing: missing.clone() }, Spoke(missing))
    }
}

impl Spoke {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefaced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let missing = self.missing.load(Ordering::Relaxed);
        if missing > 0 {
            let came = buffer.filled().len() - before;
            self.missing.store(missing.saturating_sub(came), Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefaced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
