//! Rewrites the request headers in a connection's bytes for the HTTP/2 library.
//!
//! In: the bytes that a client sends. Out: the same bytes, with header blocks replaced by
//! the result of [`request_headers`](super::request_headers). Bytes that are not HTTP/2
//! pass unchanged. Breaches of HTTP/2's rules pass too, because the library answers them.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use lookaside_http2::hpack::{Decoder, put};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request_headers::Fields;

/// The first bytes of an HTTP/2 client (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of a frame's head.
const HEAD: usize = 9;
/// The longest payload of a header frame that is accepted.
const FRAME_MAX: usize = 16_384;
/// The longest header block over all its frames, in bytes. etcd accepts more, but no known
/// client sends as much.
const BLOCK_MAX: usize = 1024 * 1024;
/// The most bytes of incomplete header blocks longer than one frame, over all connections.
/// A block is held until it is complete.
const BLOCKS_MAX: usize = 32 * 1024 * 1024;
/// The bytes read from the connection at a time.
const READ: usize = 8 * 1024;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// The bytes of incomplete header blocks longer than one frame, over all connections.
#[derive(Clone, Default)]
pub(super) struct Blocks(Arc<AtomicUsize>);

/// A connection whose header blocks are rewritten before the library reads them.
pub(super) struct Frames<S> {
    io: S,
    stage: Stage,
    /// The bytes that came; those before `used` are handled.
    inbox: Vec<u8>,
    used: usize,
    /// The bytes for the library; those before `passed` are passed on.
    outbox: Vec<u8>,
    passed: usize,
    rewriter: Rewriter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The number of bytes of the preface that came.
    Preface(usize),
    /// A frame's head is next.
    Frame,
    /// The bytes left of a payload that passes unchanged.
    Payload(usize),
    /// All bytes pass unchanged.
    Raw,
}

/// The header blocks of one connection.
struct Rewriter {
    blocks: Blocks,
    decoder: Decoder,
    block: Option<Block>,
    /// The highest stream that the client began.
    last: u32,
}

struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    /// The bytes of this block that are counted in `blocks`.
    counted: usize,
    blocks: Blocks,
}

/// A frame's head.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl<S> Frames<S> {
    pub(super) fn new(io: S, blocks: Blocks) -> Self {
        let (inbox, outbox) = (Vec::new(), Vec::new());
        let rewriter = Rewriter { blocks, decoder: Decoder::default(), block: None, last: 0 };
        Self { io, stage: Stage::Preface(0), inbox, used: 0, outbox, passed: 0, rewriter }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.io
    }

    /// Returns whether the client has sent HTTP/2's preface.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.stage, Stage::Frame | Stage::Payload(_))
    }

    /// Fills `buf` with bytes for the library. Returns `false` if more bytes must come first.
    fn pass(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        loop {
            if self.passed < self.outbox.len() {
                self.passed += copy(&self.outbox[self.passed..], usize::MAX, buf);
                return Ok(true);
            }
            (self.outbox, self.passed) = (Vec::new(), 0);
            let came = &self.inbox[self.used..];
            match self.stage {
                Stage::Preface(seen) => {
                    if came.is_empty() {
                        return Ok(false);
                    }
                    let wanted = &PREFACE[seen..];
                    let length = came.len().min(wanted.len());
                    if came[..length] != wanted[..length] {
                        self.outbox.extend_from_slice(&PREFACE[..seen]);
                        self.stage = Stage::Raw;
                        continue;
                    }
                    self.used += length;
                    self.stage = Stage::Preface(seen + length);
                    if length == wanted.len() {
                        self.outbox.extend_from_slice(PREFACE);
                        self.stage = Stage::Frame;
                    }
                }
                Stage::Raw if came.is_empty() => return Ok(false),
                Stage::Raw => {
                    self.used += copy(came, usize::MAX, buf);
                    return Ok(true);
                }
                Stage::Payload(0) => self.stage = Stage::Frame,
                Stage::Payload(_) if came.is_empty() => return Ok(false),
                Stage::Payload(left) => {
                    let length = copy(came, left, buf);
                    self.used += length;
                    self.stage = Stage::Payload(left - length);
                    return Ok(true);
                }
                Stage::Frame => {
                    let Some(head) = Head::read(came) else { return Ok(false) };
                    if !self.rewriter.wants(head) {
                        // If a block is open, the library must see that another frame
                        // interrupts it.
                        self.rewriter.give_up(&mut self.outbox);
                        self.outbox.extend_from_slice(&came[..HEAD]);
                        self.used += HEAD;
                        self.stage = Stage::Payload(head.length);
                        continue;
                    }
                    let Some(payload) = came.get(HEAD..HEAD + head.length) else {
                        return Ok(false);
                    };
                    self.rewriter.take(head, payload, &mut self.outbox)?;
                    self.used += HEAD + head.length;
                }
            }
        }
    }
}

