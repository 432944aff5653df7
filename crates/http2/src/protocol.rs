//! The state of one HTTP/2 connection, without its bytes (RFC 9113).
//!
//! In: frames, and answers. Out: [`Event`]s, the bytes to send in `out`, or why the
//! connection must end.
//! Pure. It holds at most as much for a peer as windows and limits allow. The driver
//! keeps its own state of a stream in `T`.

use http::Request;
use smallvec::SmallVec;

use super::frame::{self, FRAME_MAX, Head, Reason, WINDOW_DEFAULT, flag, kind, setting};
use super::head;
use super::hpack::{self, Decoder};

mod receive;

/// One connection, seen from the server.
#[derive(Debug)]
pub(super) struct Protocol<T> {
    decoder: Decoder,
    /// Nearly always one stream. It is stored inline, because every push uses it and a pointer
    /// would cost a cache miss.
    pub(super) streams: SmallVec<[Stream<T>; 1]>,
    /// The bytes to write before any DATA that is not begun.
    pub(super) out: Vec<u8>,
    /// How many bytes of DATA the peer accepts on all streams together.
    pub(super) send_window: i64,
    /// The longest payload that the peer accepts, in bytes.
    frame_max: u32,
    /// How many streams may be open at a time; the connection raises it.
    streams_max: u32,
    initial_send_window: i64,
    recv_window: i64,
    /// How many bytes of `recv_window` can be given back.
    credit: u32,
    /// How far the windows are open beyond their usual size, for long messages.
    widened: u32,
    /// The part of it that belonged to streams that are closed.
    narrow: u32,
    /// The highest stream that the peer has opened.
    last: u32,
    /// Whether the peer's first SETTINGS have arrived.
    settled: bool,
    /// Whether the peer made its table smaller and no block has acknowledged that yet.
    shrunk: bool,
    leaving: bool,
    /// A header block whose end has not arrived.
    block: Option<Box<Block>>,
    /// The streams that were last ended by this side alone. The peer may not know yet.
    reset_ids: [u32; 4],
}

/// A stream on which at least one side is not finished.
#[derive(Debug)]
pub(super) struct Stream<T> {
    pub(super) id: u32,
    /// The driver's state of it.
    pub(super) state: T,
    /// How many bytes of DATA the peer accepts.
    pub(super) send_window: i64,
    recv_window: i64,
    credit: u32,
    /// Bytes of DATA that have arrived and are not released.
    unread: u32,
    /// How far its window is open beyond [`STREAM_WINDOW`], for a long message.
    widened: u32,
    /// The peer has finished sending.
    remote_closed: bool,
    /// How much of the announced length is missing.
    content_left: Option<u64>,
}

