//! The newest value of one requested name, for everyone who waits for it.
//!
//! In: the newest value, from the catalog's one writer. Out: the same to each
//! listener that is polled, and its wake-up, in slices (`rounds.rs`). Nothing
//! is queued for a listener: it reads the newest value whenever it is polled.
//!
//! # Why no listener misses a value
//! - A listener takes its place and reads the newest value under one lock.
//! - A value is published under the same lock. Each publication is followed by
//!   a round over all places: at once, or after what made it wait.
//!   `rounds.rs` says why a round reaches every listener, whoever joins or
//!   leaves meanwhile.
//! - The version is read without the lock only to return early. A listener that
//!   reads the old one is woken after the new one was stored, and an executor
//!   polls a task again that is woken while it is polled.

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
    /// The other spellings of the name.
    family: Arc<Family>,
    /// Counts the values; read without the lock to learn that nothing is new.
    version: AtomicU64,
    /// Listeners that a service answers to by a reading that comes before.
    served: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Known,
    closed: bool,
    /// Who is woken, by place.
    listeners: Slab<Waker>,
    round: Round,
    /// When it got its newest value.
    changed: Instant,
    /// When its last round began.
    last_round: Option<Instant>,
}

/// One stream's interest in a topic.
#[derive(Debug)]
pub struct Listener {
    topic: Arc<Topic>,
    /// The version that it has read; 0 at first.
    seen: u64,
    /// Its place, once it has waited, and who is woken there.
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

    /// The number of the newest value. It grows with each.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest value.
    #[must_use]
    pub fn known(&self) -> Known {
        self.lock().known.clone()
    }

    /// Whether some service answers to the name.
    pub(super) fn is_present(&self) -> bool {
        matches!(self.lock().known, Known::Present(_))
    }

    /// How many listeners want to know, for no service answers them otherwise.
    pub(super) fn streams(&self) -> usize {
        self.lock().listeners.len().saturating_sub(self.served.load(Ordering::Relaxed))
    }

    /// One more listener is served otherwise, or one less.
    pub(super) fn count_served(&self, more: bool) {
        match more {
            true => self.served.fetch_add(1, Ordering::Relaxed),
            false => self.served.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether there will be no further value.
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

    /// Ends the topic. All listeners are woken at once.
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
    /// One that has read nothing yet.
    #[must_use]
    pub fn new(topic: Arc<Topic>) -> Self {
        Self { topic, seen: 0, place: None }
    }

    /// What it listens to.
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
        // Only under the lock does the version belong to the value.
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
            // A crowd that left does not leave its memory behind.
            if state.listeners.is_empty() {
                state.listeners = Slab::new();
            }
        }
    }
}

/// Whether clients must hear of it at once: a backend is gone, its address gives way
/// to another, or its weight falls to 0, so that calls go wrong until clients have the
/// new value; or the operator wants something else.
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
