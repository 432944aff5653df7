//! Decides what a peer may send when, and what it means.
//!
//! In: one frame after the other. Out: its meaning to the driver, or why the connection
//! must end.
//! Pure. An error in a stream ends that stream. An error in the connection, or in state
//! that all streams share, ends the connection.

use super::{Block, Event, Opening, Protocol};
use crate::frame::{FRAME_MAX, Head, Reason, WINDOW_MAX, flag, kind, setting};
use crate::head::{self, Fields, HeadError};
use crate::{frame, hpack};

/// The longest header block, in bytes, and the most frames that it may have.
const BLOCK_MAX: usize = 16 * 1024;
const BLOCK_FRAMES: usize = 16;

impl<T> Protocol<T> {
    /// Handles one complete frame.
    ///
    /// # Errors
    /// When the connection must end with [`Protocol::go_away`].
    pub(crate) fn receive<'a>(
        &mut self,
        head: Head,
        payload: &'a [u8],
    ) -> Result<Event<'a>, Reason> {
        let first = !std::mem::replace(&mut self.settled, true);
        if first && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::Protocol);
        }
        let goes_on = self.block.as_ref().map(|block| block.stream);
        if goes_on.is_some_and(|id| head.kind != kind::CONTINUATION || head.stream != id) {
            return Err(Reason::Protocol);
        }
        let of_stream = head.stream != 0;
        match head.kind {
            kind::DATA if of_stream => self.data(head, payload),
            kind::HEADERS if of_stream => self.headers(head, payload),
            kind::PRIORITY if of_stream => match payload.len() {
                5 if depends_on_itself(head, payload) => Err(Reason::Protocol),
                5 => Ok(Event::Nothing),
                _ => Err(Reason::FrameSize),
            },
            kind::RST_STREAM if of_stream => self.reset(head, payload),
            kind::SETTINGS if !of_stream => self.settings(head, payload),
            kind::PING if !of_stream => match (payload.len(), head.has(flag::ACK)) {
                (8, true) => Ok(Event::Pong),
                (8, false) => {
                    frame::put_ping(&mut self.out, flag::ACK, payload);
                    Ok(Event::Nothing)
                }
                _ => Err(Reason::FrameSize),
            },
            // The peer will open no more streams.
            kind::GOAWAY if !of_stream && payload.len() >= 8 => Ok(Event::Nothing),
            kind::GOAWAY if !of_stream => Err(Reason::FrameSize),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            kind::CONTINUATION if goes_on.is_some() => self.continuation(head, payload),
            0..=kind::CONTINUATION => Err(Reason::Protocol),
            // RFC 9113, 5.5: unknown frames are ignored.
            _ => Ok(Event::Nothing),
        }
    }

    fn data<'a>(&mut self, head: Head, payload: &'a [u8]) -> Result<Event<'a>, Reason> {
        let length = payload.len() as u32;
        let data = unpadded(head, payload)?;
        self.recv_window -= i64::from(length);
        if self.recv_window < 0 {
            return Err(Reason::FlowControl);
        }
        let Some(at) = self.find(head.stream)? else {
            self.give_back(length);
            return self.closed(head.stream).map(|()| Event::Nothing);
        };
        let stream = &mut self.streams[at];
        stream.recv_window -= i64::from(length);
        stream.unread += length;
        let end = head.has(flag::END_STREAM);
        let fits = stream.content_left.is_none_or(|left| {
            let read = data.len() as u64;
            stream.content_left = Some(left.saturating_sub(read));
            if end { read == left } else { read <= left }
        });
        let wrong = match () {
            () if stream.remote_closed => Some(Reason::StreamClosed),
            () if stream.recv_window < 0 => Some(Reason::FlowControl),
            () if !fits => Some(Reason::Protocol),
            () => None,
        };
        if let Some(reason) = wrong {
            self.reset_stream(at, reason);
            return Ok(Event::Nothing);
        }
        stream.remote_closed = end;
        let padding = length - data.len() as u32;
        if padding > 0 {
            self.release(at, padding);
        }
        Ok(if end { Event::End(at, data) } else { Event::Data(at, data) })
    }

    fn headers<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Event<'a>, Reason> {
        let mut fragment = unpadded(head, payload)?;
        if head.has(flag::PRIORITY) {
            let Some((priority, rest)) = fragment.split_at_checked(5) else {
                return Err(Reason::FrameSize);
            };
            if depends_on_itself(head, priority) {
                return Err(Reason::Protocol);
            }
            fragment = rest;
        }
        let (stream, end_stream) = (head.stream, head.has(flag::END_STREAM));
        if head.has(flag::END_HEADERS) {
            return self.block(stream, end_stream, fragment);
        }
        let bytes = fragment.to_vec();
        self.block = Some(Box::new(Block { stream, end_stream, bytes, frames: 1 }));
        Ok(Event::Nothing)
    }

    fn continuation<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Event<'a>, Reason> {
        let Some(mut block) = self.block.take() else { return Err(Reason::Protocol) };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        if block.bytes.len() > BLOCK_MAX || block.frames > BLOCK_FRAMES {
            return Err(Reason::EnhanceYourCalm);
        }
        if head.has(flag::END_HEADERS) {
            return self.block(block.stream, block.end_stream, &block.bytes);
        }
        self.block = Some(block);
        Ok(Event::Nothing)
    }

    /// Handles a complete header block.
    fn block<'a>(&mut self, id: u32, end: bool, block: &[u8]) -> Result<Event<'a>, Reason> {
        let mut fields = Fields::default();
        // Decoded even if it is not served: later blocks refer to it.
        let decoded = self.decoder.decode(block, |name, value| fields.take(name, value));
        decoded.map_err(|hpack::DecodeError| Reason::Compression)?;
        // Even numbers are for streams that the server opens.
        if id.is_multiple_of(2) {
            return Err(Reason::Protocol);
        }
        if id > self.last {
            self.last = id;
            return Ok(self.request(id, end, fields));
        }
        let Some(at) = self.find(id)? else {
            // Sent before the peer knew that this side had ended the stream.
            return match (self.reset_ids.contains(&id), fields.trailers()) {
                (true, Ok(())) => Ok(Event::Nothing),
                (true, Err(_)) => Err(Reason::Protocol),
                (false, _) => Err(Reason::StreamClosed),
            };
        };
        let stream = &mut self.streams[at];
        let wrong = match fields.trailers() {
            _ if stream.remote_closed => Some(Reason::StreamClosed),
            Ok(()) if end && stream.content_left.is_none_or(|left| left == 0) => None,
            Ok(()) | Err(HeadError::Malformed) => Some(Reason::Protocol),
            Err(HeadError::TooLarge) => Some(Reason::EnhanceYourCalm),
        };
        if let Some(reason) = wrong {
            self.reset_stream(at, reason);
            return Ok(Event::Nothing);
        }
        stream.remote_closed = true;
        Ok(Event::End(at, &[]))
    }

    fn request<'a>(&mut self, id: u32, end: bool, fields: Fields) -> Event<'a> {
        if self.leaving || self.streams.len() >= self.streams_max() {
            self.refuse(id, Reason::RefusedStream);
            return Event::Nothing;
        }
        let request = fields.request().and_then(|request| {
            let content_left = head::content_length(request.headers())?;
            let fits = !end || content_left.is_none_or(|left| left == 0);
            fits.then_some((request, content_left)).ok_or(HeadError::Malformed)
        });
        match request {
            Ok((request, content_left)) => {
                return Event::Request(Box::new(request), Opening { end, id, content_left });
            }
            Err(HeadError::Malformed) => self.refuse(id, Reason::Protocol),
            Err(HeadError::TooLarge) => {
                let mut block = Vec::new();
                self.announce_table(&mut block);
                hpack::put_status(&mut block, 431);
                frame::put_headers(&mut self.out, id, &block, true, self.frame_max as usize);
                if !end {
                    self.refuse(id, Reason::NoError);
                }
            }
        }
        Event::Nothing
    }

    fn reset<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Event<'a>, Reason> {
        if payload.len() != 4 {
            return Err(Reason::FrameSize);
        }
        if let Some(at) = self.find(head.stream)? {
            self.forget(at);
        }
        Ok(Event::Nothing)
    }

    fn settings<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Event<'a>, Reason> {
        match (head.has(flag::ACK), payload.len()) {
            (true, 0) => return Ok(Event::Nothing),
            (false, length) if length % 6 == 0 => {}
            _ => return Err(Reason::FrameSize),
        }
        for (parameter, value) in frame::settings(payload) {
            match parameter {
                // The peer's table for the headers that this side sends, which stays
                // empty.
                setting::HEADER_TABLE_SIZE => self.shrunk |= value < 4_096,
                setting::ENABLE_PUSH if value > 1 => return Err(Reason::Protocol),
                setting::INITIAL_WINDOW_SIZE => self.resize_windows(value.into())?,
                setting::MAX_FRAME_SIZE => {
                    let fits = (FRAME_MAX as u32..1 << 24).contains(&value);
                    self.frame_max = fits.then_some(value).ok_or(Reason::Protocol)?;
                }
                _ => {}
            }
        }
        frame::put_settings_ack(&mut self.out);
        Ok(Event::Nothing)
    }

    fn resize_windows(&mut self, size: i64) -> Result<(), Reason> {
        if size > WINDOW_MAX {
            return Err(Reason::FlowControl);
        }
        for stream in &mut self.streams {
            stream.send_window += size - self.initial_send_window;
            if stream.send_window > WINDOW_MAX {
                return Err(Reason::FlowControl);
            }
        }
        self.initial_send_window = size;
        Ok(())
    }

    fn window_update<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Event<'a>, Reason> {
        if payload.len() != 4 {
            return Err(Reason::FrameSize);
        }
        let increment = i64::from(frame::number(payload) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += increment;
            return match increment {
                0 => Err(Reason::Protocol),
                _ if self.send_window > WINDOW_MAX => Err(Reason::FlowControl),
                _ => Ok(Event::Nothing),
            };
        }
        if let Some(at) = self.find(head.stream)? {
            let stream = &mut self.streams[at];
            stream.send_window += increment;
            match increment {
                0 => self.reset_stream(at, Reason::Protocol),
                _ if stream.send_window > WINDOW_MAX => self.reset_stream(at, Reason::FlowControl),
                _ => {}
            }
        }
        Ok(Event::Nothing)
    }

    /// Handles DATA on a closed stream.
    fn closed(&mut self, id: u32) -> Result<(), Reason> {
        // If the stream was ended here, the peer may not have known.
        if !self.reset_ids.contains(&id) {
            frame::put_reset(&mut self.out, id, Reason::StreamClosed);
        }
        Ok(())
    }
}

/// Returns a payload without its padding.
fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Reason> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Reason::FrameSize)?;
    let length = rest.len().checked_sub(padding.into()).ok_or(Reason::Protocol)?;
    Ok(&rest[..length])
}

/// Returns whether a stream depends on itself. Priorities are ignored, but this is
/// invalid (RFC 7540, 5.3.1).
fn depends_on_itself(head: Head, priority: &[u8]) -> bool {
    frame::number(priority) & 0x7fff_ffff == head.stream
}
