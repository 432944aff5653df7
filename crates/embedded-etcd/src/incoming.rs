//! Limits the body of a request, message by message.
//!
//! In: a body. Out: the same body, with three limits: a message is passed on only once there
//! is room for it, it must be complete within [`MESSAGE_TIMEOUT`], and it is refused by its
//! announced length where etcd would refuse it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::MESSAGE_MAX;
use super::message_budget::{MessageBudget, Reservation, Share};

/// How long a message may take. It is long enough for the largest one on a slow network.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The length of gRPC's prefix of a message: a flag and a length.
const PREFIX: usize = 5;

/// The reservation of the last message that was passed on.
pub(super) type LastReservation = Arc<Mutex<Option<Reservation>>>;

/// The body of a request.
pub(super) struct Incoming {
    body: tonic::body::Body,
    budget: MessageBudget,
    share: Share,
    /// The bytes that came and are not passed on yet.
    arrived: BytesMut,
    stage: Stage,
    last_reservation: LastReservation,
    /// A message has begun.
    begun: bool,
    /// The time by which the message must be complete; `None` between messages of a stream.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the request is a stream, with any time between its messages.
    stream: bool,
}

enum Stage {
    Prefix,
    Waiting(usize, Pin<Box<dyn Future<Output = Result<Reservation, Status>> + Send>>),
    /// The bytes of the message that are still missing.
    Message(usize),
    Over,
}

impl Incoming {
    pub(super) fn new(
        body: tonic::body::Body,
        budget: MessageBudget,
        share: Share,
        last_reservation: LastReservation,
        stream: bool,
    ) -> Self {
        let (arrived, stage, begun) = (BytesMut::new(), Stage::Prefix, false);
        let deadline = (!stream).then(|| Box::pin(sleep(MESSAGE_TIMEOUT)));
        Self { body, budget, share, arrived, stage, last_reservation, begun, deadline, stream }
    }

    fn take(&self, reservation: Option<Reservation>) {
        *self.last_reservation.lock().unwrap_or_else(PoisonError::into_inner) = reservation;
    }

    fn begin(&mut self) -> Result<(), Status> {
        let mut prefix = &self.arrived[..PREFIX];
        let (flag, length) = (prefix.get_u8(), prefix.get_u32() as usize);
        match flag {
            0 => {}
            1 => {
                let text = "grpc: compressed flag set with identity or empty encoding";
                return Err(Status::internal(text));
            }
            flag => {
                let text = format!("grpc: received unexpected payload format {flag}");
                return Err(Status::internal(text));
            }
        }
        if length > MESSAGE_MAX {
            return Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({length} vs. {MESSAGE_MAX})"
            )));
        }
        let (budget, share) = (self.budget.clone(), self.share.clone());
        let room = Box::pin(async move { budget.reserve(length + PREFIX, &share).await });
        self.stage = Stage::Waiting(length + PREFIX, room);
        self.deadline.get_or_insert_with(|| Box::pin(sleep(MESSAGE_TIMEOUT)));
        Ok(())
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match &mut self.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Prefix if self.arrived.len() >= PREFIX => {
                    // The service has read the previous message.
                    self.take(None);
                    if let Err(status) = self.begin() {
                        return Poll::Ready(Some(Err(status)));
                    }
                    continue;
                }
                Stage::Waiting(length, room) => {
                    let (length, reservation) = (*length, ready!(room.as_mut().poll(cx))?);
                    self.take(Some(reservation));
                    (self.stage, self.begun) = (Stage::Message(length), true);
                    continue;
                }
                Stage::Message(left) if !self.arrived.is_empty() => {
                    let part = self.arrived.split_to(self.arrived.len().min(*left)).freeze();
                    *left -= part.len();
                    if *left == 0 {
                        self.stage = Stage::Prefix;
                        self.deadline = None;
                    }
                    return Poll::Ready(Some(Ok(part)));
                }
                Stage::Prefix | Stage::Message(_) => {}
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.arrived.extend_from_slice(&data),
                    Err(_trailers) => {}
                },
                None => {
                    // These are etcd's error texts.
                    let missing = match self.stage {
                        Stage::Prefix if self.arrived.is_empty() && (self.begun || self.stream) => {
                            None
                        }
                        Stage::Prefix if self.arrived.is_empty() => Some("EOF"),
                        _ => Some("unexpected EOF"),
                    };
                    (self.stage, self.deadline) = (Stage::Over, None);
                    return Poll::Ready(missing.map(|text| Err(Status::unknown(text))));
                }
            }
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let data = match this.poll_data(cx) {
            Poll::Ready(data) => data,
            Poll::Pending => {
                if let Some(deadline) = &mut this.deadline
                    && deadline.as_mut().poll(cx).is_ready()
                {
                    this.stage = Stage::Over;
                    let text = "the request was not whole within 10 seconds";
                    return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
                }
                return Poll::Pending;
            }
        };
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }
}
