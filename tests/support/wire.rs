//! A client's HTTP/2, gRPC and grpclb, encoded and decoded by hand.
//!
//! In: numbers, names, bytes. Out: bytes, and the meaning of a balancer's bytes. It shares no
//! code with the balancer, so that they do not have the same errors. It writes invalid bytes
//! too, if a test wants them.

use std::net::{IpAddr, SocketAddr};

/// The first bytes of a client (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The initial window of every connection and stream, in bytes.
pub const WINDOW_DEFAULT: u32 = 65_535;
/// The longest DATA frame that a peer accepts by default, in bytes.
pub const FRAME_MAX: usize = 16_384;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const BALANCE_LOAD: &str = "/grpc.lb.v1.LoadBalancer/BalanceLoad";

/// The head of a frame: nine bytes before the payload.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

/// The content of a balancer's message.
#[derive(Debug)]
pub enum Response<'a> {
    Initial,
    /// The entries, encoded: see [`servers`].
    List(&'a [u8]),
    Fallback,
    Nonsense,
}

impl Head {
    pub const SIZE: usize = 9;

    pub fn read(bytes: &[u8; Self::SIZE]) -> Self {
        let [a, b, c, kind, flags, s @ ..] = *bytes;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes(s) & (u32::MAX >> 1) }
    }
}

pub fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are short");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub fn put_window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    put_frame(out, WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

/// Writes bytes as DATA frames.
pub fn put_data(out: &mut Vec<u8>, stream: u32, bytes: &[u8]) {
    bytes.chunks(FRAME_MAX).for_each(|chunk| put_frame(out, DATA, 0, stream, chunk));
}

/// Writes the start of a connection: preface and empty settings.
pub fn put_opening(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    put_frame(out, SETTINGS, 0, 0, &[]);
}

/// Writes the headers of a gRPC call.
pub fn put_call(out: &mut Vec<u8>, stream: u32, path: &str) {
    put_frame(out, HEADERS, END_HEADERS, stream, &call_headers(path));
}

/// Returns the header block of a gRPC call.
pub fn call_headers(path: &str) -> Vec<u8> {
    // :method POST, :scheme http (RFC 7541, appendix A).
    let mut block = vec![0x83, 0x86];
    put_literal(&mut block, &[0x04], path); // :path
    put_literal(&mut block, &[0x01], "balancer"); // :authority
    put_literal(&mut block, &[0x0f, 31 - 15], "application/grpc"); // content-type
    put_literal(&mut block, &[0x0f, 58 - 15], "grpc-go/1.85.0"); // user-agent
    put_literal(&mut block, &[0x00, 2, b't', b'e'], "trailers");
    block
}

/// Writes a header field that is not added to the index. `name` is the start of its encoding.
pub fn put_literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    block.push(u8::try_from(value.len()).expect("values are short"));
    block.extend_from_slice(value.as_bytes());
}

/// Returns a message with gRPC's prefix.
pub fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("messages are short");
    [&[0], &length.to_be_bytes()[..], body].concat()
}

/// Returns a message with an `InitialLoadBalanceRequest`.
pub fn balance_request(name: &str) -> Vec<u8> {
    message(&field(1, &field(1, name.as_bytes())))
}

/// Returns a message with the `ClientStats` of a client that made seven calls.
pub fn client_stats() -> Vec<u8> {
    message(&field(2, &[2 << 3, 7, 3 << 3, 7, 7 << 3, 7]))
}

/// Returns the content of a `LoadBalanceResponse`.
pub fn parse_response(message: &[u8]) -> Response<'_> {
    match split_field(message) {
        Some((1, _, _)) => Response::Initial,
        Some((2, list, _)) => Response::List(list),
        Some((3, _, _)) => Response::Fallback,
        _ => Response::Nonsense,
    }
}

/// Returns the backends of a list. Leaves out entries that drop calls or have an invalid
/// address.
pub fn servers(mut list: &[u8]) -> impl Iterator<Item = SocketAddr> {
    std::iter::from_fn(move || {
        loop {
            let (_, server, rest) = split_field(list)?;
            list = rest;
            if let Some(server) = address(server) {
                return Some(server);
            }
        }
    })
}

/// Returns the entries of a list, encoded.
pub fn entries(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (_, entry, rest) = split_field(list)?;
        list = rest;
        Some(entry)
    })
}

/// Returns a length-delimited field.
pub fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(value);
    out
}

fn address(mut server: &[u8]) -> Option<SocketAddr> {
    let (mut ip, mut port) = (None, 0);
    while let Some((&tag, rest)) = server.split_first() {
        let (value, after) = varint(rest);
        server = after;
        match tag {
            0x0a => {
                let (bytes, after) = server.split_at_checked(value)?;
                server = after;
                ip = match bytes.len() {
                    4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
                    16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
                    _ => None,
                };
            }
            0x10 => port = u16::try_from(value).ok()?,
            0x1a => server = server.get(value..)?,
            // An entry that drops calls.
            _ => return None,
        }
    }
    (port != 0).then_some(SocketAddr::new(ip?, port))
}

/// Returns number and value of a length-delimited field, and the bytes after it.
fn split_field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (length, rest) = varint(rest);
    let (value, rest) = rest.split_at_checked(length)?;
    (tag & 7 == 2).then_some((tag >> 3, value, rest))
}

/// Returns a number, and the bytes after it.
pub fn varint(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).map_or(bytes.len(), |at| at + 1);
    let (number, rest) = bytes.split_at(end.min(9));
    (number.iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f)), rest)
}
