//! The newest value of one requested name, for all its listeners.
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

use super::Known;

mod rounds;

use rounds::Round;
pub(super) use rounds::{Family, Rounds};

/// One requested name.
#[derive(Debug)]
pub struct Topic {
    /// Shared with the other spellings of the name.
    family: Arc<Family>,
    /// Counts the values. It is read without the lock, to see that nothing is new.
    version: AtomicU64,
    /// How many listeners have a service by an earlier reading of their name.
    served: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Known,
    closed: bool,
    /// The wakers of the listeners, by place.
    listeners: Slab<Waker>,
    round: Round,
    /// When the newest value was set.
    changed: Instant,
    /// When the last round began.
    last_round: Option<Instant>,
}

/// One stream's listener on a topic.
#[derive(Debug)]
pub struct Listener {
    topic: Arc<Topic>,
    /// The version that it read last; 0 at first.
    seen: u64,
    /// Its place and the waker stored there, once it has waited.
    place: Option<(usize, Waker)>,
}

impl Topic {
    pub(super) fn new(family: Arc<Family>, known: Known) -> Arc<Self> {
        let state = State {
            known,
            closed: false,
            listeners: Slab::new(),
            round: Round::Over,
            changed: clock::now(),
            last_round: None,
        };
        Arc::new(Self {
            family,
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
    pub fn known(&self) -> Known {
        self.lock().known.clone()
    }

    /// Returns whether some service answers to the name.
    pub(super) fn is_present(&self) -> bool {
        matches!(self.lock().known, Known::Present(_))
    }

    /// Returns how many listeners have no service by an earlier reading of their name.
    pub(super) fn streams(&self) -> usize {
        self.lock().listeners.len().saturating_sub(self.served.load(Ordering::Relaxed))
    }

    /// Counts one more, or one less, listener with a service by an earlier reading.
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

    /// Sets the value, and begins a round if it differs from the one before.
    pub(super) fn publish(self: &Arc<Self>, new: Known, rounds: &mut Rounds) {
        let mut state = self.lock();
        if state.known == new {
            return;
        }
        let urgent = rounds.takes_away(&state.known, &new);
        state.known = new;
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Makes a listener that has read nothing yet.
    #[must_use]
    pub fn new(topic: Arc<Topic>) -> Self {
        Self { topic, seen: 0, place: None }
    }

    /// Returns its topic.
    pub(super) fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// Returns the newest value and its version, if it has not been returned
    /// yet; `None` once the catalog has closed.
    pub fn poll_known(&mut self, cx: &mut Context<'_>) -> Poll<Option<(u64, Known)>> {
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
                Poll::Ready(Some((version, state.known.clone())))
            }
        }
    }
}

impl Drop for Listener {
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

/// Returns whether clients must get the new value at once. They must if a backend leaves,
/// changes its address or gets weight 0, because calls fail until clients know; and if
/// the settings or the drained backends changed.
fn takes_away(old: &Known, new: &Known) -> bool {
    if let (Some(old), Some(new)) = (old.settings(), new.settings())
        && old != new
    {
        return true;
    }
    let (Known::Present(old), Known::Present(new)) = (old, new) else {
        return matches!(old, Known::Present(_));
    };
    if old.drained != new.drained {
        return true;
    }
    let mut rest = new.endpoints.iter();
    let mut listed = old.endpoints.iter().filter(|endpoint| endpoint.takes_calls());
    // Both are sorted by id.
    !listed.all(|old| {
        let same = rest.find(|new| new.id >= old.id);
        same.is_some_and(|new| new.id == old.id && new.addr == old.addr && new.takes_calls())
    })
}

#[cfg(test)]
mod tests;
