//! Tracks the connections to the admin address, and ends one when there is no room.
//!
//! In: connections, and the bytes that move on them. Out: a signal to each connection
//! that must go.
//! A new connection always finds a place: the connection on which no byte has moved for
//! longest gives up its own.

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
pub(super) struct Seats(Arc<Mutex<Slab<Place>>>);

/// The place of one connection, given back when dropped.
pub(super) struct Seat {
    seats: Seats,
    key: usize,
    /// Cancelled when the connection must go.
    pub(super) gone: CancellationToken,
}

/// A socket that tells its seat whenever bytes move.
pub(super) struct Seated<S> {
    socket: S,
    pub(super) seat: Seat,
}

struct Place {
    /// When a byte last moved in either direction.
    moved: Instant,
    gone: CancellationToken,
}

impl Seats {
    /// Takes a seat. If `max` are taken, the stillest one is given up.
    pub(super) fn take(&self, max: usize) -> Seat {
        let mut places = self.lock();
        let taken = places.iter().filter(|(_, place)| !place.gone.is_cancelled()).count();
        if taken >= max {
            give_up_stillest(&places, Duration::ZERO);
        }
        let gone = CancellationToken::new();
        let key = places.insert(Place { moved: clock::now(), gone: gone.clone() });
        Seat { seats: self.clone(), key, gone }
    }

    /// Gives up the seat on which no byte has moved for longest, if for at least `still`.
    /// Returns whether there was one.
    pub(super) fn give_up_stillest(&self, still: Duration) -> bool {
        give_up_stillest(&self.lock(), still)
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits until no byte has moved for `long`.
    pub(super) fn still(&self, long: Duration) -> impl Future<Output = ()> + use<> {
        let (seats, key) = (self.seats.clone(), self.key);
        async move {
            loop {
                let moved = match seats.lock().get(key) {
                    Some(place) => place.moved,
                    None => return,
                };
                if clock::now().duration_since(moved) >= long {
                    return;
                }
                tokio::time::sleep_until((moved + long).into()).await;
            }
        }
    }

    fn moved(&self) {
        let mut places = self.seats.lock();
        if let Some(place) = places.get_mut(self.key) {
            place.moved = clock::now();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(self.key);
    }
}

impl<S> Seated<S> {
    pub(super) fn new(socket: S, seat: Seat) -> Self {
        Self { socket, seat }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.seat.moved();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes));
        self.seat.moved();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, pieces));
        self.seat.moved();
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

fn give_up_stillest(places: &Slab<Place>, still: Duration) -> bool {
    let taken = places.iter().map(|(_, place)| place).filter(|place| !place.gone.is_cancelled());
    let stillest = taken.min_by_key(|place| place.moved);
    let stillest = stillest.filter(|place| clock::now().duration_since(place.moved) >= still);
    stillest.inspect(|place| place.gone.cancel()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stillest_goes_when_there_is_no_room() {
        let seats = Seats::default();
        let first = seats.take(2);
        let second = seats.take(2);
        first.moved();
        let third = seats.take(2);
        assert!(second.gone.is_cancelled());
        assert!(!first.gone.is_cancelled() && !third.gone.is_cancelled());
        drop(first);
        let fourth = seats.take(2);
        assert!(!third.gone.is_cancelled() && !fourth.gone.is_cancelled(), "there was room");
        assert!(!seats.give_up_stillest(Duration::from_secs(60)), "all have moved");
        assert!(seats.give_up_stillest(Duration::ZERO) && third.gone.is_cancelled());
    }
}
