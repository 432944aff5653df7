//! Charges the peer of any transport.
//!
//! In: a transport, and a function that charges its peer. Out: a transport with the same
//! bytes that a connection accepts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Metered;

/// A transport whose peer is charged by a function.
pub struct WithMeter<S, M> {
    io: S,
    meter: M,
}

impl<S, M: FnMut(&mut S, isize)> WithMeter<S, M> {
    /// Makes a transport from `io`. `meter` gets `io` and the cost to charge its peer, in
    /// bytes: see [`Metered::charge`].
    pub fn new(io: S, meter: M) -> Self {
        Self { io, meter }
    }
}

impl<S, M: FnMut(&mut S, isize)> Metered for WithMeter<S, M> {
    fn charge(&mut self, cost: isize) {
        (self.meter)(&mut self.io, cost);
    }
}

impl<S: AsyncRead + Unpin, M: Unpin> AsyncRead for WithMeter<S, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, M: Unpin> AsyncWrite for WithMeter<S, M> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
