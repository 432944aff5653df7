//! One HTTP/2 connection without its bytes (RFC 9113).
//!
//! In: frames, and what is to be answered. Out: [`Event`]s, answers that are
//! due in `out`, or why the connection must end. Pure. It holds as much for a peer as windows and
//! limits allow, and a stream's fate (`T`) is its driver's.

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
    /// Nearly always one, which lies here: a push touches it, and what lies
    /// elsewhere costs a cache miss.
    pub(super) streams: SmallVec<[Stream<T>; 1]>,
    /// What is to be written before all DATA that is not begun.
    pub(super) out: Vec<u8>,
    /// How much DATA the peer takes on all streams together.
    pub(super) send_window: i64,
    /// The longest payload that the peer takes.
    pub(super) frame_max: usize,
    initial_send_window: i64,
    recv_window: i64,
    /// What may be given back of it.
    credit: u32,
    /// The highest stream that the peer began.
    last: u32,
    /// Its first SETTINGS have come.
    settled: bool,
    /// It has made its table smaller, and has not been answered so.
    shrunk: bool,
    leaving: bool,
    /// A header block that goes on.
    block: Option<Box<Block>>,
    /// The streams that were last ended from our side alone: the peer may not
    /// know yet.
    cut: [u32; 4],
}

/// A stream that both sides, or one, still speak on.
#[derive(Debug)]
pub(super) struct Stream<T> {
    pub(super) id: u32,
    /// What it is to the driver.
    pub(super) of: T,
    /// How much DATA the peer takes.
    pub(super) send_window: i64,
    recv_window: i64,
    credit: u32,
    /// DATA that has come and is not released.
    unread: u32,
    /// The peer has said all.
    remote_closed: bool,
    /// The rest of the announced length.
    content_left: Option<u64>,
}

/// What a frame means to the driver.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// Nothing that it must know.
    Nothing,
    /// A request, and what to open its stream with.
    Request(Box<Request<()>>, Opening),
    /// More of the body of the stream at this place.
    Data(usize, &'a [u8]),
    /// The peer has said all on the stream at this place, which was its last
    /// DATA if there is any.
    End(usize, &'a [u8]),
    /// The answer to a PING.
    Pong,
}

/// A stream that is not open yet.
#[derive(Debug)]
pub(super) struct Opening {
    /// There is no body.
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

/// A client channel has one stream; only proxies have many. RFC 9113 advises
/// against less than 100.
const STREAMS_MAX: usize = 100;
/// Together with the window of a stream this bounds what a connection can make
/// us hold: its largest message fits, and no more.
const CONNECTION_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 68 * 1024;
/// So much is given back at a time.
const CONNECTION_CREDIT: u32 = 64 * 1024;
const STREAM_CREDIT: u32 = 16 * 1024;

impl<T> Stream<T> {
    /// Whether DATA has come that is not released.
    pub(super) fn has_unread(&self) -> bool {
        self.unread > 0
    }

    /// How much of it.
    pub(super) fn unread(&self) -> usize {
        self.unread as usize
    }
}

impl<T> Protocol<T> {
    pub(super) fn new() -> Self {
        let mut out = Vec::new();
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, STREAMS_MAX as u32),
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
            frame_max: FRAME_MAX,
            initial_send_window: WINDOW_DEFAULT,
            recv_window: CONNECTION_WINDOW.into(),
            credit: 0,
            last: 0,
            settled: false,
            shrunk: false,
            leaving: false,
            block: None,
            cut: [0; 4],
        }
    }

    /// Opens the stream of a request.
    pub(super) fn open(&mut self, opening: Opening, of: T) {
        self.streams.push(Stream {
            id: opening.id,
            of,
            send_window: self.initial_send_window,
            recv_window: STREAM_WINDOW.into(),
            credit: 0,
            unread: 0,
            remote_closed: opening.end,
            content_left: opening.content_left,
        });
    }

    /// DATA of the stream at that place has been read: more may come.
    pub(super) fn release(&mut self, at: usize, bytes: u32) {
        let stream = &mut self.streams[at];
        stream.unread = stream.unread.saturating_sub(bytes);
        stream.credit += bytes;
        if stream.credit >= STREAM_CREDIT && !stream.remote_closed {
            let credit = std::mem::take(&mut stream.credit);
            stream.recv_window += i64::from(credit);
            frame::put_window_update(&mut self.out, stream.id, credit);
        }
        self.give_back(bytes);
    }

    /// Writes the head of the response of the stream at that place.
    pub(super) fn respond(&mut self, at: usize, status: u16, headers: &http::HeaderMap, end: bool) {
        let mut block = Vec::new();
        self.announce_table(&mut block);
        head::put_response(&mut block, status, headers);
        let id = self.streams[at].id;
        frame::put_headers(&mut self.out, id, &block, end, self.frame_max);
    }

    /// Writes what follows the body of the stream at that place.
    pub(super) fn trail(&mut self, at: usize, trailers: Option<&http::HeaderMap>) {
        let id = self.streams[at].id;
        let Some(trailers) = trailers else {
            let end = Head::bytes(0, kind::DATA, flag::END_STREAM, id);
            return self.out.extend_from_slice(&end);
        };
        let mut block = Vec::new();
        // Due before the next block, whichever that is (RFC 7541, 4.2).
        self.announce_table(&mut block);
        head::put_trailers(&mut block, trailers);
        frame::put_headers(&mut self.out, id, &block, true, self.frame_max);
    }

    /// Forgets the stream at that place, to which all has been said. A peer
    /// that goes on speaking is told that nobody listens (RFC 9113, 8.1).
    pub(super) fn finish(&mut self, at: usize) {
        if !self.streams[at].remote_closed {
            let id = self.streams[at].id;
            frame::put_reset(&mut self.out, id, Reason::NoError);
            self.note_cut(id);
        }
        self.forget(at);
    }

    /// Says that the connection will end. Streams that begin from now on are
    /// not served.
    pub(super) fn go_away(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.leaving, true) || reason != Reason::NoError {
            frame::put_goaway(&mut self.out, self.last, reason);
        }
    }

    /// How much has come of a header block that goes on.
    pub(super) fn block_len(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes.capacity())
    }

    pub(super) fn ping(&mut self) {
        frame::put_ping(&mut self.out, 0, b"lookside");
    }

    /// The place of an open stream; none if it is closed.
    fn find(&self, id: u32) -> Result<Option<usize>, Reason> {
        // One that nobody began.
        if id > self.last || id.is_multiple_of(2) {
            return Err(Reason::Protocol);
        }
        Ok(self.streams.iter().position(|stream| stream.id == id))
    }

    /// Ends the stream at that place before its time.
    pub(super) fn cut(&mut self, at: usize, reason: Reason) {
        let id = self.streams[at].id;
        self.refuse(id, reason);
        self.forget(at);
    }

    fn refuse(&mut self, id: u32, reason: Reason) {
        frame::put_reset(&mut self.out, id, reason);
        self.note_cut(id);
    }

    fn note_cut(&mut self, id: u32) {
        self.cut.rotate_right(1);
        self.cut[0] = id;
    }

    fn forget(&mut self, at: usize) {
        let stream = self.streams.swap_remove(at);
        self.give_back(stream.unread);
        if self.streams.is_empty() {
            self.streams = SmallVec::new();
        }
    }

    fn give_back(&mut self, bytes: u32) {
        self.credit += bytes;
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
