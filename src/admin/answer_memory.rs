//! Limits the bytes of long answers that are in memory at a time.
//!
//! In: requests whose answers can be long. Out: their answers, made one after the other,
//! each counted until it has been sent; or a refusal while too many bytes are counted.
//! Short answers are never refused.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api::Problem;
use super::connection_slots::ConnectionSlots;

/// The answers in memory; cheap to clone.
#[derive(Clone)]
pub(super) struct AnswerMemory {
    /// Held while an answer is made. Only one long answer is made at a time, so a short one
    /// never waits for several.
    one_at_a_time: Arc<Semaphore>,
    free: Arc<Semaphore>,
    slots: ConnectionSlots,
}

/// An answer that is counted for as long as any part of it is kept.
struct Charged {
    text: Bytes,
    _charge: OwnedSemaphorePermit,
}

/// The most bytes of long answers. 100,000 clients of a large fleet take 40 MB.
const BYTES_MAX: usize = 48 << 20;
/// The longest answer that is not counted, in bytes. If every connection has one of this
/// length, they take a third of [`BYTES_MAX`].
const SHORT: usize = 64 << 10;
/// How long a reader may take nothing before it must give way to others.
const STALLED: Duration = Duration::from_secs(1);

impl AnswerMemory {
    pub(super) fn new(slots: ConnectionSlots) -> Self {
        let one = |permits| Arc::new(Semaphore::new(permits));
        Self { one_at_a_time: one(1), free: one(BYTES_MAX), slots }
    }

    /// Returns how many bytes are counted now.
    pub(super) fn used(&self) -> usize {
        BYTES_MAX - self.free.available_permits()
    }

    /// Counts an answer and returns it; `None` if there is no room. An answer longer than
    /// [`BYTES_MAX`] needs all the room there is.
    async fn charge(&self, text: Bytes) -> Option<Bytes> {
        if text.len() <= SHORT {
            return Some(text);
        }
        let bytes = u32::try_from(text.len().min(BYTES_MAX)).unwrap_or(u32::MAX);
        loop {
            if let Ok(charge) = self.free.clone().try_acquire_many_owned(bytes) {
                return Some(Bytes::from_owner(Charged { text, _charge: charge }));
            }
            if !self.slots.evict_idlest(STALLED) {
                return None;
            }
            // The idlest connection ends now and frees the bytes of its answer.
            tokio::task::yield_now().await;
        }
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// A layer around the routes whose answers can be long. What changes something waits for a
/// body and for etcd, and answers briefly, so it takes no turn.
pub(super) async fn bounded(
    State(memory): State<AnswerMemory>,
    request: Request,
    next: Next,
) -> Response {
    if !request.method().is_safe() {
        return next.run(request).await;
    }
    let _turn = memory.one_at_a_time.acquire().await;
    let (head, body) = next.run(request).await.into_parts();
    // The handlers make complete bodies, so this never waits.
    let text = to_bytes(body, usize::MAX).await.unwrap_or_default();
    match memory.charge(text).await {
        Some(text) => Response::from_parts(head, Body::from(text)),
        None => {
            let error = "too many long answers are being read: ask again, or for less (?limit=N)";
            Problem(StatusCode::SERVICE_UNAVAILABLE, error.to_owned()).into_response()
        }
    }
}
