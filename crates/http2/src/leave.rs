//! Asks a connection to end.
//!
//! In: a request to leave, from any task. Out: a flag that wakes the connection's task;
//! and whether the connection has a stream, which helps to choose one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;

/// Asks one connection to leave: its peer gets a GOAWAY, and it is closed when its
/// streams have ended, at the latest 200 ms later. The connection shares it with all that
/// may ask.
#[derive(Debug, Default)]
pub struct Leave {
    asked: AtomicBool,
    /// Whether the connection has a stream.
    busy: AtomicBool,
    waker: AtomicWaker,
}

/// The connection's side.
#[derive(Debug)]
pub(super) struct Listener {
    leave: Arc<Leave>,
    /// The registered waker. It is not registered again at each poll, because that would
    /// write to memory that is otherwise hardly touched.
    waker: Waker,
}

impl Leave {
    /// Asks the connection to leave. Further calls have no effect.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Returns whether the connection has been asked.
    pub fn has_been_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Notes whether the connection has a stream. A [`Connection`](crate::Connection)
    /// calls this itself.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Returns whether the connection has no stream now.
    pub fn is_alone(&self) -> bool {
        !self.busy.load(Ordering::Relaxed)
    }

    /// Waits until the connection is asked to leave, for code that has no
    /// [`Connection`](crate::Connection) yet. Only one task may wait.
    pub fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.asked.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Listener {
    pub(super) fn new(leave: Arc<Leave>) -> Self {
        Self { leave, waker: Waker::noop().clone() }
    }

    /// Returns whether the connection has been asked. If not, the task will be woken.
    pub(super) fn is_asked(&mut self, cx: &Context<'_>) -> bool {
        if !self.waker.will_wake(cx.waker()) {
            self.waker.clone_from(cx.waker());
            self.leave.waker.register(cx.waker());
        }
        self.leave.asked.load(Ordering::Acquire)
    }

    /// Notes whether the connection has no stream.
    pub(super) fn set_alone(&self, alone: bool) {
        self.leave.set_busy(!alone);
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
    fn whoever_polled_last_is_woken() {
        let leave = Arc::<Leave>::default();
        let mut listener = Listener::new(leave.clone());
        let woken = [Arc::<Woken>::default(), Arc::default()];
        let mut is_asked =
            |by: usize| listener.is_asked(&Context::from_waker(&waker(woken[by].clone())));
        assert_eq!([0, 0, 1, 1].map(&mut is_asked), [false; 4]);
        leave.ask();
        assert!(is_asked(1) && is_asked(0));
        let woken = woken.map(|woken| woken.0.load(Ordering::Relaxed));
        assert_eq!(woken, [false, true]);
    }
}
