//! What one typed name means, and who listens.
//!
//! In: the newest meaning, from the catalog's one writer. Out: the same to
//! each listener that is polled, and wake-ups for all, in slices: however many
//! listen to one name, those of another wait for one slice and no longer.
//! Nothing is queued for a listener: whatever woke it, it finds the newest.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::time::sleep_until;

use crate::clock;

use super::Known;

/// One typed name that somebody asked for.
#[derive(Debug)]
pub struct Topic {
    /// Counts the meanings; read without the lock to learn that nothing is new.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Known,
    closed: bool,
    listeners: Slab<Waker>,
    round: Round,
    /// When it got its newest meaning.
    changed: Instant,
    /// When the last round began.
    rung: Option<Instant>,
}

/// How far the listeners have been woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Over,
    /// It may not begin yet.
    Due,
    /// So many places are left, from `at` on and then from the beginning;
    /// `again` when something newer came that can wait.
    Runs {
        at: usize,
        left: usize,
        again: bool,
    },
}

/// One stream's ear.
#[derive(Debug)]
pub struct Listener {
    topic: Arc<Topic>,
    /// The version that it knows; none at first.
    seen: u64,
    /// Its place, once it has waited, and who is woken there.
    place: Option<(usize, Waker)>,
}

/// The rounds that are not over.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    running: VecDeque<Arc<Topic>>,
    due: Vec<(Instant, Arc<Topic>)>,
    /// A slice has been woken and not had its turn.
    woken: bool,
}

/// So many are woken before others get their turn. A worker's queue holds 256.
const SLICE: usize = 128;
/// More listeners than this are a large fan-out: a round takes tens of
/// milliseconds of the processor.
const LARGE: usize = 1_000;
/// What only adds to a large fan-out waits for what else may come, until this
/// long after the last round began, and is told with it. What takes something
/// away never waits.
const GAP: Duration = Duration::from_millis(100);
/// It waits no longer once nothing has come for so long.
const QUIET: Duration = Duration::from_millis(10);

impl Topic {
    pub(super) fn new(known: Known) -> Arc<Self> {
        let state = State {
            known,
            closed: false,
            listeners: Slab::new(),
            round: Round::Over,
            changed: clock::now(),
            rung: None,
        };
        Arc::new(Self { version: AtomicU64::new(1), state: Mutex::new(state) })
    }

    /// Which meaning is the newest: a number that grows with each.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest meaning.
    #[must_use]
    pub fn known(&self) -> Known {
        self.lock().known.clone()
    }

    /// How many listen.
    pub(super) fn streams(&self) -> usize {
        self.lock().listeners.len()
    }

    /// Whether nothing more will be known.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.lock().closed
    }

    /// Gives it a new meaning, and begins a round if it is one.
    pub(super) fn publish(self: &Arc<Self>, new: Known, rounds: &mut Rounds) {
        let mut state = self.lock();
        if state.known == new {
            return;
        }
        let urgent = takes_away(&state.known, &new);
        state.known = new;
        state.changed = clock::now();
        self.version.fetch_add(1, Ordering::Release);
        rounds.begin(self, &mut state, urgent);
    }

    /// Ends it, for all at once.
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
    /// Knows nothing yet.
    #[must_use]
    pub fn new(topic: Arc<Topic>) -> Self {
        Self { topic, seen: 0, place: None }
    }

    /// The newest meaning and its version, if it is not known; nothing more
    /// when the catalog has closed.
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
        // Only under the lock does the version belong to the meaning.
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
            // A herd that left does not leave its memory behind.
            if state.listeners.is_empty() {
                state.listeners = Slab::new();
            }
        }
    }
}

impl Rounds {
    fn begin(&mut self, topic: &Arc<Topic>, state: &mut State, urgent: bool) {
        let places = state.listeners.capacity();
        let now = clock::now();
        let soonest = state.rung.map(|rung| (rung + GAP).min(state.changed + QUIET));
        let large = state.listeners.len() > LARGE;
        let may_wait = large && !urgent && soonest.is_some_and(|soonest| now < soonest);
        match (&mut state.round, may_wait) {
            (Round::Runs { again, .. }, true) => *again = true,
            // All the way round once more from here.
            (Round::Runs { left, .. }, false) => *left = places,
            (Round::Due, true) => {}
            (Round::Over, true) => {
                state.round = Round::Due;
                self.due.push((soonest.unwrap_or(now), topic.clone()));
            }
            (Round::Over | Round::Due, false) => {
                if state.round == Round::Due {
                    self.due.retain(|(_, due)| !Arc::ptr_eq(due, topic));
                }
                state.rung = Some(now);
                state.round = Round::Runs { at: 0, left: places, again: false };
                self.running.push_back(topic.clone());
            }
        }
    }

    /// Wakes one slice, once the one before has had its turn; with none to
    /// wake, waits until one is due. To be called again and again.
    pub(super) async fn slice(&mut self) {
        if self.woken {
            others_first().await;
            self.woken = false;
        }
        let now = clock::now();
        while let Some(at) = self.due.iter().position(|(due, _)| *due <= now) {
            let (_, topic) = self.due.swap_remove(at);
            let mut state = topic.lock();
            state.round = Round::Over;
            // Not yet, if more has come.
            self.begin(&topic, &mut state, false);
        }
        if let Some(topic) = self.running.pop_front() {
            self.wake(topic);
            return;
        }
        match self.due.iter().map(|(due, _)| *due).min() {
            Some(due) => sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    fn wake(&mut self, topic: Arc<Topic>) {
        let mut state = topic.lock();
        self.woken = true;
        if state.wake_some() {
            drop(state);
            return self.running.push_back(topic);
        }
        let again = matches!(state.round, Round::Runs { again: true, .. });
        state.round = Round::Over;
        if again {
            self.begin(&topic, &mut state, false);
        }
    }
}

impl State {
    /// Whether there are more.
    fn wake_some(&mut self) -> bool {
        let places = self.listeners.capacity();
        let Round::Runs { at, left, .. } = &mut self.round else { return false };
        let count = (*left).min(SLICE).min(places);
        for _ in 0..count {
            *at = if *at >= places { 0 } else { *at };
            if let Some(waker) = self.listeners.get(*at) {
                waker.wake_by_ref();
            }
            *at += 1;
        }
        *left -= count;
        *left > 0 && count > 0
    }
}

/// Whether a backend is gone, or gives way to another: calls fail until clients
/// are told.
fn takes_away(old: &Known, new: &Known) -> bool {
    let (Known::Present(old), Known::Present(new)) = (old, new) else {
        return matches!(old, Known::Present(_));
    };
    let mut rest = new.endpoints.iter();
    // Both are sorted by id.
    !old.endpoints.iter().all(|old| {
        let same = rest.find(|new| new.id >= old.id);
        same.is_some_and(|new| new.id == old.id && new.addr == old.addr)
    })
}

/// Lets every task that is ready run before this one goes on. tokio's own
/// `yield_now` would wait for the driver's turn as well, which comes every 61
/// tasks, and so let more be woken than are run.
async fn others_first() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
