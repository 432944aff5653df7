//! Serves the calls of other services than the balancer: health and reflection.
//!
//! In: requests from any client. Out: their answers.
//! It bounds what a request can make the balancer hold before the service sees it: one
//! short message that arrives in time, and few long calls per network.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use lookaside_http2::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::Status;
use tonic::service::Routes;

use super::body::{ServeBody, is_grpc};
use super::peers::Peer;

/// A request's body whose first message has arrived.
struct StartedBody {
    first: Bytes,
    /// The rest of the body. `None` where a request has one message only; the rest is
    /// then not read.
    rest: Option<Rest>,
}

/// The messages after the first, until the client falls silent.
struct Rest {
    incoming: Incoming,
    silent: Pin<Box<Sleep>>,
}

/// The longest message that is read, in bytes. These services have none longer.
pub const MESSAGE_MAX: usize = 4 * 1024;
/// How long the first message may take to arrive. A client sends it at once.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take. These services wait for nothing.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a client may be silent between two messages. A tool sends one question
/// after the other. A connection without a stream may stay as long.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// The bytes before a gRPC message: a flag and the length.
const PREFIX: usize = 5;

/// Answers one request, or refuses it with a gRPC status.
pub(super) async fn call(
    mut others: Routes,
    request: Request<Incoming>,
    peer: &Arc<Peer>,
) -> Response<ServeBody> {
    let path = request.uri().path();
    let many = path.starts_with("/grpc.reflection.");
    let goes_on = many || path == "/grpc.health.v1.Health/Watch";
    let body = if is_grpc(&request) { Some(many) } else { None };
    let (parts, mut incoming) = request.into_parts();
    let body = match body {
        // The body of a request that is no gRPC call is not read.
        None => tonic::body::Body::empty(),
        Some(many) => match timeout(FIRST_WITHIN, first_message(&mut incoming)).await {
            Ok(Ok(first)) => {
                let silent = Box::pin(sleep(SILENT_MAX));
                let rest = many.then_some(Rest { incoming, silent });
                tonic::body::Body::new(StartedBody { first, rest })
            }
            Ok(Err(status)) => return refuse(&status),
            Err(_) => {
                let late = "the message did not come within 5 seconds";
                return refuse(&Status::deadline_exceeded(late));
            }
        },
    };
    let long = match (goes_on, goes_on.then(|| peer.long_call()).flatten()) {
        (true, None) => {
            let many = "too many health watches and reflections at once from one address";
            return refuse(&Status::resource_exhausted(many));
        }
        (_, long) => long,
    };
    let request = Request::from_parts(parts, body);
    let response = match tower::Service::call(&mut others, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if let Some(long) = long {
        return response.map(|body| ServeBody::Other(body, long));
    }
    let (parts, body) = response.into_parts();
    match timeout(ANSWER_WITHIN, whole(body)).await {
        Ok(Some(body)) => Response::from_parts(parts, body),
        Ok(None) | Err(_) => refuse(&Status::internal("no answer")),
    }
}

/// Returns the body up to the end of its first message, with any bytes that arrived
/// together with it. Fails if the message is longer than [`MESSAGE_MAX`] or the client
/// disconnected.
async fn first_message(incoming: &mut Incoming) -> Result<Bytes, Status> {
    let mut all = BytesMut::new();
    loop {
        if let Some(prefix) = all.first_chunk::<PREFIX>() {
            let [_, length @ ..] = *prefix;
            let length = u32::from_be_bytes(length) as usize;
            if length > MESSAGE_MAX {
                let text =
                    format!("the message has {length} bytes: at most {MESSAGE_MAX} are read");
                return Err(Status::resource_exhausted(text));
            }
            if all.len() >= PREFIX + length {
                return Ok(all.freeze());
            }
        }
        let held = all.len();
        let frame = poll_fn(|cx| {
            incoming.hold(held, cx);
            Pin::new(&mut *incoming).poll_frame(cx)
        });
        match frame.await {
            Some(Ok(frame)) => all.extend(frame.into_data().ok()),
            Some(Err(_)) => return Err(Status::cancelled("the client is gone")),
            // The message is incomplete. The service will say so.
            None => return Ok(all.freeze()),
        }
    }
}

/// Returns the complete body and trailers of an answer. `None` if the service fails.
async fn whole(mut body: tonic::body::Body) -> Option<ServeBody> {
    let (mut data, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.ok()?.into_data() {
            Ok(some) => data.extend_from_slice(&some),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Some(ServeBody::Whole(data.freeze(), trailers))
}

fn refuse(status: &Status) -> Response<ServeBody> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    // All texts here are valid header values.
    let _ = status.add_header(&mut headers);
    let mut response = Response::new(ServeBody::Nothing);
    *response.headers_mut() = headers;
    response
}

impl Body for StartedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            // The message has been read. If it counted as unread, the stream would end
            // as one with an unfinished message.
            self.rest.iter_mut().for_each(|rest| rest.incoming.hold(0, cx));
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(Rest { incoming, silent }) = &mut self.rest else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
            // Silence counts as the end of the body.
            return silent.as_mut().poll(cx).map(|()| None);
        };
        silent.as_mut().reset(Instant::now() + SILENT_MAX);
        // The service holds one message at most.
        incoming.hold(0, cx);
        Poll::Ready(frame.map(|frame| frame.map_err(|_| Status::cancelled("the client is gone"))))
    }
}
