//! Requests to the services besides the balancer's: health and reflection.
//!
//! In: requests, from whoever comes. Out: their answers. What a request may
//! make us hold is bounded before the service sees it: one short message, in
//! time; and of calls that go on and on a network has a few.

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

/// A request's body once its first message is there.
struct Begun {
    first: Bytes,
    /// None where a request has one message, whatever is said behind it.
    rest: Option<Rest>,
}

/// What a client says behind its first message, until it falls silent.
struct Rest {
    incoming: Incoming,
    silent: Pin<Box<Sleep>>,
}

/// Longer messages than this are none that these services have.
pub const MESSAGE_MAX: usize = 4 * 1024;
/// A client says what it asks for at once.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// These services wait for nobody.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A tool asks one question after the other. As long as a connection without a
/// stream has.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Flag and length.
const PREFIX: usize = 5;

/// Answers one request.
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
        // Nothing that is no gRPC is read.
        None => tonic::body::Body::empty(),
        Some(many) => match timeout(FIRST_WITHIN, first_message(&mut incoming)).await {
            Ok(Ok(first)) => {
                let silent = Box::pin(sleep(SILENT_MAX));
                let rest = many.then_some(Rest { incoming, silent });
                tonic::body::Body::new(Begun { first, rest })
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

/// The body up to the end of its first message; with what came behind it.
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
            // Too little, as the service will say.
            None => return Ok(all.freeze()),
        }
    }
}

/// An answer that does not go on, as it is sent.
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
    // Our own texts are header values.
    let _ = status.add_header(&mut headers);
    let mut response = Response::new(ServeBody::Nothing);
    *response.headers_mut() = headers;
    response
}

impl Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            // It is read: what stays unread is taken for one without an end.
            self.rest.iter_mut().for_each(|rest| rest.incoming.hold(0, cx));
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(Rest { incoming, silent }) = &mut self.rest else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
            // As if it had said that this was all.
            return silent.as_mut().poll(cx).map(|()| None);
        };
        silent.as_mut().reset(Instant::now() + SILENT_MAX);
        // The service holds a message, and no more than one.
        incoming.hold(0, cx);
        Poll::Ready(frame.map(|frame| frame.map_err(|_| Status::cancelled("the client is gone"))))
    }
}
