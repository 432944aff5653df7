//! HTTP/2, gRPC and grpclb as bytes, written by hand; `xds` has the other protocol.
//!
//! In: numbers and names. Out: the bytes that a client and the bare server write. It
//! must not share code with the servers that are measured.

pub(crate) mod xds;

/// The bytes that a client sends before anything else (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window that HTTP/2 allows.
pub(crate) const WINDOW_MAX: u32 = (1 << 31) - 1;
/// The window that every connection and stream begins with.
pub(crate) const WINDOW_DEFAULT: u32 = 65_535;
/// The longest DATA frame that a client accepts unless its settings say otherwise.
const FRAME_MAX: usize = 16_384;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;

/// The nine bytes in front of a frame's payload.
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) const SIZE: usize = 9;

    pub(crate) fn read(bytes: &[u8; Self::SIZE]) -> Self {
        let [a, b, c, kind, flags, s @ ..] = *bytes;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes(s) & WINDOW_MAX }
    }
}

pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are short");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub(crate) fn put_window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    put_frame(out, WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

/// Writes as many DATA frames as it takes.
pub(crate) fn put_data(out: &mut Vec<u8>, stream: u32, bytes: &[u8]) {
    bytes.chunks(FRAME_MAX).for_each(|chunk| put_frame(out, DATA, 0, stream, chunk));
}

/// Writes the beginning of a connection: preface, settings, and the largest windows if
/// wanted.
pub(crate) fn put_opening(out: &mut Vec<u8>, large_windows: bool) {
    out.extend_from_slice(PREFACE);
    if large_windows {
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &WINDOW_MAX.to_be_bytes()].concat();
        put_frame(out, SETTINGS, 0, 0, &setting);
        put_window_update(out, 0, WINDOW_MAX - WINDOW_DEFAULT);
    } else {
        put_frame(out, SETTINGS, 0, 0, &[]);
    }
}

/// Writes the head of a gRPC call.
pub(crate) fn put_call(out: &mut Vec<u8>, stream: u32, path: &str) {
    // :method POST, :scheme http (RFC 7541, appendix A).
    let mut block = vec![0x83, 0x86];
    put_literal(&mut block, &[0x04], path); // :path
    put_literal(&mut block, &[0x01], "bench"); // :authority
    put_literal(&mut block, &[0x0f, 31 - 15], "application/grpc"); // content-type
    put_literal(&mut block, &[0x0f, 58 - 15], "grpc-go/1.85.0"); // user-agent
    put_literal(&mut block, &[0x00, 2, b't', b'e'], "trailers");
    put_frame(out, HEADERS, END_HEADERS, stream, &block);
}

/// Writes the head of a gRPC response that does not end the stream.
pub(crate) fn put_response(out: &mut Vec<u8>, stream: u32) {
    let mut block = vec![0x88]; // :status 200
    put_literal(&mut block, &[0x0f, 31 - 15], "application/grpc");
    put_frame(out, HEADERS, END_HEADERS, stream, &block);
}

/// Writes a header field that is not to be indexed; `name` is its beginning.
fn put_literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    block.push(u8::try_from(value.len()).expect("values are short"));
    block.extend_from_slice(value.as_bytes());
}

/// Returns a message with gRPC's prefix.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("messages are short");
    [&[0], &length.to_be_bytes()[..], body].concat()
}

/// Returns an `InitialLoadBalanceRequest`.
pub(crate) fn balance_request(name: &str) -> Vec<u8> {
    message(&field(1, &field(1, name.as_bytes())))
}

/// Returns `ClientStats` as an idle grpc-go would send it, with a few calls.
pub(crate) fn client_stats() -> Vec<u8> {
    message(&field(2, &[2 << 3, 7, 3 << 3, 7, 7 << 3, 7]))
}

/// Returns an `InitialLoadBalanceResponse` without reports.
pub(crate) fn balance_response() -> Vec<u8> {
    message(&field(1, &[]))
}

/// Returns a list of `count` servers, exactly as long as lookaside's.
pub(crate) fn server_list(count: usize, port: u16) -> Vec<u8> {
    let server = |index: usize| {
        let varint =
            [(port & 0x7f) as u8 | 0x80, (port >> 7 & 0x7f) as u8 | 0x80, (port >> 14) as u8];
        let mut server = field(1, &address(index));
        server.push(2 << 3);
        server.extend_from_slice(&varint);
        server.extend_from_slice(&field(3, format!("{index:016x}").as_bytes()));
        field(1, &server)
    };
    let servers: Vec<u8> = (0..count).flat_map(server).collect();
    message(&field(2, &servers))
}

/// Returns the address of a backend.
pub(crate) fn address(index: usize) -> [u8; 4] {
    let [.., a, b] = u32::try_from(index).expect("there are not so many").to_be_bytes();
    [10, 0, a, b]
}

/// Returns a length-delimited field.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
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
