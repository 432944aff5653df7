//! What streams of every protocol need: the response body, framing of messages, a budget of
//! work, counted bytes, shared texts, the admission of streams with selectors, and the demand of clients.
//!
//! In: bytes and costs of streams. Out: whole messages, admissions and refusals. It knows no
//! protocol and no catalog.

use http::{Response, header};
use tonic::{Code, Status};

pub(crate) mod admission;
pub(crate) mod body;
pub(crate) mod demand;
pub(crate) mod held_bytes;
pub(crate) mod messages;
pub(crate) mod shared_texts;
pub(crate) mod work_budget;

/// Returns the head of a gRPC response. With a status, the response consists of it alone.
pub(crate) fn response(status: Option<&Status>) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
    if let Some(status) = status
        && status.add_header(headers).is_err()
    {
        let bare = Status::new(status.code(), "");
        debug_assert_ne!(bare.code(), Code::Ok);
        let _ = bare.add_header(headers);
    }
    response
}
