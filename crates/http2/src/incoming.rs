//! Carries the body of a request from the connection to its reader.
//!
//! In: DATA as it arrives. Out: the data as a [`Body`].
//! It holds the data that is not read yet. The flow-control windows limit that data
//! together with the data that the reader holds: the peer may send more only when the
//! reader is done. A reader that expects a message longer than a window says so.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

/// The body of a request, as an [`http_body::Body`].
#[derive(Debug)]
pub struct Incoming {
    inbox: Arc<Inbox>,
    /// How many bytes the reader was given and still holds.
    held: usize,
}

/// The connection's side. If it is dropped before the end of the body, the body breaks.
#[derive(Debug)]
pub(super) struct Sender(Arc<Inbox>);

/// The error of a body that has no end: the peer reset the stream, or the connection ended.
#[derive(Debug, thiserror::Error)]
#[error("the stream was broken off")]
pub struct Broken;

#[derive(Debug, Default)]
struct Inbox {
    /// Bytes that the reader released, and that the connection has not counted yet.
    released: AtomicU32,
    /// The length of the long message of which the reader holds the beginning.
    expected: AtomicU32,
    /// The lengths of the long messages that the reader has finished, and that the connection
    /// has not counted yet.
    finished: AtomicU32,
    /// How many bytes of the long message that comes are given back.
    given_back: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    data: Vec<u8>,
    end: Option<Result<(), Broken>>,
    /// The reader was dropped.
    unread: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

/// Makes a body and the sender of its data.
pub(super) fn channel() -> (Sender, Incoming) {
    let inbox = Arc::new(Inbox::default());
    (Sender(inbox.clone()), Incoming { inbox, held: 0 })
}

impl Sender {
    /// Passes data on, and the end of the body if `end` is true.
    pub(super) fn push(&self, data: &[u8], end: bool, cx: &mut Context<'_>) {
        let mut inner = self.0.lock();
        if inner.unread {
            self.0.release(data.len());
        } else {
            inner.data.extend_from_slice(data);
        }
        if end {
            inner.end.get_or_insert(Ok(()));
        }
        if !inner.connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.connection = Some(cx.waker().clone());
        }
        // A reader in the connection's own task is polled next anyway.
        if let Some(reader) = inner.reader.take_if(|reader| !reader.will_wake(cx.waker())) {
            drop(inner);
            reader.wake();
        }
    }

    /// Returns how many bytes were released since the last call.
    pub(super) fn released(&self) -> u32 {
        self.0.released.swap(0, Ordering::Relaxed)
    }

    /// Returns the length of the long message of which the reader holds the beginning; 0 if it
    /// does not say.
    pub(super) fn expected(&self) -> u32 {
        self.0.expected.load(Ordering::Relaxed)
    }

    /// Records that so many bytes of the long message that comes are given back.
    pub(super) fn give_back(&self, bytes: u32) {
        self.0.given_back.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns how many bytes of the long messages that the reader has finished since the last
    /// call are not given back.
    pub(super) fn finished(&self) -> u32 {
        match self.0.finished.swap(0, Ordering::Relaxed) {
            0 => 0,
            finished => finished.saturating_sub(self.0.given_back.swap(0, Ordering::Relaxed)),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.end.get_or_insert(Err(Broken));
        if let Some(reader) = inner.reader.take() {
            drop(inner);
            reader.wake();
        }
    }
}

impl Incoming {
    /// Records that the reader still holds `bytes` of the data that it was given. It is done
    /// with the rest, so the peer may send as much again.
    pub fn hold(&mut self, bytes: usize, cx: &Context<'_>) {
        let done = self.held.saturating_sub(bytes);
        if done == 0 {
            return;
        }
        self.held -= done;
        self.inbox.release(done);
        let mut inner = self.inbox.lock();
        // The connection's own task checks anyway.
        let connection = inner.connection.take_if(|connection| !connection.will_wake(cx.waker()));
        drop(inner);
        connection.into_iter().for_each(Waker::wake);
    }

    /// Records that what the reader holds is the beginning of a long message of `bytes` bytes,
    /// so that the windows are opened for all of it; 0: of no long message. The connection looks
    /// when it has polled its streams.
    pub fn expect(&self, bytes: usize) {
        self.inbox.expected.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Records that the reader has finished a long message of `bytes` bytes. The peer is charged
    /// no longer for these: the reader charges for what it does with them
    /// ([`crate::Outgoing::cost`]).
    pub fn finish(&self, bytes: usize) {
        self.inbox.finished.fetch_add(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Self { inbox, held } = self.get_mut();
        let mut inner = inbox.lock();
        if !inner.data.is_empty() {
            let data = Bytes::from(std::mem::take(&mut inner.data));
            *held += data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match inner.end {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(_)) => {
                // The error is reported once.
                inner.end = Some(Ok(()));
                return Poll::Ready(Some(Err(Broken)));
            }
            None => {}
        }
        if !inner.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            inner.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.inbox.lock();
        inner.data.is_empty() && matches!(inner.end, Some(Ok(())))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut inner = self.inbox.lock();
        inner.unread = true;
        inner.reader = None;
        let released = self.held + std::mem::take(&mut inner.data).len();
        self.inbox.release(released);
        // The peer may be waiting for the window that this opens.
        let connection = inner.connection.take_if(|_| released > 0);
        drop(inner);
        connection.into_iter().for_each(Waker::wake);
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, bytes: usize) {
        self.released.fetch_add(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection's task and its socket are stored at multiples of 128 bytes, so that a step
    /// of 16 bytes more here can take 128 bytes more for each stream.
    const INBOX_MAX: usize = 88;

    #[test]
    fn an_inbox_takes_no_further_step_of_memory() {
        assert!(size_of::<Inbox>() <= INBOX_MAX, "{} bytes", size_of::<Inbox>());
    }
}
