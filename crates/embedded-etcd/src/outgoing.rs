//! Sends the body of an answer in pieces, as its client reads them.
//!
//! In: a body, and the reservation of its bytes. Out: pieces so short that a slow client is
//! held back by HTTP/2's windows and does not fill memory. An answer can be ended from
//! outside, which releases its bytes at once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status};

use super::message_budget::{Cancellable, Reservation};

/// The length of a piece, in bytes: the most that the HTTP/2 library holds for a stream.
const PIECE: usize = 16 * 1024;

/// The reservations of an answer, until the client has read it. Clones share them.
#[derive(Clone, Default)]
pub(super) struct AnswerReservations(Arc<Mutex<Vec<Reservation>>>);

impl AnswerReservations {
    /// Takes over the reservation of a message.
    pub(super) fn add(&self, reservation: Reservation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
    }

    /// Releases all reservations, after all messages have been read.
    fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn progress(&self, holder: &Weak<dyn Cancellable>, read: usize) {
        for reservation in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            reservation.progress(holder.clone(), read);
        }
    }
}

/// The body of an answer.
pub(super) struct Outgoing {
    shared: Arc<SharedContent>,
    holder: Weak<dyn Cancellable>,
    reservations: AnswerReservations,
    over: bool,
    /// Whether the call is a stream, which its client may open again.
    stream: bool,
    /// The permit of this request among those served at a time.
    _permit: OwnedSemaphorePermit,
}

/// The content, until it is dropped by [`Cancellable::cancel`].
struct SharedContent(Mutex<Option<Content>>);

struct Content {
    body: tonic::body::Body,
    /// The bytes left of the last data frame.
    rest: Bytes,
    /// Whether data has been passed on since the last release of reservations.
    has_sent: bool,
    reservations: AnswerReservations,
}

impl Outgoing {
    pub(super) fn new(
        body: tonic::body::Body,
        reservations: AnswerReservations,
        stream: bool,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let content = Content {
            body,
            rest: Bytes::new(),
            has_sent: false,
            reservations: reservations.clone(),
        };
        let shared = Arc::new(SharedContent(Mutex::new(Some(content))));
        let whole: Arc<dyn Cancellable> = shared.clone();
        let holder = Arc::downgrade(&whole);
        reservations.progress(&holder, 0);
        Self { shared, holder, reservations, over: false, stream, _permit: permit }
    }
}

impl Cancellable for SharedContent {
    fn cancel(&self) {
        let content = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(content) = content {
            content.reservations.release();
        }
    }
}

impl Content {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            // The reservations before the first data are for this data: keep them.
            if std::mem::take(&mut self.has_sent) {
                self.reservations.release();
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
            self.has_sent = true;
        }
        // The piece is copied, because a slice would keep the whole frame in memory.
        let piece = Bytes::copy_from_slice(&self.rest[..self.rest.len().min(PIECE)]);
        self.rest.advance(piece.len());
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut content = this.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(there) = &mut *content else {
            drop(content);
            if std::mem::replace(&mut this.over, true) {
                return Poll::Ready(None);
            }
            let mut trailers = HeaderMap::new();
            let code = if this.stream { Code::Unavailable } else { Code::ResourceExhausted };
            let status = Status::new(code, "etcdserver: the answer was not read in time");
            let _ = status.add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        };
        let frame = ready!(there.poll(cx));
        drop(content);
        let read = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        this.reservations.progress(&this.holder, read);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let content = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.as_ref().is_some_and(|c| c.rest.is_empty() && c.body.is_end_stream())
    }
}