impl Rewriter {
    /// Returns whether the frame is a valid next part of a header block.
    fn wants(&self, head: Head) -> bool {
        let in_order = match (&self.block, head.kind) {
            (None, HEADERS) => head.stream % 2 == 1,
            (Some(block), CONTINUATION) => block.stream == head.stream,
            _ => false,
        };
        in_order && head.length <= FRAME_MAX
    }

    /// Adds such a frame. After the last frame of a block, writes the rewritten block.
    fn take(&mut self, head: Head, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let Some(part) = fragment(head, payload) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "padding is too long"));
        };
        let block = self.block.get_or_insert_with(|| Block {
            stream: head.stream,
            end_stream: head.flags & END_STREAM != 0,
            bytes: Vec::new(),
            counted: 0,
            blocks: self.blocks.clone(),
        });
        // Empty CONTINUATION frames are refused: a client could send them for ever.
        let empty = part.is_empty() && head.kind == CONTINUATION;
        if empty || !block.count(part.len()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a header block is too long"));
        }
        block.bytes.extend_from_slice(part);
        if head.flags & END_HEADERS != 0
            && let Some(block) = self.block.take()
        {
            self.rewrite(&block, out);
        }
        Ok(())
    }

    fn rewrite(&mut self, block: &Block, out: &mut Vec<u8>) {
        let mut fields = Fields::default();
        let read = self.decoder.decode(&block.bytes, |name, value| fields.take(name, value));
        let mut written = Vec::new();
        if read.is_err() {
            // This index is never valid, so the library ends the connection.
            written.push(0x80);
        } else if block.stream > self.last {
            self.last = block.stream;
            // An invalid request becomes an empty block, and the library resets its stream.
            for (name, value) in fields.request().unwrap_or_default() {
                put(&mut written, &name, &value);
            }
        }
        put_block(out, block.stream, block.end_stream, &written);
    }

    /// Passes an incomplete block on as an empty frame, if there is one.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        if let Some(block) = self.block.take() {
            put_frame(out, HEADERS, 0, block.stream, &[]);
        }
    }
}

impl Block {
    /// Counts `bytes` more of this block. Returns `false` if that exceeds a limit.
    fn count(&mut self, bytes: usize) -> bool {
        let length = self.bytes.len() + bytes;
        if length <= FRAME_MAX {
            return true;
        }
        let more = length - self.counted;
        let all = self.blocks.0.fetch_add(more, Ordering::Relaxed) + more;
        self.counted = length;
        length <= BLOCK_MAX && all <= BLOCKS_MAX
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.blocks.0.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, d, e, f, g, ..] = bytes else { return None };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([d, e, f, g]) & (u32::MAX >> 1);
        Some(Self { length, kind, flags, stream })
    }
}

/// Returns a frame's part of the header block, without padding and priority.
fn fragment(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if head.kind != HEADERS {
        return Some(payload);
    }
    let (mut start, mut padding) = (0, 0);
    if head.flags & PADDED != 0 {
        padding = usize::from(*payload.first()?);
        start = 1;
    }
    if head.flags & PRIORITY != 0 {
        start += 5;
    }
    payload.get(start..payload.len().checked_sub(padding)?)
}

fn put_block(out: &mut Vec<u8>, stream: u32, end_stream: bool, block: &[u8]) {
    let mut parts = block.chunks(FRAME_MAX).peekable();
    let mut kind = HEADERS;
    let mut flags = if end_stream { END_STREAM } else { 0 };
    loop {
        let part = parts.next().unwrap_or_default();
        let last = parts.peek().is_none();
        put_frame(out, kind, flags | if last { END_HEADERS } else { 0 }, stream, part);
        if last {
            return;
        }
        (kind, flags) = (CONTINUATION, 0);
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Copies as many bytes as fit, at most `most`. Returns their number.
fn copy(from: &[u8], most: usize, buf: &mut ReadBuf<'_>) -> usize {
    let length = from.len().min(most).min(buf.remaining());
    buf.put_slice(&from[..length]);
    length
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if buf.remaining() == 0 || this.pass(buf)? {
                return Poll::Ready(Ok(()));
            }
            // An idle connection holds no memory.
            if this.used == this.inbox.len() {
                (this.inbox, this.used) = (Vec::new(), 0);
            }
            let mut space = [const { MaybeUninit::uninit() }; READ];
            let mut came = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut came))?;
            if came.filled().is_empty() {
                // The connection ended within the preface: pass on the part that came.
                if let Stage::Preface(seen) = this.stage {
                    this.outbox.extend_from_slice(&PREFACE[..seen]);
                    this.stage = Stage::Raw;
                    if this.pass(buf)? {
                        return Poll::Ready(Ok(()));
                    }
                }
                return Poll::Ready(Ok(()));
            }
            this.inbox.drain(..this.used);
            this.used = 0;
            this.inbox.extend_from_slice(came.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
