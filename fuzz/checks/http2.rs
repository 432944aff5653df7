//! Any bytes from a client to the HTTP/2 layer alone, which sends every
//! request's body back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use lookaside_http2::{
    Common, Connection, GracefulClose, Incoming, Outgoing, Part, ResponseFuture, WithMeter,
};

use crate::client;

/// A request's body, as the response's.
struct Echo(Incoming);

/// What `data` says is what [`client::check`] makes of it.
pub fn check(data: &[u8]) {
    client::check(data, "/echo", 4_096, |stream| {
        let stream = WithMeter::new(stream, |_, _| ());
        Connection::new(stream, Common::new(), Arc::new(GracefulClose::default()), answer)
    });
}

fn answer(request: Request<Incoming>) -> ResponseFuture<Echo> {
    Box::pin(async { Response::new(Echo(request.into_body())) })
}

impl Outgoing for Echo {
    fn request_arrived(&mut self) {}

    fn poll_part(&mut self, cx: &mut Context<'_>, room: bool) -> Poll<Option<Part>> {
        if !room {
            return Poll::Pending;
        }
        self.0.hold(0, cx);
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => Part::Data(data.into()),
            Ok(Err(_)) | Err(_) => Part::Broken,
        }))
    }

    fn is_empty(&self) -> bool {
        self.0.is_end_stream()
    }
}
