//! Writes all pending data in as few system calls as possible.
//!
//! In: the answers of a connection, and pending bodies. Out: both as frames, written from
//! where they are stored. Only a frame that the operating system took in part is kept.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite, ReadBuf};

use super::frame::{Head, kind};
use super::protocol::Protocol;
use super::timer::Second;
use super::{Connection, Exchange, Pieces};

/// A frame that is partly written.
#[derive(Debug)]
pub(super) struct Leftover {
    head: [u8; Head::SIZE],
    /// How many bytes of the head are written.
    begun: usize,
    data: Pieces,
    /// Its stream has ended, so `data` is a copy and keeps no list in memory.
    is_copy: bool,
}

/// A frame that may be written now.
#[derive(Debug, Clone, Copy, Default)]
struct Planned {
    /// The index of its stream.
    at: usize,
    head: [u8; Head::SIZE],
    /// Its range in the pending data: start and length.
    from: usize,
    length: usize,
}

/// The frames of one system call. A long list has three.
#[derive(Debug, Default)]
struct Plan {
    frames: [Planned; 8],
    count: usize,
}

/// One slice for the answers; for each frame its head and its pieces.
const SLICES: usize = 1 + 9 * 4;
/// Slices of at most this many bytes together are joined on the stack. The copy costs
/// less than it saves, because for `writev` the kernel looks at each slice.
const JOINED_MAX: usize = 4096;

impl<S: AsyncWrite + Unpin, H, B> Connection<S, H, B> {
    /// Writes all that may be written. Returns true if something was.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        // The server's first bytes wait for the preface, so that they go out together.
        if self.awaits_preface() {
            return Ok(false);
        }
        let mut any = false;
        self.detach_leftover();
        loop {
            let plan = Plan::new(&self.protocol, self.next.into());
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            let mut add = |bytes| {
                slices[count] = IoSlice::new(bytes);
                count += 1;
            };
            if let Some(left) = &self.leftover {
                add(&left.head[left.begun..]);
                left.data.slices(0, left.data.len()).for_each(&mut add);
            }
            let answers = &self.protocol.out[self.written..];
            if !answers.is_empty() {
                add(answers);
            }
            for frame in &plan.frames[..plan.count] {
                add(&frame.head);
                let pending = self.protocol.streams[frame.at].state.pending.iter();
                pending.flat_map(|data| data.slices(frame.from, frame.length)).for_each(&mut add);
            }
            if count == 0 {
                // The blocked data may have ended with its stream or its window. Then the
                // other streams, which waited for it, must be asked again.
                any |= std::mem::replace(&mut self.blocked_since, Second::NEVER) != Second::NEVER;
                break;
            }
            match poll_write(Pin::new(&mut self.io), cx, &slices[..count]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => self.commit(&plan, written),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    let now = self.share.now();
                    self.blocked_since.note(true, || now);
                    return Ok(any);
                }
            }
            (self.blocked_since, self.flushed, any) = (Second::NEVER, false, true);
        }
        if !self.flushed {
            self.flushed = match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(flushed) => flushed.map(|()| true)?,
                Poll::Pending => false,
            };
        }
        Ok(any)
    }

    /// Returns whether no data waits to be written.
    pub(super) fn is_written(&self) -> bool {
        self.protocol.out.is_empty() && self.leftover.is_none() && self.flushed
    }

    /// Copies the rest of a frame whose stream has ended. Otherwise the frame alone would
    /// keep a whole list in memory, perhaps for long.
    fn detach_leftover(&mut self) {
        let Some(left) = &mut self.leftover else { return };
        let id = Head::read(&left.head).map_or(0, |head| head.stream);
        if !left.is_copy && !self.protocol.streams.iter().any(|stream| stream.id == id) {
            (left.data, left.is_copy) = (left.data.to_owned_pieces(), true);
        }
    }

    /// Notes that `written` bytes of the plan are written.
    fn commit(&mut self, plan: &Plan, mut written: usize) {
        let mut take = |there: usize| {
            let taken = written.min(there);
            written -= taken;
            taken
        };
        if let Some(left) = &mut self.leftover {
            left.begun += take(Head::SIZE - left.begun);
            let data = take(left.data.len());
            left.data.advance(data);
            if left.begun == Head::SIZE && left.data.is_empty() {
                self.leftover = None;
            }
        }
        self.written += take(self.protocol.out.len() - self.written);
        if self.written == self.protocol.out.len() {
            // An empty buffer is not kept.
            (self.protocol.out, self.written) = (Vec::new(), 0);
        }
        for frame in &plan.frames[..plan.count] {
            let begun = take(Head::SIZE);
            if begun == 0 {
                break;
            }
            let said = take(frame.length);
            self.next = u16::try_from(frame.at + 1).unwrap_or(0);
            let stream = &mut self.protocol.streams[frame.at];
            let length = i64::try_from(frame.length).unwrap_or(i64::MAX);
            stream.send_window -= length;
            self.protocol.send_window -= length;
            let Some(pending) = &mut stream.state.pending else { continue };
            if begun + said < Head::SIZE + frame.length {
                let data = pending.part(said, frame.length - said);
                self.leftover =
                    Some(Box::new(Leftover { head: frame.head, begun, data, is_copy: false }));
            }
            pending.advance(frame.length);
            if pending.is_empty() {
                stream.state.pending = None;
            }
        }
    }
}

impl Plan {
    /// Plans as much as the peer's windows allow, beginning with the stream at index
    /// `first`: the streams take turns with the connection's window.
    fn new<B>(protocol: &Protocol<Exchange<B>>, first: usize) -> Self {
        let mut plan = Self::default();
        let mut room = window(protocol.send_window);
        let (before, after) = protocol.streams.split_at(first.min(protocol.streams.len()));
        let (from_first, from_start) = ((first..).zip(after), (0..).zip(before));
        for (at, stream) in from_first.chain(from_start) {
            let pending = stream.state.pending.as_ref().map_or(0, |data| data.len());
            let mut allowed = pending.min(window(stream.send_window));
            let mut from = 0;
            while allowed > 0 && room > 0 && plan.count < plan.frames.len() {
                let length = allowed.min(room).min(protocol.frame_max());
                let head = Head::bytes(length, kind::DATA, 0, stream.id);
                plan.frames[plan.count] = Planned { at, head, from, length };
                plan.count += 1;
                (from, allowed, room) = (from + length, allowed - length, room - length);
            }
        }
        plan
    }
}

/// Writes slices with one system call.
fn poll_write<S: AsyncWrite>(
    io: Pin<&mut S>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = slices {
        return io.poll_write(cx, one);
    }
    if slices.iter().map(|slice| slice.len()).sum::<usize>() > JOINED_MAX {
        return io.poll_write_vectored(cx, slices);
    }
    let mut space = [const { MaybeUninit::uninit() }; JOINED_MAX];
    let mut joined = ReadBuf::uninit(&mut space);
    slices.iter().for_each(|slice| joined.put_slice(slice));
    io.poll_write(cx, joined.filled())
}

/// A window below zero has no room (RFC 9113, 6.9.2).
fn window(size: i64) -> usize {
    usize::try_from(size).unwrap_or(0)
}
