//! Holds what all connections of one network share.
//!
//! In: a connection's address, and what it needs beyond its own budget. Out: how much
//! of that it gets.
//! A connection's own budget suffices for any client, so clients behind one address do
//! not slow each other down.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Network;

use super::handshakes::Handshakes;

/// One network. It is kept while it has connections or has not paid back what it used.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) network: Network,
    pool: Mutex<Pool>,
    handshakes: OnceLock<Handshakes>,
    /// Open calls of other services that stay open.
    calls: AtomicU32,
}

#[derive(Debug)]
struct Pool {
    left: i64,
    filled: Instant,
}

/// A call that stays open. It is counted until it is dropped.
#[derive(Debug)]
pub(super) struct LongCall(Arc<Peer>);

/// How many bytes per second all connections of a network may send together, beyond
/// their own budgets. Sent as the smallest frames, they cost some hundredths of a core.
const POOL_PER_SECOND: i64 = 64 * 1024;
/// The most that the shared budget can hold, in bytes: four of grpclb's largest messages, or
/// the calls of a proxy with some hundred streams.
const POOL_BURST: i64 = 256 * 1024;
/// How many health watches and reflection calls a network may have open. A tool has
/// one.
const CALLS_MAX: u32 = 32;

impl Peer {
    pub(super) fn new(network: Network) -> Arc<Self> {
        let pool = Mutex::new(Pool { left: POOL_BURST, filled: Instant::now() });
        let (handshakes, calls) = (OnceLock::new(), AtomicU32::new(0));
        Arc::new(Self { network, pool, handshakes, calls })
    }

    /// Takes `bytes` from the shared budget, or what is left of it. Returns how many it
    /// took.
    pub(super) fn take(&self, bytes: i64) -> i64 {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.fill();
        let taken = pool.left.min(bytes);
        pool.left -= taken;
        taken
    }

    /// Returns the network's TLS handshakes.
    pub(super) fn handshakes(&self) -> &Handshakes {
        self.handshakes.get_or_init(Handshakes::default)
    }

    /// Counts one more long call. Returns `None` if there are too many.
    pub(super) fn long_call(self: &Arc<Self>) -> Option<LongCall> {
        let before = self.calls.fetch_add(1, Ordering::Relaxed);
        let call = LongCall(self.clone());
        (before < CALLS_MAX).then_some(call)
    }

    /// Returns whether the network can be forgotten without loss: its budget is full, and
    /// no handshake runs or failed recently.
    pub(super) fn is_fresh(&self) -> bool {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.fill();
        pool.left == POOL_BURST && self.handshakes.get().is_none_or(Handshakes::is_fresh)
    }
}

impl Pool {
    fn fill(&mut self) {
        let now = Instant::now();
        let due = refill(now.duration_since(self.filled), POOL_PER_SECOND);
        if due > 0 {
            self.left = self.left.saturating_add(due).min(POOL_BURST);
            self.filled = now;
        }
    }
}

impl Drop for LongCall {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns how many bytes a budget gains in `time`.
pub(super) fn refill(time: Duration, per_second: i64) -> i64 {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    micros.saturating_mul(per_second) / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_shared_comes_back_with_time() {
        let peer = Peer::new(IpAddr::from([10, 0, 0, 1]).into());
        assert_eq!(peer.take(POOL_BURST - 1), POOL_BURST - 1);
        assert_eq!((peer.take(1_000), peer.take(1_000)), (1, 0));
        assert!(!peer.is_fresh());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(peer.take(POOL_BURST), POOL_PER_SECOND);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(peer.is_fresh());
    }

    #[test]
    fn long_calls_are_counted_until_they_are_over() {
        let _runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let peer = Peer::new(IpAddr::from([10, 0, 0, 1]).into());
        let mut calls: Vec<_> = (0..CALLS_MAX).map(|_| peer.long_call().unwrap()).collect();
        assert!(peer.long_call().is_none() && peer.long_call().is_none());
        calls.pop();
        assert!(peer.long_call().is_some());
    }
}
