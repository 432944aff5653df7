//! How many bytes of answers may be on their way at a time.
//!
//! In: requests whose answers can be long. Out: their answers, one made after the
//! other, each charged until it has been sent; or a refusal while too much is on
//! its way. Short answers are never refused.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api::Problem;
use super::seats::Seats;

/// What is on its way; cheap to clone.
#[derive(Clone)]
pub(super) struct Answers {
    /// One answer is made at a time, so that short ones never wait for many.
    turn: Arc<Semaphore>,
    free: Arc<Semaphore>,
    seats: Seats,
}

/// An answer, charged for as long as any part of it is kept.
struct Charged {
    text: Bytes,
    _charge: OwnedSemaphorePermit,
}

/// Room for the clients of a large fleet: 100,000 are 40 MB.
const BYTES_MAX: usize = 48 << 20;
/// Shorter answers are not counted; as many as there are connections fit into
/// a third of that.
const SHORT: usize = 64 << 10;
/// A reader that took nothing for so long gives way to others.
const STALLED: Duration = Duration::from_secs(1);

impl Answers {
    pub(super) fn new(seats: Seats) -> Self {
        let one = |permits| Arc::new(Semaphore::new(permits));
        Self { turn: one(1), free: one(BYTES_MAX), seats }
    }

    /// How many bytes are charged now.
    pub(super) fn charged(&self) -> usize {
        BYTES_MAX - self.free.available_permits()
    }

    /// The answer, if there is room for it. One that is longer than all the
    /// room there is goes alone.
    async fn charge(&self, text: Bytes) -> Option<Bytes> {
        if text.len() <= SHORT {
            return Some(text);
        }
        let bytes = u32::try_from(text.len().min(BYTES_MAX)).unwrap_or(u32::MAX);
        loop {
            if let Ok(charge) = self.free.clone().try_acquire_many_owned(bytes) {
                return Some(Bytes::from_owner(Charged { text, _charge: charge }));
            }
            if !self.seats.give_up_stillest(STALLED) {
                return None;
            }
            // Its connection goes now, and the charge with it.
            tokio::task::yield_now().await;
        }
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// A layer around what can answer at length.
pub(super) async fn bounded(
    State(answers): State<Answers>,
    request: Request,
    next: Next,
) -> Response {
    let _turn = answers.turn.acquire().await;
    let (head, body) = next.run(request).await.into_parts();
    // Made whole by our own handlers: this waits for nothing.
    let text = to_bytes(body, usize::MAX).await.unwrap_or_default();
    match answers.charge(text).await {
        Some(text) => Response::from_parts(head, Body::from(text)),
        None => {
            let error = "too many long answers are being read: ask again, or for less (?limit=N)";
            Problem(StatusCode::SERVICE_UNAVAILABLE, error.to_owned()).into_response()
        }
    }
}
