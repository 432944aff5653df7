//! The meaning of header lists in HTTP (RFC 9113, 8).
//!
//! In: the fields of a header block. Out: the head of a request, or that it is invalid;
//! and the other way, the head of a response as a block. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use super::hpack;

/// Collects the fields of one block.
#[derive(Debug, Default)]
pub(super) struct Fields {
    method: Option<Method>,
    path: Option<Uri>,
    scheme: bool,
    authority: bool,
    headers: HeaderMap,
    size: usize,
    malformed: bool,
}

/// Why a block is no valid head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadError {
    /// It breaks the rules of HTTP/2.
    Malformed,
    /// It is larger than [`SIZE_MAX`].
    TooLarge,
}

/// The size of a field beyond its bytes (RFC 9113, 6.5.2).
const FIELD: usize = 32;
/// The largest header list, in bytes. Requests have a handful of short headers.
pub(super) const SIZE_MAX: usize = 8 * 1024;

impl Fields {
    /// Adds the next field.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) {
        self.size = self.size.saturating_add(name.len() + value.len() + FIELD);
        if self.size > SIZE_MAX || self.malformed {
            return;
        }
        let taken = match name {
            // Pseudo-headers come first, and each one once.
            [b':', ..] if !self.headers.is_empty() => None,
            b":method" if self.method.is_none() => {
                Method::from_bytes(value).ok().map(|method| self.method = Some(method))
            }
            b":path" if self.path.is_none() && matches!(value.first(), Some(b'/' | b'*')) => {
                Uri::try_from(value).ok().map(|path| self.path = Some(path))
            }
            b":scheme" if !self.scheme => {
                self.scheme = true;
                Some(())
            }
            b":authority" if !self.authority => {
                self.authority = true;
                Some(())
            }
            [b':', ..] => None,
            _ => self.header(name, value),
        };
        self.malformed = taken.is_none();
    }

    /// Returns the head of a request.
    ///
    /// # Errors
    /// When the fields are no valid request, or too large.
    pub(super) fn request(self) -> Result<Request<()>, HeadError> {
        self.check()?;
        let (Some(method), Some(path), true) = (self.method, self.path, self.scheme) else {
            return Err(HeadError::Malformed);
        };
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = path;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.headers;
        Ok(request)
    }

    /// Checks that the fields are valid trailers of a request, and drops them.
    ///
    /// # Errors
    /// When they are not.
    pub(super) fn trailers(self) -> Result<(), HeadError> {
        self.check()?;
        let pseudo = self.method.is_some() || self.path.is_some() || self.scheme || self.authority;
        if pseudo { Err(HeadError::Malformed) } else { Ok(()) }
    }

    fn check(&self) -> Result<(), HeadError> {
        match (self.size > SIZE_MAX, self.malformed) {
            (true, _) => Err(HeadError::TooLarge),
            (_, true) => Err(HeadError::Malformed),
            _ => Ok(()),
        }
    }

    fn header(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let name = HeaderName::from_lowercase(name).ok()?;
        // Headers about a connection are not allowed in HTTP/2 (RFC 9113, 8.2.2).
        let forbidden = match name {
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => true,
            header::TE => value != b"trailers",
            _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
        };
        if forbidden {
            return None;
        }
        self.headers.append(name, HeaderValue::from_bytes(value).ok()?);
        Some(())
    }
}

/// Returns the length that a request announces for its body.
///
/// # Errors
/// When it is not a number.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let number = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
    let length = headers.get(header::CONTENT_LENGTH);
    length.map(|value| number(value).ok_or(HeadError::Malformed)).transpose()
}

/// Appends the head of a response.
pub(super) fn put_response(block: &mut Vec<u8>, status: u16, headers: &HeaderMap) {
    hpack::put_status(block, status);
    put_trailers(block, headers);
}

/// Appends the trailers of a response.
pub(super) fn put_trailers(block: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        hpack::put(block, name.as_str().as_bytes(), value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", "b"),
        ("te", "trailers"),
    ];

    fn fields(all: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        all.iter().for_each(|(name, value)| fields.take(name.as_bytes(), value.as_bytes()));
        fields
    }

    #[test]
    fn a_request_is_read() {
        let request = fields(&GOOD).request().unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/a.B/C"));
        assert_eq!(request.headers()[header::TE], "trailers");
        assert_eq!(fields(&GOOD).trailers(), Err(HeadError::Malformed));
        assert_eq!(fields(&[("x", "y")]).trailers(), Ok(()));
    }

    #[track_caller]
    fn check(bad: &[(&str, &str)]) {
        assert_eq!(fields(bad).request().unwrap_err(), HeadError::Malformed, "{bad:?}");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for missing in 0..3 {
            let mut bad = GOOD.to_vec();
            bad.remove(missing);
            check(&bad);
        }
        for extra in [
            (":method", "GET"),
            (":unknown", "x"),
            ("X", "upper case"),
            ("a b", "space"),
            ("x", "line\nfeed"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("te", "gzip"),
        ] {
            check(&[&GOOD[..], &[extra]].concat());
        }
        check(&[&GOOD[..], &[(":scheme", "late")]].concat());
        check(&[&GOOD[..2], &[(":path", "")]].concat());
        check(&[&GOOD[..2], &[(":path", "x")]].concat());
        check(&[&GOOD[..3], &[(":path", "/twice")]].concat());
    }

    #[test]
    fn a_large_head_is_refused_as_such() {
        let value = "v".repeat(SIZE_MAX);
        let large = [&GOOD[..], &[("x", value.as_str())]].concat();
        assert_eq!(fields(&large).request().unwrap_err(), HeadError::TooLarge);
        // A reference to a table entry counts as much as the entry itself.
        let mut many = fields(&GOOD);
        (0..200).for_each(|_| many.take(b"x", &[b'v'; 30]));
        assert_eq!(many.request().unwrap_err(), HeadError::TooLarge);
    }
}
