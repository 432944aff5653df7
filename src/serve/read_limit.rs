//! Limits how much a peer may send on a connection.
//!
//! In: a connection's bytes, and what they cost to handle. Out: the same bytes, read no
//! faster than any honest client needs.
//! It does not look at the bytes; HTTP/2 does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lookaside_http2::Metered;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::peers::{Peer, refill};

/// A connection whose reads are limited.
pub(super) struct ReadLimit<S> {
    inner: S,
    peer: Arc<Peer>,
    /// How many bytes may be read now. Below zero: bytes that were read in advance.
    own: i64,
    filled: Instant,
    /// The wait for more budget, while `own` is used up.
    pause: Option<Pin<Box<Sleep>>>,
}

/// A connection's own budget, in bytes per second. A client sends a report of about 50
/// bytes every few seconds, and three frames or a few more for each list it gets. A
/// connection that sends more draws on the budget that its network's connections share.
const OWN_PER_SECOND: i64 = 16 * 1024;
/// The most that a connection's own budget can hold, in bytes.
const OWN_BURST: i64 = 16 * 1024;
/// The most that a connection can owe, in bytes: eight seconds. Its answer to a PING must be
/// read within ten.
const DEBT_MAX: i64 = 8 * OWN_PER_SECOND;
/// The budget of a new connection, in bytes: four times what a client sends first.
const OWN_FRESH: i64 = 4 * 1024;
/// The budget until a TLS handshake is done, in bytes. Certificates are long.
const OWN_HANDSHAKE: i64 = 16 * 1024;
/// The cost of a read beyond its bytes. A peer that sends each byte in a packet of its
/// own causes as many reads.
const READ_COST: i64 = 64;
/// How many bytes are taken from the shared budget at a time.
const POOL_DRAW: i64 = 2 * 1024;
/// The shortest pause. Data that arrives during a pause is read at once afterwards.
const PAUSE_MIN: Duration = Duration::from_millis(20);

impl<S> ReadLimit<S> {
    pub(super) fn new(inner: S, peer: Arc<Peer>) -> Self {
        Self { inner, peer, own: OWN_FRESH, filled: Instant::now(), pause: None }
    }

    /// Limits a connection that begins with a TLS handshake.
    pub(super) fn for_handshake(inner: S, peer: Arc<Peer>) -> Self {
        Self { own: OWN_HANDSHAKE, ..Self::new(inner, peer) }
    }

    /// Lowers the budget to that of a new connection, once the handshake is done.
    pub(super) fn handshake_done(&mut self) {
        self.own = self.own.min(OWN_FRESH);
    }

    /// Returns `Ready` once something may be read.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.own > 0 {
                return Poll::Ready(());
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let now = Instant::now();
            let due = refill(now.duration_since(self.filled), OWN_PER_SECOND);
            if due > 0 {
                self.own = self.own.saturating_add(due).min(OWN_BURST);
                self.filled = now;
            }
            if self.own <= 0 {
                self.own += self.peer.take(POOL_DRAW - self.own);
            }
            if self.own <= 0 {
                let millis = u64::try_from((1 - self.own) * 1000 / OWN_PER_SECOND + 1);
                let pause = Duration::from_millis(millis.unwrap_or(1)).max(PAUSE_MIN);
                self.pause = Some(Box::pin(sleep(pause)));
            }
        }
    }
}

