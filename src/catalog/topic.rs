//! The newest value of something, for all its listeners.
//!
//! In: the newest value, from the catalog's one writer. Out: this value for each listener
//! that polls, and wake-ups in slices (`rounds.rs`). Nothing is queued for a listener:
//! each poll reads the newest value.
//!
//! # Why no listener misses a value
//! - A listener takes its place and reads the newest value under one lock.
//! - A value is published under the same lock. A round over all places follows each
//!   publication, at once or after a wait. `rounds.rs` says why a round reaches every
//!   listener, even if listeners join or leave meanwhile.
//! - The version is read without the lock only to return early. A listener that reads the
//!   old version is woken after the new one was stored, and an executor polls a task
//!   again if it is woken while it is polled.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;

use crate::clock;

mod rounds;

use rounds::Round;
pub(super) use rounds::{Rounds, TurnGroup};

/// One value and its listeners, such as the meaning of one requested name.
#[derive(Debug)]
pub struct Topic<T> {
    /// The group of topics that share a turn: the spellings of one name.
    turn_group: Arc<TurnGroup<T>>,
    /// Counts the values. It is read without the lock, to see that nothing is new.
    version: AtomicU64,
    /// How many listeners another topic serves.
    served: AtomicUsize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    newest: T,
    closed: bool,
    /// The wakers of the listeners, by place in the slab.
    listeners: Slab<Waker>,
    round: Round,
    /// When the newest value was set.
    changed: Instant,
    /// When the last round began.
    last_round: Option<Instant>,
}

/// One stream's listener on a topic.
#[derive(Debug)]
pub struct Listener<T> {
    topic: Arc<Topic<T>>,
    /// The version that it read last; 0 at first.
    seen: u64,
    /// Its place in the slab and the waker stored there, once it has waited.
    place: Option<(usize, Waker)>,
}

impl<T: Clone + PartialEq> Topic<T> {
    pub(super) fn new(turn_group: Arc<TurnGroup<T>>, newest: T) -> Arc<Self> {
        let state = State {
            newest,
            closed: false,
            listeners: Slab::new(),
            round: Round::Over,
            changed: clock::now(),
            last_round: None,
        };
        Arc::new(Self {
            turn_group,
            version: AtomicU64::new(1),
            served: AtomicUsize::new(0),
            state: Mutex::new(state),
        })
    }

    /// Returns the number of the newest value. It grows with each value.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns the newest value.
    #[must_use]
    pub fn newest(&self) -> T {
        self.lock().newest.clone()
    }

    /// Returns how many listeners need this topic, because no other one serves them.
    pub(super) fn streams(&self) -> usize {
        self.lock().listeners.len().saturating_sub(self.served.load(Ordering::Relaxed))
    }

    /// Counts one more, or one less, listener that another topic serves.
    pub(super) fn count_served(&self, more: bool) {
        match more {
            true => self.served.fetch_add(1, Ordering::Relaxed),
            false => self.served.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Returns whether no further value will come.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.lock().closed
    }

    /// Sets the value, and begins a round if it differs from the one before. `urgent`
    /// says of the old value and the new one whether listeners must get it at once.
    pub(super) fn publish(
        self: &Arc<Self>,
        new: T,
        urgent: impl FnOnce(&T, &T) -> bool,
        rounds: &mut Rounds<T>,
    ) {
        let mut state = self.lock();
        if state.newest == new {
            return;
        }
        let urgent = urgent(&state.newest, &new);
        state.newest = new;
        state.changed = clock::now();
        self.version.fetch_add(1, Ordering::Release);
        rounds.begin(self, &mut state, urgent);
    }

    /// Ends the topic and wakes all listeners at once.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.version.fetch_add(1, Ordering::Release);
        state.listeners.iter().for_each(|(_, waker)| waker.wake_by_ref());
    }
}

impl<T> Topic<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + PartialEq> Listener<T> {
    /// Makes a listener that has read nothing yet.
    #[must_use]
    pub fn new(topic: Arc<Topic<T>>) -> Self {
        Self { topic, seen: 0, place: None }
    }

    /// Returns its topic.
    pub(super) fn topic(&self) -> &Arc<Topic<T>> {
        &self.topic
    }

    /// Returns the newest value and its version, if it has not been returned
    /// yet; `None` once the catalog has closed.
    pub fn poll_newest(&mut self, cx: &mut Context<'_>) -> Poll<Option<(u64, T)>> {
        let stays = self.place.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker()));
        if stays && self.topic.version() == self.seen {
            return Poll::Pending;
        }
        let mut state = self.topic.lock();
        if !stays {
            let waker = cx.waker().clone();
            let place = match &self.place {
                Some((place, _)) => {
                    state.listeners[*place] = waker.clone();
                    *place
                }
                None => state.listeners.insert(waker.clone()),
            };
            self.place = Some((place, waker));
        }
        // The version belongs to the value only while the lock is held.
        let version = self.topic.version();
        match (state.closed, version == self.seen) {
            (true, _) => Poll::Ready(None),
            (false, true) => Poll::Pending,
            (false, false) => {
                self.seen = version;
                Poll::Ready(Some((version, state.newest.clone())))
            }
        }
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        if let Some((place, _)) = self.place {
            let mut state = self.topic.lock();
            state.listeners.remove(place);
            // Frees the memory of a slab that may have held many listeners.
            if state.listeners.is_empty() {
                state.listeners = Slab::new();
            }
        }
    }
}

#[cfg(test)]
mod tests;
