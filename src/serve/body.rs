//! One response body type for all services on the gRPC port.
//!
//! In: the streams of grpclb and xDS, and the answers of other services. Out: parts that a
//! connection can write without copying.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body::Body;
use lookaside_http2::{Outgoing, Part};

use crate::balancer::BalanceStream;
use crate::streams::body::StreamBody;
use crate::xds::{LoadStream, XdsStream};

use super::peers::LongCall;

/// The body of a response.
pub(super) enum ServeBody {
    /// No body: a refusal has only headers.
    Nothing,
    /// A stream of lists.
    Lists(StreamBody<BalanceStream>),
    /// A stream of xDS resources.
    Resources(Box<StreamBody<XdsStream>>),
    /// A stream of load reports of xDS.
    Reports(Box<StreamBody<LoadStream>>),
    /// The complete answer of another service: its data and its trailers.
    Whole(Bytes, Option<HeaderMap>),
    /// The answer of another service that stays open.
    Other(tonic::body::Body, #[expect(dead_code, reason = "counted until it is dropped")] LongCall),
}

/// Returns whether a request can be a gRPC call: POST with a gRPC content type.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    request.method() == Method::POST
        && content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

impl From<Option<StreamBody<BalanceStream>>> for ServeBody {
    fn from(stream: Option<StreamBody<BalanceStream>>) -> Self {
        stream.map_or(Self::Nothing, Self::Lists)
    }
}

impl From<Option<Box<StreamBody<XdsStream>>>> for ServeBody {
    fn from(stream: Option<Box<StreamBody<XdsStream>>>) -> Self {
        stream.map_or(Self::Nothing, Self::Resources)
    }
}

impl From<Option<Box<StreamBody<LoadStream>>>> for ServeBody {
    fn from(stream: Option<Box<StreamBody<LoadStream>>>) -> Self {
        stream.map_or(Self::Nothing, Self::Reports)
    }
}

impl Outgoing for ServeBody {
    fn request_arrived(&mut self) {
        match self {
            Self::Lists(stream) => stream.request_arrived(),
            Self::Resources(stream) => stream.request_arrived(),
            Self::Reports(stream) => stream.request_arrived(),
            Self::Nothing | Self::Whole(..) | Self::Other(..) => {}
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>> {
        let body = match self {
            Self::Nothing => return Poll::Ready(None),
            Self::Lists(stream) => return stream.poll_part(cx, room),
            Self::Resources(stream) => return stream.poll_part(cx, room),
            Self::Reports(stream) => return stream.poll_part(cx, room),
            Self::Whole(data, trailers) if data.is_empty() => {
                return Poll::Ready(trailers.take().map(Part::Trailers));
            }
            _ if !room => return Poll::Pending,
            Self::Whole(data, _) => {
                let data = std::mem::take(data);
                return Poll::Ready(Some(Part::Data(data.into())));
            }
            Self::Other(body, _) => body,
        };
        let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => Part::Data(data.into()),
            Ok(Err(frame)) => frame.into_trailers().map_or(Part::Broken, Part::Trailers),
            Err(_) => Part::Broken,
        }))
    }

    fn cost(&mut self) -> usize {
        match self {
            Self::Resources(stream) => stream.cost(),
            Self::Reports(stream) => stream.cost(),
            _ => 0,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Lists(_) | Self::Resources(_) | Self::Reports(_) => false,
            Self::Whole(data, trailers) => data.is_empty() && trailers.is_none(),
            Self::Other(body, _) => body.is_end_stream(),
        }
    }
}
