//! Listens to how much a peer says.
//!
//! In: a connection's bytes. Out: the same bytes, but never more of them than
//! a client can mean. What they say is HTTP/2's to judge.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A connection that is listened to.
pub(super) struct Inbound<S> {
    inner: S,
    /// Bytes that may be read now; below zero, read in advance.
    budget: i64,
    filled: Instant,
    /// While the budget is spent.
    pause: Option<Pin<Box<Sleep>>>,
}

/// A client sends a report of some 50 bytes every few seconds, and 60 bytes of
/// window updates and pings for each list it gets. This is a hundred times
/// that; of the smallest frames there are, it costs some hundredths of a core.
const BYTES_PER_SECOND: i64 = 64 * 1024;
/// What may come at once: the largest message there is, four times.
const BURST: i64 = 256 * 1024;

impl<S> Inbound<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, budget: BURST, filled: Instant::now(), pause: None }
    }

    /// Ready when something may be read.
    fn poll_budget(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.budget > 0 {
                return Poll::Ready(());
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let now = Instant::now();
            let due = refill(now.duration_since(self.filled));
            if due > 0 {
                self.budget = (self.budget + due).min(BURST);
                self.filled = now;
            }
            if self.budget > 0 {
                return Poll::Ready(());
            }
            let missing = u64::try_from(1 - self.budget).unwrap_or(1);
            let rate = u64::try_from(BYTES_PER_SECOND).unwrap_or(1);
            self.pause = Some(Box::pin(sleep(Duration::from_millis(missing * 1000 / rate + 1))));
        }
    }
}

/// What a time is worth, in bytes.
fn refill(time: Duration) -> i64 {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX / BYTES_PER_SECOND);
    millis.saturating_mul(BYTES_PER_SECOND) / 1000
}

impl<S: AsyncRead + Unpin> AsyncRead for Inbound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_budget(cx));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        this.budget -= i64::try_from(read).unwrap_or(BURST);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inbound<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_no_faster_than_the_budget_lets_it() {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        let mut inbound = Inbound::new(ours);
        let flood = tokio::spawn(async move {
            let junk = vec![0; 1024 * 1024];
            let _ = peer.write_all(&junk).await;
        });
        let began = Instant::now();
        let mut read = vec![0; 1024 * 1024];
        inbound.read_exact(&mut read).await.unwrap();
        flood.await.unwrap();
        // A quarter of it is free; the rest takes its twelve seconds.
        assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(began.elapsed() <= Duration::from_secs(14), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_says_is_never_delayed() {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        let mut inbound = Inbound::new(ours);
        let began = Instant::now();
        for _ in 0..1_000 {
            peer.write_all(&[0; 60]).await.unwrap();
            inbound.read_exact(&mut [0; 60]).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_millis(5), "{:?}", began.elapsed());
    }
}
