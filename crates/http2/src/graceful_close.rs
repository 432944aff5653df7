//! Asks a connection to end.
//!
//! In: a request to leave, from any task. Out: a flag that wakes the connection's task;
//! whether its peer may no longer be served; and how many streams the connection has, which helps to choose one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;

/// Asks one connection to leave: its peer gets a GOAWAY, and the connection is closed when
/// its streams have ended, at the latest 200 ms later. The connection and everything that may
/// ask it share this value.
#[derive(Debug, Default)]
pub struct GracefulClose {
    requested: AtomicBool,
    refused: AtomicBool,
    /// How many streams the connection has.
    streams: AtomicU32,
    waker: AtomicWaker,
}

/// The connection's side.
#[derive(Debug)]
pub(super) struct Listener {
    close: Arc<GracefulClose>,
    /// The registered waker. It is not registered again at each poll, because that would
    /// write to memory that a poll otherwise hardly uses.
    waker: Waker,
}

impl GracefulClose {
    /// Asks the connection to leave. Further calls have no effect.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Asks the connection to leave because its peer may no longer be served. Its streams can
    /// ask for that, and end with a status that says so.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
        self.request();
    }

    /// Returns whether the peer may no longer be served.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// Returns whether the connection has been asked.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Records how many streams the connection has. A [`Connection`](crate::Connection)
    /// calls this itself.
    pub fn set_streams(&self, streams: u32) {
        self.streams.store(streams, Ordering::Relaxed);
    }

    /// Returns how many streams the connection has now.
    pub fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Returns whether the connection has no stream now.
    pub fn is_idle(&self) -> bool {
        self.streams() == 0
    }

    /// Waits until the connection is asked to leave, for code that has no
    /// [`Connection`](crate::Connection) yet. Only one task may wait.
    pub fn poll_requested(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.requested.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Listener {
    pub(super) fn new(close: Arc<GracefulClose>) -> Self {
        Self { close, waker: Waker::noop().clone() }
    }

    /// Returns whether the connection has been asked. If not, the task will be woken.
    pub(super) fn is_requested(&mut self, cx: &Context<'_>) -> bool {
        if !self.waker.will_wake(cx.waker()) {
            self.waker.clone_from(cx.waker());
            self.close.waker.register(cx.waker());
        }
        self.close.requested.load(Ordering::Acquire)
    }

    /// Records how many streams the connection has.
    pub(super) fn set_streams(&self, streams: u32) {
        self.close.set_streams(streams);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::{ArcWake, waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl ArcWake for Woken {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_that_is_refused_is_asked_to_leave() {
        let close = GracefulClose::default();
        close.request();
        assert!(!close.is_refused());
        close.refuse();
        assert!(close.is_refused() && close.is_requested());
    }

    #[test]
    fn whoever_polled_last_is_woken() {
        let close = Arc::<GracefulClose>::default();
        let mut listener = Listener::new(close.clone());
        let woken = [Arc::<Woken>::default(), Arc::default()];
        let mut is_requested =
            |by: usize| listener.is_requested(&Context::from_waker(&waker(woken[by].clone())));
        assert_eq!([0, 0, 1, 1].map(&mut is_requested), [false; 4]);
        close.request();
        assert!(is_requested(1) && is_requested(0));
        let woken = woken.map(|woken| woken.0.load(Ordering::Relaxed));
        assert_eq!(woken, [false, true]);
    }
}
