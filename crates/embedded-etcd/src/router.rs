//! Receives all requests by HTTP/1 and HTTP/2 and passes them to the services.
//!
//! In: requests. Out: the services' answers, with limits on number and bytes; for unknown
//! services and methods, etcd's errors.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

use super::connection::Peer;
use super::http1;
use super::incoming::{Incoming, LastReservation};
use super::message_budget::MessageBudget;
use super::outgoing::{AnswerReservations, Outgoing};
use super::request_headers::plain_path;

/// The most requests served at a time, with open streams, over all connections. The memory of
/// all of them, beside their messages, is less than a gigabyte.
const REQUESTS_MAX: usize = 20_000;
/// Methods whose request is a stream of any length.
const STREAMS: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];
/// Methods that wait for other clients. They have a reservation of their own (see `queue`).
const WAITING: [&str; 2] = ["/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"];
const SERVICES: [&str; 8] = [
    "etcdserverpb.KV",
    "etcdserverpb.Lease",
    "etcdserverpb.Watch",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
];

/// The services, with the limits of requests.
#[derive(Clone)]
pub(super) struct Router {
    routes: Routes,
    /// The requests in flight.
    requests: MessageBudget,
    permits: Arc<Semaphore>,
}

impl Router {
    pub(super) fn new(routes: Routes) -> Self {
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        Self { routes: routes.prepare(), requests: MessageBudget::default(), permits }
    }

    async fn grpc(mut self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let content_type = content_type(request.headers());
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            return refused(Status::resource_exhausted("etcdserver: too many requests"));
        };
        if let Some(status) = refusal(request.headers()) {
            return refused(status);
        }
        let share = request.extensions().get::<Peer>().map(|peer| peer.share.clone());
        let (budget, share) = (self.requests.clone(), share.unwrap_or_default());
        let stream = STREAMS.contains(&path.as_str());
        // A request's bytes stay reserved until it is answered, not only until it is read.
        let last_reservation = LastReservation::default();
        let held = (!WAITING.contains(&path.as_str())).then(|| last_reservation.clone());
        let mut request = request.map(|body| {
            Body::new(Incoming::new(body, budget, share.requests, last_reservation, stream))
        });
        // `refusal` has checked it, and the services would refuse an empty value.
        request.headers_mut().remove("grpc-encoding");
        let mut response = match self.routes.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        drop(held);
        explain(&path, response.headers_mut());
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        let reservations =
            response.extensions_mut().remove::<AnswerReservations>().unwrap_or_default();
        response.map(|body| Body::new(Outgoing::new(body, reservations, stream, permit)))
    }
}

/// Returns the error of a request that etcd refuses before it looks for a service.
fn refusal(headers: &HeaderMap) -> Option<Status> {
    let encoding = headers.get("grpc-encoding").map(HeaderValue::as_bytes).unwrap_or_default();
    if !matches!(encoding, b"" | b"identity") {
        let encoding = String::from_utf8_lossy(encoding);
        let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
        return Some(Status::unimplemented(text));
    }
    None
}

/// Adds etcd's text to an answer `UNIMPLEMENTED` without text: the unknown service or method.
fn explain(path: &str, headers: &mut HeaderMap) {
    let unknown = headers.get(Status::GRPC_STATUS).and_then(|code| code.to_str().ok())
        == Some("12")
        && headers.get(Status::GRPC_MESSAGE).is_none_or(HeaderValue::is_empty);
    if !unknown {
        return;
    }
    let path = plain_path(path);
    let path = String::from_utf8_lossy(&path);
    let text = match path.rsplit_once('/') {
        Some((service, method)) if SERVICES.contains(&service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("malformed method name: \"/{path}\""),
    };
    headers.remove(header::CONTENT_LENGTH);
    let _ = Status::new(Code::Unimplemented, text).add_header(headers);
}

/// Returns the content type of the answer. As in etcd, it is that of the request.
fn content_type(headers: &HeaderMap) -> HeaderValue {
    let asked = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let sub = asked.get("application/grpc+".len()..).unwrap_or_default();
    let plain = HeaderValue::from_static("application/grpc");
    if sub.is_empty() {
        return plain;
    }
    HeaderValue::from_bytes(&[b"application/grpc+", sub].concat()).unwrap_or(plain)
}

fn refused(status: Status) -> Response<Body> {
    status.into_http::<Body>()
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let router = self.clone();
        Box::pin(async move {
            if request.version() == Version::HTTP_2 {
                return Ok(router.grpc(request).await);
            }
            let answer = http1::answer(request.method(), request.uri().path());
            Ok(answer.map(Body::new))
        })
    }
}
