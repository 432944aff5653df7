//! Everything that is asked for, by HTTP/1 or 2, before it is any service's.
//!
//! In: requests. Out: the services' answers, bounded in number and bytes; for
//! what none of them knows, what etcd says of it.

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
use super::flight::Flight;
use super::heads::plain_path;
use super::http1;
use super::incoming::{Incoming, Taken};
use super::outgoing::{Account, Outgoing};

/// Requests that are served at a time, open streams among them, over all
/// connections: what each may hold beside its message comes to less than a
/// gigabyte.
const REQUESTS_MAX: usize = 20_000;
/// Methods whose requests go on for as long as the client likes.
const STREAMS: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];
/// Methods that wait for others: they hold leave of their own.
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

/// The services, and what may be asked of them at a time.
#[derive(Clone)]
pub(super) struct Front {
    routes: Routes,
    /// Requests on their way in.
    requests: Flight,
    permits: Arc<Semaphore>,
}

impl Front {
    pub(super) fn new(routes: Routes) -> Self {
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        Self { routes: routes.prepare(), requests: Flight::default(), permits }
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
        let (flight, share) = (self.requests.clone(), share.unwrap_or_default());
        let stream = STREAMS.contains(&path.as_str());
        // A request takes its bytes until it is answered, not only until it is read.
        let taken = Taken::default();
        let held = (!WAITING.contains(&path.as_str())).then(|| taken.clone());
        let mut request = request
            .map(|body| Body::new(Incoming::new(body, flight, share.requests, taken, stream)));
        // It was looked at, and an empty one would be refused.
        request.headers_mut().remove("grpc-encoding");
        let mut response = match self.routes.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        drop(held);
        explain(&path, response.headers_mut());
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        let account = response.extensions_mut().remove::<Account>().unwrap_or_default();
        response.map(|body| Body::new(Outgoing::new(body, account, stream, permit)))
    }
}

/// What etcd refuses before it looks for a service.
fn refusal(headers: &HeaderMap) -> Option<Status> {
    let encoding = headers.get("grpc-encoding").map(HeaderValue::as_bytes).unwrap_or_default();
    if !matches!(encoding, b"" | b"identity") {
        let encoding = String::from_utf8_lossy(encoding);
        let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
        return Some(Status::unimplemented(text));
    }
    None
}

/// Says what is unknown, where a service says only that something is.
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

/// As etcd, the answer's is the request's.
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

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move {
            if request.version() == Version::HTTP_2 {
                return Ok(front.grpc(request).await);
            }
            let answer = http1::answer(request.method(), request.uri().path());
            Ok(answer.map(Body::new))
        })
    }
}
