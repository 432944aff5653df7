//! Asks a connection to end.
//!
//! In: word from anywhere. Out: a flag that the connection's task looks at,
//! and is woken for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// One connection's; shared by who asks and who obeys.
#[derive(Debug, Default)]
pub(crate) struct Leave {
    asked: AtomicBool,
    waker: AtomicWaker,
}

impl Leave {
    /// Asks; again is no more than once.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether somebody has asked; if not, the task is woken when one does.
    pub(crate) fn is_asked(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.asked.load(Ordering::Acquire)
    }
}
