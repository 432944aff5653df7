//! Decides who may read and who may change something, by bearer tokens.
//!
//! In: requests, and the tokens of readers and operators. Out: requests that may pass, each
//! with the role of its sender; 401 or 403 for the others, counted.
//! Whatever a path does not ask for by GET or HEAD needs an operator, so a new path cannot
//! be open by mistake.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Problem;
use super::settings;
use super::tokens::Tokens;
use crate::clock;
use crate::reload::Reloading;
use crate::telemetry::Counters;
use crate::warning_limit::WarningLimit;

/// What a sender may do. An operator may do all that a reader may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Sees the state.
    Reader,
    /// Changes something.
    Operator,
}

/// The tokens of both roles. Without any, everyone who reaches the address is an operator.
#[derive(Clone, Default)]
pub struct Access {
    /// The tokens of readers.
    pub reader: Option<Reloading<Tokens>>,
    /// The tokens of operators.
    pub operator: Option<Reloading<Tokens>>,
}

/// The role of a request's sender; `None` for a sender without a known token, who gets open
/// paths only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender(pub(super) Option<Role>);

tokio::task_local! {
    /// The address at the other end of the connection that is served; `None` on a Unix socket.
    pub(super) static PEER: Option<SocketAddr>;
}

/// Returns the other end of the connection that is served, as text.
pub(super) fn peer() -> String {
    let peer = PEER.try_with(|peer| peer.map(|peer| peer.to_string())).ok().flatten();
    peer.unwrap_or_else(|| "unix socket".to_owned())
}

/// Checks requests, and reports those that it refuses.
#[derive(Clone)]
pub(super) struct Guard {
    access: Access,
    counters: Arc<Counters>,
    /// Who guesses tokens sends many.
    warnings: Arc<Mutex<WarningLimit>>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoToken,
    UnknownToken,
    NotOperator,
}

/// Paths without a secret: probes ask for two of them, and browsers for the page that asks
/// for the token.
const OPEN: [&str; 6] = ["/livez", "/readyz", "/", "/dashboard.js", "/dashboard.css", "/glossary"];

impl Guard {
    pub(super) fn new(access: Access, counters: Arc<Counters>) -> Self {
        Self { access, counters, warnings: Arc::default() }
    }

    /// Counts a refusal. Logs one a minute, but not a missing token, which every browser
    /// that opens the dashboard causes.
    fn note(&self, refusal: Refusal, request: &Request) {
        let refused = &self.counters.admin_refused;
        match refusal {
            Refusal::NoToken => return refused.no_token.increment(),
            Refusal::UnknownToken => refused.unknown_token.increment(),
            Refusal::NotOperator => refused.not_operator.increment(),
        }
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let due = warnings.count(1, clock::now());
        drop(warnings);
        if due.is_none() {
            return;
        }
        let peer = peer();
        let (method, path) = (request.method(), request.uri().path());
        let reason = refusal.reason();
        tracing::warn!(peer, %method, path, reason, "admin request refused");
    }
}

/// A layer around all routes.
pub(super) async fn checked(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    match guard.access.judge(request.method(), request.uri().path(), request.headers()) {
        Ok(sender) => {
            request.extensions_mut().insert(sender);
            next.run(request).await
        }
        Err(refusal) => {
            guard.note(refusal, &request);
            refusal.into_response()
        }
    }
}

