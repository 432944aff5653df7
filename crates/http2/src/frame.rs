//! HTTP/2 frames as bytes (RFC 9113, 4 and 6).
//!
//! In: bytes, or the content of a frame. Out: heads, settings, or bytes. Pure. It does
//! not know which frame may come when.

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// Why a connection or a stream ends (RFC 9113, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    NoError = 0x0,
    Protocol = 0x1,
    Internal = 0x2,
    FlowControl = 0x3,
    StreamClosed = 0x5,
    FrameSize = 0x6,
    RefusedStream = 0x7,
    Compression = 0x9,
    EnhanceYourCalm = 0xb,
}

/// The kinds of frames (RFC 9113, 6).
pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// The flags of frames.
pub(super) mod flag {
    /// For SETTINGS and PING.
    pub(crate) const ACK: u8 = 0x1;
    /// For DATA and HEADERS.
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// The parameters of SETTINGS (RFC 9113, 6.5.2).
pub(super) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The first bytes that a client sends (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest payload that a peer accepts unless it says otherwise, and the longest that
/// is accepted here, in bytes.
pub(super) const FRAME_MAX: usize = 16_384;
/// The largest window that HTTP/2 allows, in bytes.
pub(super) const WINDOW_MAX: i64 = (1 << 31) - 1;
/// The window of a connection and of a stream before any change, in bytes.
pub(super) const WINDOW_DEFAULT: i64 = 65_535;

impl Head {
    pub(super) const SIZE: usize = 9;

    /// Reads a head; `None` while it is incomplete.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<{ Self::SIZE }>()?;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // The highest bit is reserved.
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        Some(Self { length, kind, flags, stream })
    }

    /// Returns the head of a frame whose payload has this length.
    pub(super) fn bytes(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; Self::SIZE] {
        let [_, l0, l1, l2] = u32::try_from(length).unwrap_or(0).to_be_bytes();
        let [s0, s1, s2, s3] = stream.to_be_bytes();
        [l0, l1, l2, kind, flags, s0, s1, s2, s3]
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Returns the parameters in the payload of a SETTINGS frame.
pub(super) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload.as_chunks::<6>().0.iter().map(|&[i0, i1, v0, v1, v2, v3]| {
        (u16::from_be_bytes([i0, i1]), u32::from_be_bytes([v0, v1, v2, v3]))
    })
}

/// Returns the number at the beginning of a payload.
pub(super) fn number(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes))
}

pub(super) fn put_settings(out: &mut Vec<u8>, all: &[(u16, u32)]) {
    out.extend_from_slice(&Head::bytes(all.len() * 6, kind::SETTINGS, 0, 0));
    for (parameter, value) in all {
        out.extend_from_slice(&parameter.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn put_settings_ack(out: &mut Vec<u8>) {
    out.extend_from_slice(&Head::bytes(0, kind::SETTINGS, flag::ACK, 0));
}

pub(super) fn put_ping(out: &mut Vec<u8>, flags: u8, payload: &[u8]) {
    out.extend_from_slice(&Head::bytes(payload.len(), kind::PING, flags, 0));
    out.extend_from_slice(payload);
}

pub(super) fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    out.extend_from_slice(&Head::bytes(4, kind::WINDOW_UPDATE, 0, stream));
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(super) fn put_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    out.extend_from_slice(&Head::bytes(4, kind::RST_STREAM, 0, stream));
    out.extend_from_slice(&(reason as u32).to_be_bytes());
}

pub(super) fn put_goaway(out: &mut Vec<u8>, last_stream: u32, reason: Reason) {
    out.extend_from_slice(&Head::bytes(8, kind::GOAWAY, 0, 0));
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&(reason as u32).to_be_bytes());
}

/// Appends a header block, in as many frames as the peer's limit `max` requires.
pub(super) fn put_headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end: bool, max: usize) {
    let (first, mut rest) = block.split_at(block.len().min(max));
    let end_stream = if end { flag::END_STREAM } else { 0 };
    let end_headers = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
    let flags = end_stream | end_headers(rest);
    out.extend_from_slice(&Head::bytes(first.len(), kind::HEADERS, flags, stream));
    out.extend_from_slice(first);
    while !rest.is_empty() {
        let (next, after) = rest.split_at(rest.len().min(max));
        rest = after;
        let head = Head::bytes(next.len(), kind::CONTINUATION, end_headers(rest), stream);
        out.extend_from_slice(&head);
        out.extend_from_slice(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let bytes = Head::bytes(16_384, kind::DATA, flag::END_STREAM, 0x7fff_ffff);
        assert_eq!(bytes, [0, 0x40, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff]);
        let head = Head { length: 16_384, kind: 0, flags: 1, stream: 0x7fff_ffff };
        assert_eq!(Head::read(&bytes), Some(head));
        assert_eq!(Head::read(&[0, 0x40, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), Some(head));
        assert_eq!(Head::read(&bytes[..8]), None);
    }

    #[test]
    fn a_long_header_block_goes_on_in_continuations() {
        let mut out = Vec::new();
        put_headers(&mut out, 1, &[7; 25], true, 10);
        let mut heads = Vec::new();
        let mut rest = &out[..];
        while let Some(head) = Head::read(rest) {
            heads.push((head.kind, head.flags, head.length));
            rest = &rest[Head::SIZE + head.length..];
        }
        let (headers, more) = (kind::HEADERS, kind::CONTINUATION);
        let expected =
            [(headers, flag::END_STREAM, 10), (more, 0, 10), (more, flag::END_HEADERS, 5)];
        assert_eq!(heads, expected);
    }

    #[test]
    fn settings_are_read_as_they_were_written() {
        let all = [(setting::MAX_FRAME_SIZE, 16_384), (setting::ENABLE_PUSH, 0)];
        let mut out = Vec::new();
        put_settings(&mut out, &all);
        assert_eq!(settings(&out[Head::SIZE..]).collect::<Vec<_>>(), all);
    }
}
