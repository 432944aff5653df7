//! The range of keys of a request. Pure.
//!
//! In: a request's `key` and `range_end`. Out: bounds for a map, and whether a key is in the
//! range.

use std::ops::Bound;

/// The range of keys of one request by etcd's conventions (`RangeRequest` in etcd's
/// rpc.proto): no end means one key, and an end of one zero byte means all keys that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    start: Vec<u8>,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Single,
    Before(Vec<u8>),
    Unbounded,
}

/// Bounds for the range of a map.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Span {
    pub(crate) fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Unbounded,
            end => End::Before(end.to_vec()),
        };
        Self { start: key.to_vec(), end }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == self.start,
            End::Before(end) => key >= self.start.as_slice() && key < end.as_slice(),
            End::Unbounded => key >= self.start.as_slice(),
        }
    }

    /// Returns whether no key can be in the range.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    /// Returns the bounds, or `None` if no key can be in the range: a map panics if its bounds
    /// are reversed.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        let end = match &self.end {
            End::Single => Bound::Included(self.start.as_slice()),
            End::Before(end) => Bound::Excluded(end.as_slice()),
            End::Unbounded => Bound::Unbounded,
        };
        (!self.is_empty()).then_some((Bound::Included(self.start.as_slice()), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_follows_the_conventions() {
        type Case = (&'static [u8], &'static [u8], &'static [u8], bool);
        let cases: [Case; 9] = [
            (b"a", b"", b"a", true),
            (b"a", b"", b"aa", false),
            (b"a", b"b", b"aa", true),
            (b"a", b"b", b"b", false),
            (b"a", b"\0", b"\xff\xff", true),
            (b"b", b"\0", b"a", false),
            (b"b", b"a", b"aa", false),
            (b"a\xff", b"b", b"a\xff\xff", true),
            (b"\0", b"\0", b"anything", true),
        ];
        for (key, end, asked, inside) in cases {
            assert_eq!(Span::new(key, end).contains(asked), inside, "{key:?} {end:?} {asked:?}");
        }
        assert!(Span::new(b"b", b"a").bounds().is_none());
        assert!(Span::new(b"a", b"a").bounds().is_none());
        assert!(Span::new(b"a", b"").bounds().is_some());
    }
}
