//! A stream of any protocol as a response body.
//!
//! In: the request's body. Out: messages, then a status. Each poll reads what the client
//! sent, then returns what is new for it. It has no task and no queue: a client that does not
//! read is not polled, and the newest value waits for it in the catalog, shared.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use lookaside_http2::{Incoming, Outgoing, Part, Pieces};
use tonic::Status;

use super::messages::Messages;

/// What a protocol makes of its client's messages, and what it sends. Dropping it cleans
/// everything up.
pub(crate) trait Conversation: Unpin {
    /// Handles one message. If its stream ended for an invalid message, the client would come
    /// back at once, so there is no error.
    fn take_message(&mut self, message: Bytes);

    /// Returns what handling messages has cost beyond their bytes since the last call, in bytes.
    fn cost(&mut self) -> usize {
        0
    }

    /// Returns what is new for the client. Ready with `None` when the catalog has closed.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pieces>>;

    /// Returns the status with which the stream ends after all that was sent; `None` while
    /// it goes on.
    fn end(&mut self) -> Option<Status> {
        None
    }
}

/// Returns the status of a stream whose client has shown a certificate that no longer counts.
/// It keeps its backends: files that are wrong must not stop calls.
pub(crate) fn certificate_refused() -> Status {
    Status::unauthenticated("the certificate of this connection is no longer accepted")
}

/// A stream whose client has sent its first message.
pub(crate) struct StreamBody<C> {
    requests: Incoming,
    /// Whether there may be data to read. It saves a push from looking into the request's
    /// body, which lies elsewhere in memory.
    unread: bool,
    messages: Messages,
    conversation: C,
    ended: bool,
}

/// How many messages are read before other tasks run.
const MESSAGES_AT_ONCE: usize = 32;

impl<C: Conversation> StreamBody<C> {
    pub(crate) fn new(requests: Incoming, messages: Messages, conversation: C) -> Self {
        Self { requests, unread: true, messages, conversation, ended: false }
    }

    /// Reads what the client sent. Ready with the final status when no more will come.
    /// Unread data counts against the connection: HTTP/2 would end it in time ("too many
    /// data frames").
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.messages.next() {
                Ok(Some(message)) => {
                    self.requests.finish(self.messages.long(message.len()));
                    self.conversation.take_message(message);
                    continue;
                }
                Ok(None) => {}
                Err(status) => return Poll::Ready(status),
            }
            // A message that is not complete yet counts against the windows.
            self.requests.hold(self.messages.len(), cx);
            self.requests.expect(self.messages.expected());
            let Poll::Ready(frame) = Pin::new(&mut self.requests).poll_frame(cx) else {
                self.unread = false;
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.messages.push(&data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Status::cancelled("the client is gone")),
                // The client has closed its side: it wants no more.
                None => return Poll::Ready(Status::ok("")),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Part>> {
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        // Only a message that is no header value fails, and these messages are.
        let _ = status.add_header(&mut trailers);
        Poll::Ready(Some(Part::Trailers(trailers)))
    }
}

impl<C: Conversation> Outgoing for StreamBody<C> {
    fn request_arrived(&mut self) {
        self.unread = true;
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.unread
            && let Poll::Ready(status) = self.poll_requests(cx)
        {
            return self.end(&status);
        }
        if !room {
            // When there is room, the newest value is sent.
            return Poll::Pending;
        }
        if let Some(status) = self.conversation.end() {
            return self.end(&status);
        }
        match ready!(self.conversation.poll_push(cx)) {
            Some(push) => Poll::Ready(Some(Part::Data(push))),
            None => self.end(&Status::unavailable("the balancer is shutting down")),
        }
    }

    fn cost(&mut self) -> usize {
        self.conversation.cost()
    }

    fn is_empty(&self) -> bool {
        self.ended
    }
}
