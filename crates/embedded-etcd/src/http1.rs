//! etcd's HTTP/1 endpoints: health and version.
//!
//! In: method and path. Out: the same bytes as etcd's answers. There is no gateway from
//! JSON to gRPC.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;

use super::member::API_VERSION;

/// Returns the answer to a request.
pub(super) fn answer(method: &Method, path: &str) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    let (kind, body) = match path {
        "/health" => (text, r#"{"health":"true"}"#.to_owned()),
        "/version" => {
            let versions =
                format!(r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{API_VERSION}"}}"#);
            ("application/json", versions)
        }
        "/livez" | "/readyz" => (text, "ok\n".to_owned()),
        _ => return respond(StatusCode::NOT_FOUND, text, "404 page not found\n".to_owned()),
    };
    if method == Method::GET {
        return respond(StatusCode::OK, kind, body);
    }
    let refused = "Method Not Allowed\n".to_owned();
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, text, refused);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Such clients rarely ask twice, and an open connection counts against the limit.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