/// The meaning of a frame to the driver.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// The driver need not know of it.
    Nothing,
    /// A request, and the data to open its stream with.
    Request(Box<Request<()>>, Opening),
    /// More of the body of the stream at this index.
    Data(usize, &'a [u8]),
    /// The end of the request on the stream at this index, with its last DATA, if any.
    End(usize, &'a [u8]),
    /// The answer to a PING.
    Pong,
}

/// A stream that is not open yet.
#[derive(Debug)]
pub(super) struct Opening {
    /// Whether the request has no body.
    pub(super) end: bool,
    id: u32,
    content_left: Option<u64>,
}

#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// The most streams of a connection, as announced. A client channel has one, proxies have
/// many, and so has a process of gRPC C-core with many targets by xDS: its streams for all
/// targets share a connection, and those beyond the announced number wait for ever.
pub(super) const STREAMS_MAX: u32 = 1_000;
/// How many streams every connection may have. RFC 9113 advises against less than 100. More
/// are allowed in such steps, as long as all connections together have few of them.
pub(super) const STREAMS_STEP: u32 = 100;
/// The receive windows, in bytes. They limit what a connection can make this side hold:
/// its largest message fits, and no more.
const CONNECTION_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 68 * 1024;
/// How far the windows of a connection may be open beyond [`CONNECTION_WINDOW`], for long
/// messages: one of the longest fits.
const WIDENED_MAX: u32 = 1024 * 1024;
/// How many bytes of a window are given back at a time.
const CONNECTION_CREDIT: u32 = 64 * 1024;
const STREAM_CREDIT: u32 = 16 * 1024;

impl<T> Stream<T> {
    /// Returns whether DATA has arrived that is not released.
    pub(super) fn has_unread(&self) -> bool {
        self.unread > 0
    }

    /// Returns how many bytes of DATA have arrived and are not released.
    pub(super) fn arrived(&self) -> usize {
        self.unread as usize
    }

    /// Returns how many bytes of DATA have arrived and are not released, but for those that
    /// came through a widened window.
    pub(super) fn unread(&self) -> usize {
        self.unread.saturating_sub(self.widened) as usize
    }

    /// Returns how far the window is open for a long message, in bytes.
    pub(super) fn widened(&self) -> u32 {
        self.widened
    }
}

impl<T> Protocol<T> {
    pub(super) fn new() -> Self {
        let mut out = Vec::new();
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, STREAMS_MAX),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, head::SIZE_MAX as u32),
        ];
        frame::put_settings(&mut out, &settings);
        frame::put_window_update(&mut out, 0, CONNECTION_WINDOW - WINDOW_DEFAULT as u32);
        Self {
            decoder: Decoder::default(),
            streams: SmallVec::new(),
            out,
            send_window: WINDOW_DEFAULT,
            frame_max: FRAME_MAX as u32,
            streams_max: STREAMS_STEP,
            initial_send_window: WINDOW_DEFAULT,
            recv_window: CONNECTION_WINDOW.into(),
            credit: 0,
            widened: 0,
            narrow: 0,
            last: 0,
            settled: false,
            shrunk: false,
            leaving: false,
            block: None,
            reset_ids: [0; 4],
        }
    }

    /// Returns the longest payload that the peer accepts, in bytes.
    pub(super) fn frame_max(&self) -> usize {
        self.frame_max as usize
    }

    /// Returns whether one more stream needs [`Self::allow_streams`] first.
    pub(super) fn is_full(&self) -> bool {
        self.streams.len() >= self.streams_max as usize && self.streams_max < STREAMS_MAX
    }

    /// Allows [`STREAMS_STEP`] more streams.
    pub(super) fn allow_streams(&mut self) {
        self.streams_max += STREAMS_STEP;
    }

    /// Opens the stream of a request.
    pub(super) fn open(&mut self, opening: Opening, state: T) {
        self.streams.push(Stream {
            id: opening.id,
            state,
            send_window: self.initial_send_window,
            recv_window: STREAM_WINDOW.into(),
            credit: 0,
            unread: 0,
            widened: 0,
            remote_closed: opening.end,
            content_left: opening.content_left,
        });
    }

    /// Records that `bytes` of DATA of the stream at `at` have been read, so more may come.
    pub(super) fn release(&mut self, at: usize, bytes: u32) {
        let stream = &mut self.streams[at];
        stream.unread = stream.unread.saturating_sub(bytes);
        // A widened window is closed to its usual size first.
        let narrowed = stream.widened.min(bytes);
        stream.widened -= narrowed;
        self.widened -= narrowed;
        let bytes = bytes - narrowed;
        stream.credit += bytes;
        if stream.credit >= STREAM_CREDIT && !stream.remote_closed {
            let credit = std::mem::take(&mut stream.credit);
            stream.recv_window += i64::from(credit);
            frame::put_window_update(&mut self.out, stream.id, credit);
        }
        self.give_back(bytes);
    }

    /// Returns how much wider the window of the stream at `at` must be for a message of
    /// `length` bytes, of which those come first that are not released; 0 if it fits, or if
    /// the connection has no room for it now.
    pub(super) fn missing(&self, at: usize, length: u32) -> u32 {
        let stream = &self.streams[at];
        let open = i64::from(stream.unread) + stream.recv_window;
        let missing = u32::try_from(i64::from(length) - open).unwrap_or(0);
        let fits = !stream.remote_closed && self.widened.saturating_add(missing) <= WIDENED_MAX;
        if fits { missing } else { 0 }
    }

    /// Opens the window of the stream at `at`, and that of the connection, so much wider.
    /// They are closed as far when the data has been read.
    pub(super) fn widen(&mut self, at: usize, bytes: u32) {
        let stream = &mut self.streams[at];
        stream.widened += bytes;
        stream.recv_window += i64::from(bytes);
        frame::put_window_update(&mut self.out, stream.id, bytes);
        self.widened += bytes;
        self.recv_window += i64::from(bytes);
        frame::put_window_update(&mut self.out, 0, bytes);
    }

    /// Returns how far the windows are open beyond their usual size, in bytes.
    pub(super) fn widened(&self) -> u32 {
        self.widened
    }

    /// Writes the head of the response of the stream at `at`.
    pub(super) fn respond(&mut self, at: usize, status: u16, headers: &http::HeaderMap, end: bool) {
        let mut block = Vec::new();
        self.announce_table(&mut block);
        head::put_response(&mut block, status, headers);
        let id = self.streams[at].id;
        frame::put_headers(&mut self.out, id, &block, end, self.frame_max as usize);
    }

    /// Writes the end of the body of the stream at `at`, with trailers if there are any.
    pub(super) fn end_body(&mut self, at: usize, trailers: Option<&http::HeaderMap>) {
        let id = self.streams[at].id;
        let Some(trailers) = trailers else {
            let end = Head::bytes(0, kind::DATA, flag::END_STREAM, id);
            return self.out.extend_from_slice(&end);
        };
        let mut block = Vec::new();
        // Due before the next block of any kind (RFC 7541, 4.2).
        self.announce_table(&mut block);
        head::put_trailers(&mut block, trailers);
        frame::put_headers(&mut self.out, id, &block, true, self.frame_max as usize);
    }

    /// Forgets the stream at `at`, whose response is complete. A peer that still sends is
    /// told to stop (RFC 9113, 8.1).
    pub(super) fn finish(&mut self, at: usize) {
        if !self.streams[at].remote_closed {
            let id = self.streams[at].id;
            frame::put_reset(&mut self.out, id, Reason::NoError);
            self.note_reset(id);
        }
        self.forget(at);
    }

    /// Writes a GOAWAY. Streams that begin from now on are not served.
    pub(super) fn go_away(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.leaving, true) || reason != Reason::NoError {
            frame::put_goaway(&mut self.out, self.last, reason);
        }
    }

    /// Returns how many bytes an unfinished header block takes.
    pub(super) fn block_len(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes.capacity())
    }

    pub(super) fn ping(&mut self) {
        frame::put_ping(&mut self.out, 0, b"lookside");
    }

    /// Returns the index of an open stream; `None` if it is closed.
    fn find(&self, id: u32) -> Result<Option<usize>, Reason> {
        // The peer never opened it.
        if id > self.last || id.is_multiple_of(2) {
            return Err(Reason::Protocol);
        }
        Ok(self.streams.iter().position(|stream| stream.id == id))
    }

    /// Resets the stream at `at` before its end.
    pub(super) fn reset_stream(&mut self, at: usize, reason: Reason) {
        let id = self.streams[at].id;
        self.refuse(id, reason);
        self.forget(at);
    }

    fn refuse(&mut self, id: u32, reason: Reason) {
        frame::put_reset(&mut self.out, id, reason);
        self.note_reset(id);
    }

    fn note_reset(&mut self, id: u32) {
        self.reset_ids.rotate_right(1);
        self.reset_ids[0] = id;
    }

    fn forget(&mut self, at: usize) {
        let stream = self.streams.swap_remove(at);
        self.narrow += stream.widened;
        self.give_back(stream.unread);
        if self.streams.is_empty() {
            self.streams = SmallVec::new();
        }
    }

    fn give_back(&mut self, bytes: u32) {
        let narrowed = self.narrow.min(bytes);
        self.narrow -= narrowed;
        self.widened -= narrowed;
        self.credit += bytes - narrowed;
        if self.credit >= CONNECTION_CREDIT {
            let credit = std::mem::take(&mut self.credit);
            self.recv_window += i64::from(credit);
            frame::put_window_update(&mut self.out, 0, credit);
        }
    }

    fn announce_table(&mut self, block: &mut Vec<u8>) {
        if std::mem::take(&mut self.shrunk) {
            hpack::put_empty_table(block);
        }
    }
}

#[cfg(test)]
mod tests;
