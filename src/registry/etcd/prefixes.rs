//! Decides which keys are read, and decodes them. Pure.
//!
//! In: the operator's prefixes, a key and its value. Out: ranges that cover the
//! prefixes without overlap, and the decoded value. Prefixes may lie within one
//! another; each key is still listed, watched and applied only once.

use std::sync::Arc;

use crate::model::Meta;
use crate::registry::record::{self, Decoded, Prefix};
use crate::registry::{Entry, Key, Reading, Rejected};

/// A key and its value, as etcd stores them.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The lease of the key; 0: none.
    pub lease: i64,
    /// The revision that wrote it.
    pub revision: i64,
}

/// Decodes a key and its value.
pub type Decode<T> = Arc<dyn Fn(Stored<'_>) -> T + Send + Sync>;

/// The prefixes, longest first.
#[derive(Debug, Clone)]
pub(super) struct Prefixes(Vec<Prefix>);

/// The keys from `start` up to, but not including, `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Prefixes {
    pub(super) fn new(mut prefixes: Vec<Prefix>) -> Self {
        record::sort(&mut prefixes);
        Self(prefixes)
    }

    /// Returns one range for each prefix that lies in no other prefix. Adjacent ranges
    /// are joined.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let mut roots: Vec<&str> = Vec::new();
        for path in self.0.iter().rev().map(|prefix| prefix.path.as_str()) {
            if !roots.iter().any(|root| path.starts_with(root)) {
                roots.push(path);
            }
        }
        roots.sort_unstable();
        let mut ranges: Vec<Range> = Vec::new();
        for next in roots.into_iter().map(range) {
            match ranges.last_mut() {
                Some(last) if last.end == next.start => last.end = next.end,
                _ => ranges.push(next),
            }
        }
        ranges
    }

    /// Returns a decoder of registrations: the longest prefix that can decode a key
    /// decides.
    pub(super) fn decode(self) -> Decode<Result<Reading, Rejected>> {
        // Most registrations have no metadata, and share that.
        let no_meta = Arc::<Meta>::default();
        Arc::new(move |stored| {
            let mut decoded = self.decode_registration(stored.key, stored.value);
            for one in decoded.iter_mut().flat_map(|reading| &mut reading.registrations) {
                if one.meta.is_empty() {
                    one.meta = no_meta.clone();
                }
            }
            decoded
        })
    }

    fn decode_registration(&self, key: &[u8], value: &[u8]) -> Result<Reading, Rejected> {
        match record::decode_by_prefixes(&self.0, key, value) {
            Some((_, Ok(Decoded::Registers(reading)))) => Ok(reading),
            Some((_, Err(rejected))) => Err(rejected),
            Some((_, Ok(Decoded::Nothing(_)))) | None => Ok(Reading::default()),
        }
    }
}

/// Makes an entry of a key, with its decoded value.
pub(super) fn entry<T>(stored: Stored<'_>, decode: &Decode<T>) -> Entry<T> {
    let (key, leased) = (Key::new(stored.key), stored.lease != 0);
    Entry { key, decoded: decode(stored), leased }
}

impl Range {
    /// Returns the range of every key that begins with `prefix`.
    #[must_use]
    pub fn below(prefix: &str) -> Self {
        range(prefix)
    }

    /// Returns the range of one single key.
    #[must_use]
    pub fn key(key: &str) -> Self {
        Self { start: key.into(), end: [key.as_bytes(), &[0]].concat() }
    }

    /// Returns whether the range contains the key.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && (self.end == [0] || key < self.end.as_slice())
    }
}

/// etcd writes an open end of a range as the end 0, and has no empty key.
fn range(path: &str) -> Range {
    let start = path.as_bytes().to_vec();
    let mut end = start.clone();
    match end.last_mut() {
        // UTF-8 text never contains the byte 255, so the last byte can always be
        // raised.
        Some(last) => *last += 1,
        None => return Range { start: vec![0], end: vec![0] },
    }
    Range { start, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::record::Format;

    fn prefixes(paths: &[&str]) -> Prefixes {
        let prefix = |path: &&str| Prefix { path: (*path).to_owned(), format: Format::Plain };
        Prefixes::new(paths.iter().map(prefix).collect())
    }

    #[track_caller]
    fn check_ranges(paths: &[&str], expected: &[(&str, &str)]) {
        let found = prefixes(paths).ranges();
        let range =
            |(start, end): &(&str, &str)| Range { start: (*start).into(), end: (*end).into() };
        let expected: Vec<Range> = expected.iter().map(range).collect();
        assert_eq!(found, expected, "{paths:?}");
    }

    #[test]
    fn ranges_cover_every_prefix_once() {
        check_ranges(&["/a/"], &[("/a/", "/a0")]);
        check_ranges(&["/a/b/", "/a/", "/a/b/c"], &[("/a/", "/a0")]);
        check_ranges(&["/a/", "/a/"], &[("/a/", "/a0")]);
        check_ranges(&["/a", "bc/"], &[("/a", "/b"), ("bc/", "bc0")]);
        check_ranges(&["", "/a"], &[("\0", "\0")]);
        check_ranges(&["/a0", "/b/", "/a/"], &[("/a/", "/a1"), ("/b/", "/b0")]);
    }

    #[test]
    fn a_range_holds_the_keys_below_its_prefix() {
        let all = prefixes(&[""]).ranges();
        assert!(all[0].contains(b"\xff") && all[0].contains(b"a"));
        let one = Range::key("/a");
        assert!(one.contains(b"/a") && !one.contains(b"/a/b") && !one.contains(b"/aa"));
        let some = prefixes(&["/a/"]).ranges();
        for (key, inside) in [("/a/", true), ("/a/x", true), ("/a0", false), ("/a", false)] {
            assert_eq!(some[0].contains(key.as_bytes()), inside, "{key}");
        }
    }

    #[test]
    fn the_longest_prefix_decides_unless_it_makes_nothing_of_the_key() {
        let prefixes = prefixes(&["/a/", "/a/b/"]);
        let service = |key: &str| {
            let reading = prefixes.decode_registration(key.as_bytes(), b"10.0.0.1:1").unwrap();
            reading.registrations.first().map(|found| found.service.to_string())
        };
        assert_eq!(service("/a/b/x/1").as_deref(), Some("x"));
        assert_eq!(service("/a/bc/1").as_deref(), Some("bc"));
        assert_eq!(service("/a/c/1").as_deref(), Some("c"));
        assert_eq!(service("/other"), None);
    }
}
