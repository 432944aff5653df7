//! One body type for everything that the port serves.
//!
//! In: the balancer's streams, and what other services answer. Out: frames
//! that hyper can write without copying.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body::{Body, Frame as BodyFrame};
use hyper::body::Incoming;

use crate::balancer::{BalanceStream, Frame};

/// What a response holds.
pub(super) enum ServeBody {
    /// A refusal: headers alone.
    Nothing,
    /// A stream of lists.
    Lists(Box<BalanceStream<Incoming>>),
    /// Another service's answer.
    Other(tonic::body::Body),
}

/// Whether a request can be a gRPC call at all.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    request.method() == Method::POST
        && content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

impl From<Option<BalanceStream<Incoming>>> for ServeBody {
    fn from(stream: Option<BalanceStream<Incoming>>) -> Self {
        stream.map_or(Self::Nothing, |stream| Self::Lists(Box::new(stream)))
    }
}

impl Body for ServeBody {
    type Data = Frame;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Frame>, Self::Error>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::Lists(stream) => {
                let frame = ready!(Pin::new(stream.as_mut()).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Other(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                let whole = |data| Frame::from([data, Bytes::new(), Bytes::new()]);
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(frame.map_data(whole)),
                    Err(status) => Err(Box::new(status).into()),
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Lists(stream) => stream.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }
}
