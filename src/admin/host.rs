//! Checks the name by which a browser asks this server.
//!
//! In: a request's head, and the names that the operator gave. Out: whether the request
//! is answered.
//! A page of another site can point its own name at this address; the browser then lets
//! it read all answers. So only names that no other site can have are answered: IP
//! addresses, `localhost`, and the operator's own.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Problem;

/// A layer around all routes.
pub(super) async fn checked(
    State(names): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    match foreign(&request, &names) {
        None => next.run(request).await,
        Some(host) => {
            let error = format!(
                "the name {host:?} is not known to be this server's: ask by its IP address, or \
                 start it with --admin-host and this name"
            );
            Problem(StatusCode::MISDIRECTED_REQUEST, error).into_response()
        }
    }
}

/// Returns the name that is not this server's, if any. A request without a name does not
/// come from a browser.
fn foreign(request: &Request, names: &[String]) -> Option<String> {
    let said = request.headers().get_all(HOST).iter();
    let mut said: Vec<_> =
        said.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()).collect();
    said.extend(request.uri().authority().map(ToString::to_string));
    said.into_iter().find(|host| !is_ours(host, names))
}

fn is_ours(host: &str, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let name = host.strip_suffix('.').unwrap_or(host);
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    literal.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_other_site_can_have_are_ours() {
        let names = ["lb.example.com".to_owned()];
        for ours in [
            "127.0.0.1",
            "127.0.0.1:12001",
            "[::1]:12001",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "lb.example.com",
            "LB.example.com.:12001",
        ] {
            assert!(is_ours(ours, &names), "{ours}");
        }
        for other in [
            "evil.example",
            "evil.example:12001",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "lb.example.com.evil",
            "",
            "a b",
            "[::1",
        ] {
            assert!(!is_ours(other, &names), "{other}");
        }
    }
}