impl<S> Metered for ReadLimit<S> {
    fn charge(&mut self, cost: isize) {
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        let most = OWN_BURST.max(self.own);
        self.own = self.own.saturating_sub(cost).clamp(-DEBT_MAX, most);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadLimit<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_own(cx));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        let read = i64::try_from(buffer.filled().len() - before);
        this.own -= read.unwrap_or(OWN_BURST) + READ_COST;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadLimit<S> {
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
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A peer that always has more data, and sends `piece` bytes per read.
    struct Endless {
        piece: usize,
        reads: u64,
    }

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            buffer.put_slice(&vec![0; self.piece.min(buffer.remaining())]);
            Poll::Ready(Ok(()))
        }
    }

    fn peer(last: u8) -> Arc<Peer> {
        Peer::new(IpAddr::from([127, 0, 0, last]).into())
    }

    /// Returns how many reads the connections of one peer get within `secs` seconds, if
    /// every read finds `piece` bytes.
    async fn reads(peer: &Arc<Peer>, connections: usize, piece: usize, secs: u64) -> u64 {
        let began = Instant::now();
        let mut all: Vec<_> = (0..connections)
            .map(|_| ReadLimit::new(Endless { piece, reads: 0 }, peer.clone()))
            .collect();
        let mut buffer = [0; 4096];
        while began.elapsed() < Duration::from_secs(secs) {
            std::future::poll_fn(|cx| {
                for inbound in &mut all {
                    let mut buffer = ReadBuf::new(&mut buffer);
                    while Pin::new(&mut *inbound).poll_read(cx, &mut buffer).is_ready() {
                        buffer.clear();
                    }
                }
                Poll::Ready(())
            })
            .await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        all.iter().map(|inbound| inbound.inner.reads).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_owes_more_than_some_seconds() {
        let peer = peer(9);
        while peer.take(POOL_DRAW) > 0 {}
        let mut limit = ReadLimit::new(Endless { piece: 1, reads: 0 }, peer);
        limit.charge(isize::MAX);
        assert_eq!(limit.own, -DEBT_MAX);
        let mut buffer = [0];
        limit.read_exact(&mut buffer).await.unwrap();
        // What is given back is no more than a burst.
        limit.charge(isize::MIN);
        assert_eq!(limit.own, OWN_BURST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_no_faster_than_its_peer_may_say_it() {
        // Large pieces: first the initial budgets, then 80 KiB a second.
        let large = reads(&peer(1), 1, 4096, 10).await * 4096 / 1024;
        assert!((900..=1_150).contains(&large), "{large} KiB in 10 s");
        // Single bytes cause no more work, so far fewer bytes are read.
        let bytes = reads(&peer(1), 1, 1, 10).await;
        assert!((10_000..=18_000).contains(&bytes), "{bytes} reads in 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_connections_of_a_peer_have_a_little_each_and_the_rest_together() {
        let one = reads(&peer(1), 1, 1, 10).await;
        let hundred = reads(&peer(1), 100, 1, 10).await;
        // A hundred connections get their own budgets, and the shared one once.
        let own = 10 * u64::try_from(OWN_PER_SECOND / READ_COST).unwrap();
        assert!(hundred < one + 102 * own, "{one} {hundred}");
        // Other peers get as much as before.
        assert_eq!(reads(&peer(2), 1, 1, 10).await, one);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_connect_again_and_again_have_no_more_than_who_stays() {
        let peer = peer(1);
        peer.take(i64::MAX);
        let mut buffer = [0; 4096];
        let mut read = 0;
        for _ in 0..100 {
            let mut inbound = ReadLimit::new(Endless { piece: 100, reads: 0 }, peer.clone());
            std::future::poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut buffer);
                while Pin::new(&mut inbound).poll_read(cx, &mut buffer).is_ready() {
                    read += buffer.filled().len();
                    buffer.clear();
                }
                Poll::Ready(())
            })
            .await;
        }
        // Four times what a client sends first.
        assert!((200_000..=410_000).contains(&read), "{read} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_costs_to_answer_counts_like_bytes() {
        let peer = peer(1);
        peer.take(i64::MAX);
        let (mut theirs, ours) = tokio::io::duplex(64 * 1024);
        let mut inbound = ReadLimit::new(ours, peer);
        theirs.write_all(&[0; 8]).await.unwrap();
        inbound.read_exact(&mut [0; 1]).await.unwrap();
        inbound.charge(isize::try_from(OWN_PER_SECOND).unwrap());
        let began = Instant::now();
        inbound.read_exact(&mut [0; 1]).await.unwrap();
        let waited = began.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_millis(1_100)).contains(&waited));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_says_is_never_delayed() {
        let peer = peer(1);
        // Other connections behind its address have used up the shared budget.
        peer.take(i64::MAX);
        let (mut theirs, ours) = tokio::io::duplex(64 * 1024);
        let mut inbound = ReadLimit::new(ours, peer);
        for _ in 0..1_000 {
            let began = Instant::now();
            theirs.write_all(&[0; 60]).await.unwrap();
            inbound.read_exact(&mut [0; 60]).await.unwrap();
            // A WINDOW_UPDATE, a PING and its answer.
            inbound.charge(3 * 32);
            assert!(began.elapsed() < Duration::from_millis(5), "{:?}", began.elapsed());
            // How often lists change for a service that never rests.
            tokio::time::advance(Duration::from_millis(50)).await;
        }
    }
}
