//! Parses etcd endpoints as operators write them. Pure.
//!
//! In: text. Out: a URL, or the problem with the text. Neither ever shows a password.

use http::Uri;

/// Returns a URL with scheme, host and port. With `tls`, a bare `host:port` means
/// `https`.
///
/// # Errors
/// The problem, if the text is no endpoint.
pub(super) fn url(text: &str, tls: bool) -> Result<String, &'static str> {
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false if tls => format!("https://{text}"),
        false => format!("http://{text}"),
    };
    let uri: Uri = whole.parse().map_err(|_| "expected http://host:port or https://host:port")?;
    match (uri.scheme_str(), tls) {
        (Some("http"), false) | (Some("https"), true) => {}
        (Some("https"), false) => {}
        (Some("http"), true) => return Err("certificates are given, so it must be https"),
        _ => return Err("expected http://host:port or https://host:port"),
    }
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("user and password are options of their own");
    }
    if authority.host().is_empty() {
        return Err("it names no host");
    }
    // 80 and 443, http's defaults, are never etcd's port: an operator who gives none
    // forgot it.
    if authority.port_u16().is_none_or(|port| port == 0) {
        return Err("it has no port from 1 to 65535; etcd's is 2379");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("nothing may follow the port");
    }
    Ok(whole.trim_end_matches('/').to_owned())
}

/// Replaces the text before the host, such as a user and a password, by `***`.
pub(super) fn masked(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}***@{host}"),
        None => format!("{scheme}***"),
    }
}
