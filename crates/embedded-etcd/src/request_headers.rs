//! Validates request headers as etcd does, and rewrites them for the HTTP/2 library. Pure.
//!
//! In: the fields of one header block, in order. Out: headers that any HTTP/2 library
//! accepts, or `None` if etcd would reset the stream.
//!
//! etcd's HTTP/2 layer (grpc-go) checks few fields and accepts any value of the others:
//! clients send lists, paths and variables as `:authority`, and any `:scheme`, `te` or
//! `content-length` is fine.

use std::fmt::Write as _;

/// Collects the fields of one block.
#[derive(Default)]
pub(super) struct Fields {
    seen: Vec<&'static [u8]>,
    path: Vec<u8>,
    content_type: bool,
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    size: usize,
    malformed: bool,
}

/// The most bytes of a block after decompression. Only the fields in [`KEPT`] are stored.
const SIZE_MAX: usize = 2 * 1024 * 1024;
/// The size of a field beyond its bytes (RFC 9113, section 6.5.2).
const FIELD: usize = 32;
/// The pseudo-headers of a request. Each may occur once.
const PSEUDO: [&[u8]; 4] = [b":method", b":scheme", b":path", b":authority"];
/// The fields that the server reads.
const KEPT: [&[u8]; 3] = [b"content-type", b"grpc-timeout", b"grpc-encoding"];
const CONTENT_TYPE: &[u8] = b"application/grpc";

impl Fields {
    /// Adds the next field.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) {
        self.size = self.size.saturating_add(name.len() + value.len() + FIELD);
        if self.size > SIZE_MAX || self.malformed {
            self.malformed = true;
            return;
        }
        let good = !value.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t');
        self.malformed = !(good
            && if name.starts_with(b":") {
                self.pseudo(name, value)
            } else {
                self.header(name, value)
            });
    }

    /// Returns the rewritten headers, or `None` if etcd would reset the stream.
    pub(super) fn request(mut self) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        if self.malformed || !self.content_type {
            return None;
        }
        let pseudo: [(&[u8], &[u8]); 2] = [(b":method", b"POST"), (b":scheme", b"http")];
        let mut head: Vec<_> =
            pseudo.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        head.push((b":path".to_vec(), safe_path(&self.path)));
        head.append(&mut self.kept);
        Some(head)
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> bool {
        // Pseudo-headers must precede all other fields.
        if !self.seen.iter().all(|name| name.starts_with(b":")) {
            return false;
        }
        let Some(known) = PSEUDO.into_iter().find(|&known| known == name) else { return false };
        if self.seen.contains(&known) {
            return false;
        }
        self.seen.push(known);
        if name == b":path" {
            self.path = value.to_vec();
        }
        true
    }

    fn header(&mut self, name: &[u8], value: &[u8]) -> bool {
        // A marker records that the ordinary fields have begun.
        if self.seen.last().is_none_or(|last| last.starts_with(b":")) {
            self.seen.push(b"header");
        }
        if name.is_empty() || !name.iter().copied().all(is_name) {
            return false;
        }
        let good = match name {
            b"content-type" => {
                self.content_type = is_grpc(value);
                self.content_type
            }
            b"grpc-timeout" => is_timeout(value),
            _ => true,
        };
        if good && KEPT.contains(&name) {
            self.kept.push((name.to_vec(), value.to_vec()));
        }
        good
    }
}

/// Returns a path without its first slash and without the escapes of [`safe_path`].
pub(super) fn plain_path(path: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(path.strip_prefix('/').unwrap_or(path)).collect()
}

/// Returns a path that is valid in a URI: with a first slash, and other characters escaped.
fn safe_path(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let mut safe = String::from("/");
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/.-_~".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe.into_bytes()
}

/// Returns whether a content type is `application/grpc`, alone or followed by `+` or `;`.
fn is_grpc(value: &[u8]) -> bool {
    value
        .strip_prefix(CONTENT_TYPE)
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Returns whether a value is a number of at most eight characters and a unit.
fn is_timeout(value: &[u8]) -> bool {
    let Some((unit, number)) = value.split_last() else { return false };
    let digits = number.strip_prefix(b"+").or(number.strip_prefix(b"-")).unwrap_or(number);
    b"HMSmun".contains(unit)
        && number.len() <= 8
        && !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", "h:1"),
        ("content-type", "application/grpc"),
    ];

    fn read(fields: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        let mut head = Fields::default();
        fields.iter().for_each(|(name, value)| head.take(name.as_bytes(), value.as_bytes()));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Some(head.request()?.into_iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        let known = GOOD.iter().any(|(known, _)| *known == name);
        let mut fields: Vec<_> = GOOD
            .into_iter()
            .map(|field| if field.0 == name { (name, value) } else { field })
            .collect();
        if !known {
            fields.push((name, value));
        }
        fields
    }

    #[test]
    fn whatever_does_not_count_may_be_anything() {
        let plain = read(&GOOD).expect("a head");
        for (name, value) in [
            (":authority", "#initially=[http://h:1]"),
            (":authority", ""),
            (":authority", "a b"),
            (":authority", "\"q\""),
            (":authority", "h1:1,h2:2"),
            (":authority", "unix:///tmp/x"),
            (":scheme", ""),
            (":scheme", "a b"),
            (":method", "P T"),
            ("te", "gzip"),
            ("connection", "close"),
            ("content-length", "x"),
            ("host", "another"),
        ] {
            assert_eq!(read(&with(name, value)), Some(plain.clone()), "{name} {value}");
        }
        let mut bytes = Fields::default();
        GOOD.iter().filter(|(name, _)| *name != ":authority").for_each(|(name, value)| {
            bytes.take(name.as_bytes(), value.as_bytes());
        });
        bytes.take(b"x", b"\xff\xfe");
        assert!(bytes.request().is_some());
    }

    #[test]
    fn what_etcd_resets_is_no_head() {
        for (name, value) in [
            ("content-type", "application/json"),
            ("content-type", "application/grpcx"),
            ("grpc-timeout", ""),
            ("grpc-timeout", "1"),
            ("grpc-timeout", "999999999S"),
            ("grpc-timeout", "5s"),
            (":authority", "a\nb"),
            ("x", "a\0b"),
            ("X", "upper case"),
            ("a b", "space"),
            ("", "no name"),
        ] {
            assert_eq!(read(&with(name, value)), None, "{name} {value}");
        }
        assert_eq!(read(&GOOD[..4]), None, "no content type");
        assert_eq!(read(&[&GOOD[..], &[(":scheme", "late")]].concat()), None);
        assert_eq!(read(&[&GOOD[..1], &GOOD[..]].concat()), None, "twice");
        assert_eq!(read(&[&GOOD[..1], &[(":status", "200")], &GOOD[1..]].concat()), None);
        let long = "v".repeat(SIZE_MAX);
        assert_eq!(read(&[&GOOD[..], &[("x", long.as_str())]].concat()), None);
    }

    #[test]
    fn every_path_comes_through() {
        for path in ["/a.B/C", "a.B/C", "/a/b?x=1", "", "/", "*", "/%41 \"{}/ü"] {
            let fields = with(":path", path);
            let head = read(&fields).expect("a head");
            let (_, safe) = head.iter().find(|(name, _)| name == ":path").expect("a path");
            http::Uri::try_from(safe.as_str()).expect("a URI");
            let plain = path.strip_prefix('/').unwrap_or(path);
            assert_eq!(plain_path(safe), plain.as_bytes(), "{safe}");
        }
    }
}
