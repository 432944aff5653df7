//! Limits the TLS handshakes that run at a time, per network and in all.
//!
//! In: peers whose ClientHello has arrived. Out: their TLS streams.
//! A handshake costs the balancer as much as some hundred pushes, and the peer almost
//! nothing. So a failed handshake keeps its slot for a while before its network can use
//! it again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;

/// The handshakes of one network.
#[derive(Debug)]
pub(super) struct Handshakes {
    slots: Semaphore,
    /// When failed handshakes give their slots back, the earliest first.
    failed: Mutex<VecDeque<Instant>>,
}

/// A handshake that runs. Dropped before [`Running::done`], it counts as failed.
struct Running<'a> {
    handshakes: &'a Handshakes,
    slot: Option<SemaphorePermit<'a>>,
}

/// How many handshakes of one network may run at a time. With a round trip of 50 ms
/// that allows 2,500 a second.
const SLOTS: usize = 128;
/// How long a failed handshake keeps its slot. A network can fail 64 handshakes a
/// second, which cost a hundredth of a core.
const PENALTY: Duration = Duration::from_secs(2);
/// How long the peer of a failed handshake may take to read why it failed: some round trips.
const READ_ALERT_WITHIN: Duration = Duration::from_secs(1);
/// How often a waiting handshake looks for slots that came back.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many handshakes of all networks compute at a time. More would keep the runtime
/// from its streams.
const COMPUTING: usize = 4;

/// Limits the handshakes that compute at a time, over all networks.
#[derive(Debug)]
pub(super) struct Computing(Semaphore);

impl Default for Computing {
    fn default() -> Self {
        Self(Semaphore::new(COMPUTING))
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { slots: Semaphore::new(SLOTS), failed: Mutex::default() }
    }
}

impl Handshakes {
    /// Waits for the ClientHello and for a slot, then performs the handshake. Returns
    /// the TLS stream, or the error that ended the handshake.
    pub(super) async fn handshake<S>(
        &self,
        stream: S,
        config: Arc<ServerConfig>,
        computing: &Computing,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let running = self.enter().await;
        let mut accept = Box::pin(hello.into_stream(config).into_fallible());
        let turn = computing.0.acquire().await;
        let begun = poll!(&mut accept);
        drop(turn);
        let shaken = match begun {
            Poll::Ready(shaken) => shaken,
            Poll::Pending => accept.await,
        };
        match shaken {
            Ok(stream) => {
                running.done();
                Ok(stream)
            }
            Err((error, stream)) => {
                drop(running);
                let _ = timeout(READ_ALERT_WITHIN, until_closed(stream)).await;
                Err(error)
            }
        }
    }

    /// Counts a completed handshake as failed after all: its connection never spoke
    /// HTTP/2.
    pub(super) fn failed(&self) {
        self.slots.forget_permits(1);
        self.lock().push_back(Instant::now() + PENALTY);
    }

    /// Returns whether no handshake runs and none has failed recently.
    pub(super) fn is_fresh(&self) -> bool {
        self.give_back();
        self.slots.available_permits() >= SLOTS
    }

    async fn enter(&self) -> Running<'_> {
        loop {
            self.give_back();
            if let Ok(Ok(slot)) = timeout(LOOK_EVERY, self.slots.acquire()).await {
                return Running { handshakes: self, slot: Some(slot) };
            }
        }
    }

    fn give_back(&self) {
        let now = Instant::now();
        let mut failed = self.lock();
        while failed.front().is_some_and(|due| *due <= now) {
            failed.pop_front();
            self.slots.add_permits(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the peer of a failed handshake has closed the connection. It may have gone on
/// to send: if that is not read, the system resets the connection, and the peer may lose the
/// alert that says why.
async fn until_closed<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut buffer = [0; 512];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    }
}

impl Running<'_> {
    fn done(mut self) {
        self.slot = None;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.forget();
            self.handshakes.lock().push_back(Instant::now() + PENALTY);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::server::ResolvesServerCertUsingSni;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn handshakes_that_come_to_nothing_leave_room_only_after_a_time() {
        let handshakes = Handshakes::default();
        let began = Instant::now();
        for _ in 0..1_000 {
            drop(handshakes.enter().await);
        }
        // 128 at once, and 128 more every two seconds.
        let took = began.elapsed();
        assert!((14..=16).contains(&took.as_secs()), "{took:?}");
        assert!(!handshakes.is_fresh());
        tokio::time::advance(PENALTY).await;
        assert!(handshakes.is_fresh());
        // A handshake that completed, on a connection that then said nothing.
        handshakes.failed();
        assert!(!handshakes.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_that_are_done_cost_no_time() {
        let handshakes = Handshakes::default();
        let began = Instant::now();
        for _ in 0..10_000 {
            handshakes.enter().await.done();
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// A silent peer takes no slot.
    #[tokio::test(start_paused = true)]
    async fn a_slot_is_taken_only_once_the_hello_is_there() {
        let (mut theirs, ours) = tokio::io::duplex(1_024);
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let (handshakes, computing) = (Handshakes::default(), Computing::default());
        let handshake = handshakes.handshake(ours, Arc::new(config), &computing);
        theirs.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        assert!(timeout(Duration::from_secs(4), handshake).await.is_err());
        assert!(handshakes.is_fresh());
    }
}
