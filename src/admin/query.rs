//! Parses the query of a request's URL.
//!
//! In: a query, and the parameters that its path accepts. Out: their values, or a
//! `Problem` that names the parameter, its value and the remedy.

use std::borrow::Cow;

use axum::http::StatusCode;
use percent_encoding::percent_decode_str;

use super::api::Problem;

/// The parameters of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// How many items at most.
    pub(super) limit: Option<usize>,
    /// The service, as typed.
    pub(super) service: Option<String>,
    /// The client: its address, with or without port.
    pub(super) client: Option<String>,
    /// The backend: its name or address, with or without port.
    pub(super) backend: Option<String>,
    /// The zone of clients.
    pub(super) zone: Option<String>,
    /// The server of clients.
    pub(super) server: Option<String>,
    /// The file of the authority that clients trust.
    pub(super) ca: Option<String>,
    /// The file of their certificate.
    pub(super) cert: Option<String>,
    /// The file of its key.
    pub(super) key: Option<String>,
    /// How often they read these files again.
    pub(super) refresh: Option<String>,
}

/// Parses a query. `known` are the parameters that its path accepts.
pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Parameters, Problem> {
    let mut parameters = Parameters::default();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if !known.contains(&&*name) {
            let known = match known {
                [others @ .., last] if !others.is_empty() => {
                    format!("{} and {last}", others.join(", "))
                }
                _ => known.concat(),
            };
            return Err(bad(format!("the parameter {name:?} is unknown: this path takes {known}")));
        }
        let twice = match &*name {
            "service" => parameters.service.replace(value.into_owned()).is_some(),
            "client" => parameters.client.replace(value.into_owned()).is_some(),
            "zone" => parameters.zone.replace(value.into_owned()).is_some(),
            "server" => parameters.server.replace(value.into_owned()).is_some(),
            "ca" => parameters.ca.replace(value.into_owned()).is_some(),
            "cert" => parameters.cert.replace(value.into_owned()).is_some(),
            "key" => parameters.key.replace(value.into_owned()).is_some(),
            "refresh" => parameters.refresh.replace(value.into_owned()).is_some(),
            "backend" => parameters.backend.replace(value.into_owned()).is_some(),
            _ => parameters.limit.replace(limit(&value)?).is_some(),
        };
        if twice {
            return Err(bad(format!("the parameter {name:?} is given twice: give it once")));
        }
    }
    Ok(parameters)
}

fn limit(value: &str) -> Result<usize, Problem> {
    value.parse().map_err(|_| {
        let max = usize::MAX;
        bad(format!("limit={value:?}: expected a whole number from 0 to {max}, as in limit=100"))
    })
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Problem> {
    let spaced: Cow<'_, str> =
        if raw.contains('+') { raw.replace('+', " ").into() } else { raw.into() };
    let decoded = match &spaced {
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8().ok(),
        Cow::Owned(text) => {
            percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned().into())
        }
    };
    decoded.ok_or_else(|| bad(format!("the parameter {raw:?} is no UTF-8: encode it as such")))
}

fn bad(error: String) -> Problem {
    Problem(StatusCode::BAD_REQUEST, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [&str; 2] = ["limit", "service"];

    #[test]
    fn parameters_are_read() {
        let check = |query, limit, service: Option<&str>| {
            let service = service.map(str::to_owned);
            let expected = Parameters { limit, service, ..Parameters::default() };
            assert_eq!(parse(Some(query), &BOTH).unwrap(), expected, "{query}");
        };
        check("", None, None);
        check("limit=7", Some(7), None);
        check("&service=a%2Fb&limit=0&", Some(0), Some("a/b"));
        check("service=a+b", None, Some("a b"));
        check("service=", None, Some(""));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        let check = |query, expected: &str| {
            let Problem(status, error) = parse(Some(query), &BOTH).unwrap_err();
            assert_eq!((status, error.as_str()), (StatusCode::BAD_REQUEST, expected));
        };
        let number = "expected a whole number from 0 to 18446744073709551615, as in limit=100";
        for (query, value) in [
            ("limit=x", "x"),
            ("limit=-1", "-1"),
            ("limit=", ""),
            ("limit", ""),
            ("limit=99999999999999999999", "99999999999999999999"),
        ] {
            check(query, &format!("limit={value:?}: {number}"));
        }
        check("limt=1", "the parameter \"limt\" is unknown: this path takes limit and service");
        check("limit=1&limit=2", "the parameter \"limit\" is given twice: give it once");
        check("service=%ff", "the parameter \"%ff\" is no UTF-8: encode it as such");
    }
}
