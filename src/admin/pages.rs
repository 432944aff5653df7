//! Which path is answered by what; probes, dashboard and wrong turns.
//!
//! In: requests. Out: short texts, the dashboard's files, or a `Problem` that
//! lists where to go. The dashboard gets its data from `/api/v1` like anyone.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::api::{self, Problem};
use super::{State, json, metrics};

/// Scripts and styles from here alone, nothing inline: registered names are
/// anybody's text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const ENDPOINTS: &str = "/, /livez, /readyz, /metrics, /api/v1/status, /api/v1/registry, \
    /api/v1/services, /api/v1/services/{name}, /api/v1/clients, /api/v1/rejected";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(|| file(HTML, include_str!("dashboard.html"))))
        .route("/dashboard.js", get(|| file(SCRIPT, include_str!("dashboard.js"))))
        .route("/dashboard.css", get(|| file(STYLE, include_str!("dashboard.css"))))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::scrape))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/registry", get(api::registry))
        .route("/api/v1/services", get(api::services))
        .route("/api/v1/services/{*name}", get(api::service).post(change))
        .route("/api/v1/clients", get(api::clients))
        .route("/api/v1/rejected", get(api::rejected))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(map_response(with_headers))
        .with_state(state)
}

async fn readyz(Shared(state): Shared<Arc<State>>) -> (StatusCode, String) {
    let missing = state.readiness.missing();
    let mut lines = missing.clone();
    if lines.is_empty() {
        lines.push("ok".to_owned());
    }
    let status = state.catalog.status();
    if let Some(saved) = status.restored {
        lines.push(format!("registry: not read yet: serving from the state of {saved}"));
    }
    if let Some((since, reason)) = status.stale {
        let silent = json::seconds(since.elapsed());
        lines.push(format!(
            "registry: not heard for {silent} s ({reason}): serving what was last read"
        ));
    }
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, lines.join("\n"))
}

async fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)], text)
}

/// The one thing that can be changed here.
async fn change(state: Shared<Arc<State>>, uri: Uri, headers: HeaderMap) -> Response {
    if uri.path().ends_with(api::RELEASE) {
        return api::release(state, uri, headers).await.into_response();
    }
    ([(ALLOW, "GET,HEAD")], not_allowed(Method::POST).await).into_response()
}

async fn not_found(uri: Uri) -> Problem {
    let path = uri.path();
    Problem(StatusCode::NOT_FOUND, format!("there is nothing at {path:?}: ask for {ENDPOINTS}"))
}

async fn not_allowed(method: Method) -> Problem {
    let error = format!("{method} is not understood here: everything here is read with GET");
    Problem(StatusCode::METHOD_NOT_ALLOWED, error)
}

/// What every answer says: it is news, and it is what its type says.
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
