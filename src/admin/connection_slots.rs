//! Tracks the connections to the admin address, and ends one when there is no room.
//!
//! In: connections, and the bytes that move on them. Out: a signal to each connection
//! that must go.
//! A new connection always gets a slot. If none is free, the connection on which no byte has
//! moved for longest is evicted.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::clock;

/// All connections; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ConnectionSlots(Arc<Mutex<Slab<SlotState>>>);

/// The slot of one connection, given back when dropped.
pub(super) struct ConnectionSlot {
    slots: ConnectionSlots,
    key: usize,
    /// Cancelled when the connection must go.
    pub(super) evicted: CancellationToken,
}

/// A socket that notifies its slot whenever bytes move.
pub(super) struct TrackedStream<S> {
    socket: S,
    pub(super) slot: ConnectionSlot,
}

struct SlotState {
    /// When a byte last moved in either direction.
    last_byte: Instant,
    evicted: CancellationToken,
}

impl ConnectionSlots {
    /// Takes a slot. If `max` are taken, the idlest connection is evicted.
    pub(super) fn acquire(&self, max: usize) -> ConnectionSlot {
        let mut slots = self.lock();
        let taken = slots.iter().filter(|(_, slot)| !slot.evicted.is_cancelled()).count();
        if taken >= max {
            evict_idlest(&slots, Duration::ZERO);
        }
        let evicted = CancellationToken::new();
        let key = slots.insert(SlotState { last_byte: clock::now(), evicted: evicted.clone() });
        ConnectionSlot { slots: self.clone(), key, evicted }
    }

    /// Evicts the connection on which no byte has moved for longest, if for at least `idle`.
    /// Returns whether there was one.
    pub(super) fn evict_idlest(&self, idle: Duration) -> bool {
        evict_idlest(&self.lock(), idle)
    }

    fn lock(&self) -> MutexGuard<'_, Slab<SlotState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Waits until no byte has moved for `long`.
    pub(super) fn until_idle(&self, long: Duration) -> impl Future<Output = ()> + use<> {
        let (slots, key) = (self.slots.clone(), self.key);
        async move {
            loop {
                let last_byte = match slots.lock().get(key) {
                    Some(slot) => slot.last_byte,
                    None => return,
                };
                if clock::now().duration_since(last_byte) >= long {
                    return;
                }
                tokio::time::sleep_until((last_byte + long).into()).await;
            }
        }
    }

    fn note_byte(&self) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(self.key) {
            slot.last_byte = clock::now();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.lock().remove(self.key);
    }
}

impl<S> TrackedStream<S> {
    pub(super) fn new(socket: S, slot: ConnectionSlot) -> Self {
        Self { socket, slot }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.slot.note_byte();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes));
        self.slot.note_byte();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, pieces));
        self.slot.note_byte();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

fn evict_idlest(slots: &Slab<SlotState>, idle: Duration) -> bool {
    let taken = slots.iter().map(|(_, slot)| slot).filter(|slot| !slot.evicted.is_cancelled());
    let idlest = taken.min_by_key(|slot| slot.last_byte);
    let idlest = idlest.filter(|slot| clock::now().duration_since(slot.last_byte) >= idle);
    idlest.inspect(|slot| slot.evicted.cancel()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idlest_goes_when_there_is_no_room() {
        let slots = ConnectionSlots::default();
        let first = slots.acquire(2);
        let second = slots.acquire(2);
        first.note_byte();
        let third = slots.acquire(2);
        assert!(second.evicted.is_cancelled());
        assert!(!first.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop(first);
        let fourth = slots.acquire(2);
        assert!(!third.evicted.is_cancelled() && !fourth.evicted.is_cancelled(), "there was room");
        assert!(!slots.evict_idlest(Duration::from_secs(60)), "all have moved");
        assert!(slots.evict_idlest(Duration::ZERO) && third.evicted.is_cancelled());
    }
}
