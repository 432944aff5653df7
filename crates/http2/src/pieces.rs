//! The data of a stream: up to three shared pieces, written as one.
//!
//! In: bytes. Out: the bytes as slices for one system call, without a copy.

use bytes::{Buf, Bytes};

/// Bytes of a response's body, in up to three pieces. So data that all streams share need
/// not be copied to follow data of one stream.
#[derive(Debug, Default, Clone)]
pub struct Pieces([Bytes; 3]);

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// Removes the first `count` bytes. There must be as many.
    pub(super) fn advance(&mut self, mut count: usize) {
        for piece in &mut self.0 {
            let here = count.min(piece.len());
            piece.advance(here);
            count -= here;
        }
        debug_assert_eq!(count, 0, "advanced beyond the end");
    }

    /// Returns a copy of the bytes in one piece that is not shared.
    pub(super) fn to_owned_pieces(&self) -> Self {
        self.to_bytes().into()
    }

    /// Returns a copy of the bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.slices(0, self.len()).collect::<Vec<_>>().concat().into()
    }

    /// Returns `length` bytes from `from` on, as slices.
    pub(super) fn slices(&self, from: usize, length: usize) -> impl Iterator<Item = &[u8]> {
        let (mut skip, mut left) = (from, length);
        self.0.iter().filter_map(move |piece| {
            let start = skip.min(piece.len());
            skip -= start;
            let end = (start + left).min(piece.len());
            left -= end - start;
            (start < end).then(|| &piece[start..end])
        })
    }

    /// Returns `length` bytes from `from` on, as pieces that share the memory.
    pub(super) fn part(&self, from: usize, length: usize) -> Self {
        let (mut skip, mut left) = (from, length);
        Self(self.0.each_ref().map(|piece| {
            let start = skip.min(piece.len());
            skip -= start;
            let end = (start + left).min(piece.len());
            left -= end - start;
            piece.slice(start..end)
        }))
    }
}

impl From<[Bytes; 3]> for Pieces {
    fn from(pieces: [Bytes; 3]) -> Self {
        Self(pieces)
    }
}

impl From<Bytes> for Pieces {
    fn from(piece: Bytes) -> Self {
        Self([piece, Bytes::new(), Bytes::new()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_same_bytes_however_it_is_cut() {
        let pieces = Pieces::from([&b"abc"[..], b"", b"defg"].map(Bytes::from_static));
        for from in 0..=7 {
            for length in 0..=7 - from {
                let expected = &b"abcdefg"[from..from + length];
                assert_eq!(pieces.slices(from, length).collect::<Vec<_>>().concat(), expected);
                assert_eq!(pieces.part(from, length).to_bytes(), expected);
                let mut rest = pieces.clone();
                rest.advance(from);
                assert_eq!(rest.to_bytes(), b"abcdefg"[from..]);
                assert_eq!((rest.len(), rest.is_empty()), (7 - from, from == 7));
            }
        }
    }
}