impl Access {
    /// Returns the sender of a request, or why it is refused.
    fn judge(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Sender, Refusal> {
        if self.reader.is_none() && self.operator.is_none() {
            return Ok(Sender(Some(Role::Operator)));
        }
        let found = token(headers).map(|token| self.role(token));
        let role = found.flatten();
        match (needed(method, path), role) {
            (None, _) => Ok(Sender(role)),
            (Some(needed), Some(role)) if role >= needed => Ok(Sender(Some(role))),
            (Some(_), Some(_)) => Err(Refusal::NotOperator),
            (Some(_), None) if found.is_some() => Err(Refusal::UnknownToken),
            (Some(_), None) => Err(Refusal::NoToken),
        }
    }

    /// Returns the role of a token. Compares it with all tokens, so that the time tells
    /// nothing.
    fn role(&self, token: &[u8]) -> Option<Role> {
        let known = |tokens: &Option<Reloading<Tokens>>| {
            tokens.as_ref().is_some_and(|tokens| tokens.value().contains(token))
        };
        let (reader, operator) = (known(&self.reader), known(&self.operator));
        match (operator, reader) {
            (true, _) => Some(Role::Operator),
            (false, true) => Some(Role::Reader),
            (false, false) => None,
        }
    }
}

impl Refusal {
    fn reason(self) -> &'static str {
        match self {
            Self::NoToken => "no token",
            Self::UnknownToken => "unknown token",
            Self::NotOperator => "a reader's token",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        const SEND: &str =
            "send `Authorization: Bearer TOKEN`, or give the command --admin-token-file";
        let (status, error) = match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, format!("this needs a token: {SEND}")),
            Self::UnknownToken => {
                (StatusCode::UNAUTHORIZED, format!("the token is not known here: {SEND}"))
            }
            Self::NotOperator => {
                let error = "this changes something and needs an operator's token: the token is \
                             a reader's";
                (StatusCode::FORBIDDEN, error.to_owned())
            }
        };
        let mut response = Problem(status, error).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"lookaside\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Returns the role that a request needs; `None` if it needs none.
fn needed(method: &Method, path: &str) -> Option<Role> {
    let reads = method == Method::GET || method == Method::HEAD;
    match path {
        _ if reads && OPEN.contains(&path) => None,
        _ if reads => Some(Role::Reader),
        // It compares a document with the settings in force, and changes nothing.
        settings::DIFF if method == Method::POST => Some(Role::Reader),
        _ => Some(Role::Operator),
    }
}

/// Returns the token that a request brings. A request with two brings none, because it is
/// not clear which counts.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const READER: &str = "reader-reader-reader";
    const OPERATOR: &str = "operator-operator";

    fn tokens(token: &str) -> Option<Reloading<Tokens>> {
        let tokens = Tokens::parse("--x", Path::new("f"), token.as_bytes());
        Some(Reloading::fixed(tokens.expect("a token")))
    }

    fn judge(access: &Access, request: &str, sent: &[&str]) -> Result<Option<Role>, Refusal> {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(AUTHORIZATION, value.parse().expect("a header"));
        }
        let method = method.parse().expect("a method");
        access.judge(&method, path, &headers).map(|Sender(role)| role)
    }

    #[test]
    fn each_request_needs_its_role() {
        let access = Access { reader: tokens(READER), operator: tokens(OPERATOR) };
        let reader = format!("Bearer {READER}");
        let operator = format!("bearer  {OPERATOR} ");
        let basic = format!("Basic {OPERATOR}");
        let part = format!("Bearer {}", &OPERATOR[1..]);
        let check = |request: &str, sent: &[&str], expected| {
            assert_eq!(judge(&access, request, sent), expected, "{request} {sent:?}");
        };
        use Refusal::{NoToken, NotOperator, UnknownToken};
        for open in OPEN.map(|path| format!("GET {path}")) {
            check(&open, &[], Ok(None));
            check(&open, &["Bearer wrong"], Ok(None));
            check(&open, &[&reader], Ok(Some(Role::Reader)));
        }
        for read in
            ["GET /metrics", "HEAD /api/v1/services/a", "GET /x", "POST /api/v1/settings/diff"]
        {
            check(read, &[], Err(NoToken));
            check(read, &[&basic], Err(NoToken));
            check(read, &[&reader, &operator], Err(NoToken));
            check(read, &[&part], Err(UnknownToken));
            check(read, &["Bearer "], Err(UnknownToken));
            check(read, &[&reader], Ok(Some(Role::Reader)));
            check(read, &[&operator], Ok(Some(Role::Operator)));
        }
        for change in ["POST /api/v1/services/a/drain", "POST /livez", "PUT /", "DELETE /x"] {
            check(change, &[], Err(NoToken));
            check(change, &[&reader], Err(NotOperator));
            check(change, &[&operator], Ok(Some(Role::Operator)));
        }
    }

    #[test]
    fn a_file_for_one_role_closes_the_address_to_all_others() {
        let change = "POST /api/v1/services/a/drain";
        let readers = Access { reader: tokens(READER), operator: None };
        let reader = format!("Bearer {READER}");
        assert_eq!(judge(&readers, change, &[&reader]), Err(Refusal::NotOperator));
        let operators = Access { reader: None, operator: tokens(OPERATOR) };
        assert_eq!(judge(&operators, "GET /metrics", &[]), Err(Refusal::NoToken));
        let nobody = Access::default();
        assert_eq!(judge(&nobody, change, &[]), Ok(Some(Role::Operator)));
    }
}
