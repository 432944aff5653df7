//! Routes requests; answers health probes, the dashboard, and unknown paths.
//!
//! In: requests. Out: short texts, the dashboard's files, or a `Problem` that lists the
//! paths. The dashboard reads its data from `/api/v1` like any other client.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::access::{self, Guard, Sender};
use super::answer_memory::{self, AnswerMemory};
use super::api::{self, Problem};
use super::client_marks;
use super::connection_slots::ConnectionSlots;
use super::marks::{self, Request};
use super::{State, balancers, explain, host, json, metrics, sent, services, settings};
use crate::model::text;

/// Allows scripts and styles from this server only, and none inline: registered names may
/// contain any text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const READ: &str = "/, /glossary, /livez, /readyz, /metrics, /api/v1/status, /api/v1/registry, \
    /api/v1/services, /api/v1/services/{name}, /api/v1/clients, \
    /api/v1/clients/{id}, /api/v1/denied, /api/v1/rejected, \
    /api/v1/explain, /api/v1/settings, /api/v1/marks, /api/v1/balancers";
const CHANGED: &str = "/api/v1/services/{name}/drain, /api/v1/services/{name}/undrain, \
    /api/v1/services/{name}/release, /api/v1/settings/diff";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
/// As text: browsers show no Markdown, and save it instead.
const MARKDOWN: &str = "text/plain; charset=utf-8";

pub(super) fn router(state: Arc<State>, slots: ConnectionSlots) -> Router {
    let memory = AnswerMemory::new(slots);
    let long = Router::new()
        .route("/metrics", get(metrics::scrape))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/registry", get(api::registry))
        .route("/api/v1/services", get(services::services))
        .route("/api/v1/services/{*name}", get(services::service).post(change))
        .route("/api/v1/clients", get(api::clients))
        .route("/api/v1/clients/{id}", get(sent::client))
        .route("/api/v1/denied", get(api::denied))
        .route("/api/v1/rejected", get(api::rejected))
        .route("/api/v1/xds/bootstrap", get(api::xds_bootstrap))
        .route("/api/v1/explain", get(explain::explain))
        .route("/api/v1/settings", get(settings::in_force))
        .route("/api/v1/marks", get(marks::marks))
        .route("/api/v1/balancers", get(balancers::balancers))
        .layer(from_fn_with_state(memory.clone(), answer_memory::bounded));
    let hosts = state.hosts.clone();
    let guard = Guard::new(state.access.clone(), state.counters.clone());
    Router::new()
        .route("/", get(|| file(HTML, include_str!("dashboard.html"))))
        .route("/dashboard.js", get(|| file(SCRIPT, include_str!("dashboard.js"))))
        .route("/dashboard.css", get(|| file(STYLE, include_str!("dashboard.css"))))
        .route("/glossary", get(|| file(MARKDOWN, include_str!("../../docs/glossary.md"))))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route(settings::DIFF, post(settings::diff))
        .merge(long)
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(guard, access::checked))
        .layer(from_fn_with_state(hosts, host::checked))
        .layer(map_response(with_headers))
        .layer(Extension(memory))
        .with_state(state)
}

async fn readyz(
    Shared(state): Shared<Arc<State>>,
    Extension(Sender(role)): Extension<Sender>,
) -> (StatusCode, String) {
    let missing = state.readiness.missing();
    let mut lines = missing.clone();
    if lines.is_empty() {
        lines.push("ok".to_owned());
    }
    let status = state.catalog.status();
    if let Some(saved) = &status.restored {
        lines.push(format!("registry: not read yet: serving the state saved at {saved}"));
    }
    if let Some((since, reason)) = &status.stale {
        let silent = json::seconds(since.elapsed());
        let served = status.served();
        // The reason may name etcd's address, which is not for everyone.
        let reason = role.map(|_| format!(" ({})", text::shown(reason))).unwrap_or_default();
        lines.push(format!("registry: stale for {silent} s{reason}: {served}"));
    }
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, lines.join("\n"))
}

async fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)], text)
}

/// Answers a POST below a service, which sets or ends a mark.
async fn change(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let path = uri.path().to_owned();
    let request = Request { uri, headers, body };
    match changes(&path) {
        Some(marks::DRAIN) => marks::drain(&state, request).await.into_response(),
        Some(marks::UNDRAIN) => marks::undrain(&state, request).await.into_response(),
        Some(client_marks::SHED) => client_marks::shed(&state, request).await.into_response(),
        Some(client_marks::UNSHED) => client_marks::unshed(&state, request).await.into_response(),
        Some(client_marks::FALLBACK) => {
            client_marks::fallback(&state, request).await.into_response()
        }
        Some(client_marks::UNFALLBACK) => {
            client_marks::unfallback(&state, request).await.into_response()
        }
        Some(_) => marks::release(&state, request).await.into_response(),
        None => {
            let refused = not_allowed(Method::POST, request.uri).await;
            ([(ALLOW, "GET,HEAD")], refused).into_response()
        }
    }
}

/// Returns the end of a path that changes a service; `None` for other paths.
fn changes(path: &str) -> Option<&'static str> {
    let about_clients = [
        client_marks::SHED,
        client_marks::UNSHED,
        client_marks::FALLBACK,
        client_marks::UNFALLBACK,
    ];
    let mut ends = [marks::DRAIN, marks::UNDRAIN, marks::RELEASE].into_iter().chain(about_clients);
    ends.find(|end| path.starts_with(api::SERVICES) && path.ends_with(end))
}

async fn not_found(uri: Uri) -> Problem {
    let path = uri.path();
    let error = format!("there is nothing at {path:?}: GET answers {READ}; POST answers {CHANGED}");
    Problem(StatusCode::NOT_FOUND, error)
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    let known = match path {
        settings::DIFF => "it is asked with POST",
        _ if changes(path).is_some() => "it is changed with POST",
        _ => "it is read with GET or HEAD",
    };
    let error = format!("{method} does nothing at {path:?}: {known}; POST answers {CHANGED} only");
    Problem(StatusCode::METHOD_NOT_ALLOWED, error)
}

/// Adds the headers of every answer: not to be cached, and of the type that it states.
async fn with_headers(mut response: Response) -> Response {
    let fixed: [(HeaderName, &'static str); 3] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
