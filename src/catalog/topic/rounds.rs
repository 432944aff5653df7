//! Wakes the listeners of every topic that has a new value, one slice at a time.
//!
//! In: published topics, and the time. Out: wake-ups. The listeners of one name wait for
//! at most one slice of another name, however many listeners and spellings that has. It
//! never blocks and never reads a value.
//!
//! # Why a round reaches every listener
//! - A listener keeps its place in the slab of its topic from its first poll to its drop.
//! - A round has two ranges of places left to wake, first `at..` and then `..behind`. The
//!   first range ends at the end of the slab, as it is when the round gets there.
//! - A publication sets the ranges to `at..` and `..at`. Together they are all places,
//!   whatever size the slab has now or later. So no count can become wrong meanwhile.
//! - After that, `at` moves only over places that it wakes. So a place in neither range was
//!   woken since the publication, or it was taken since then. A listener that takes a place
//!   reads the newest value under the same lock.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::clock;

use super::{State, Topic};

/// The rounds of all topics that are not over.
#[derive(Debug)]
pub(in crate::catalog) struct Rounds<T> {
    pub(super) running: VecDeque<Arc<TurnGroup<T>>>,
    pub(super) due: Vec<(Instant, Arc<Topic<T>>)>,
    /// How many places one slice visits.
    pub(super) slice: usize,
    /// A topic with more listeners than this is large.
    pub(super) large: usize,
}

/// The topics of one name's spellings. They share one turn, so that a name does not get
/// more turns by having many spellings.
#[derive(Debug)]
pub(in crate::catalog) struct TurnGroup<T>(Mutex<Waiting<T>>);

/// The topics of a turn group whose rounds are running.
#[derive(Debug)]
struct Waiting<T> {
    topics: VecDeque<Arc<Topic<T>>>,
    /// Whether the turn group is in [`Rounds::running`] or has its turn.
    queued: bool,
}

/// The state of one topic's round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Over,
    /// The round begins later; the topic is in [`Rounds::due`].
    Due,
    /// The topic is in [`Rounds::running`]. With `again`, a newer value waits for a round
    /// of its own.
    Runs {
        left: Remaining,
        again: bool,
    },
}

/// The places that a round has not woken: `at..end`, then `..behind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remaining {
    at: usize,
    end: usize,
    behind: usize,
}

/// How many listeners are woken before other tasks run. A worker's queue holds 256 tasks.
pub(super) const SLICE: usize = 128;
/// A round over more listeners than this takes tens of milliseconds of processor time.
pub(super) const LARGE: usize = 1_000;
/// A value that only adds to a large topic waits for further values and is pushed with
/// them. It waits at most until this long after the last round began. A value that takes
/// something away never waits.
pub(super) const DELAY_MAX: Duration = Duration::from_millis(100);
/// The wait ends early once no value has come for this long.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(10);

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self { running: VecDeque::new(), due: Vec::new(), slice: SLICE, large: LARGE }
    }
}

impl<T> Rounds<T> {
    /// Begins a round for a value just published, or restarts a running round. A value that
    /// is not urgent may have to wait for its round.
    pub(super) fn begin(&mut self, topic: &Arc<Topic<T>>, state: &mut State<T>, urgent: bool) {
        let now = clock::now();
        let soonest = state.last_round.map(|last| (last + DELAY_MAX).min(state.changed + DEBOUNCE));
        let large = state.listeners.len() > self.large;
        let waits = large && !urgent && soonest.is_some_and(|soonest| now < soonest);
        match (&mut state.round, waits) {
            (Round::Runs { again, .. }, true) => *again = true,
            (Round::Due, true) => {}
            (Round::Over, true) => {
                state.round = Round::Due;
                self.due.push((soonest.unwrap_or(now), topic.clone()));
            }
            (Round::Runs { left, again }, false) => {
                (*left, *again) = (left.all(), false);
                state.last_round = Some(now);
            }
            (Round::Over | Round::Due, false) => {
                if state.round == Round::Due {
                    self.due.retain(|(_, due)| !Arc::ptr_eq(due, topic));
                }
                state.round = Round::Runs { left: Remaining::ALL, again: false };
                state.last_round = Some(now);
                if topic.turn_group.push(topic.clone()) {
                    self.running.push_back(topic.turn_group.clone());
                }
            }
        }
    }

    /// Wakes the next slice, if there is one, and lets the woken tasks run. The caller
    /// must await it to its end: in a race against something that is always ready, the
    /// next slice would never be woken.
    pub(in crate::catalog) async fn turn(&mut self) {
        if self.wake_slice() {
            others_first().await;
        }
    }

    /// Waits until there is a slice to wake.
    pub(in crate::catalog) async fn ready(&self) {
        if !self.running.is_empty() {
            return;
        }
        match self.due.iter().map(|(due, _)| *due).min() {
            Some(due) => sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Wakes one slice of the turn group whose turn it is. Returns false if no round is
    /// running.
    pub(super) fn wake_slice(&mut self) -> bool {
        self.begin_due();
        let Some(turn_group) = self.running.pop_front() else { return false };
        let mut room = self.slice;
        while room > 0
            && let Some(topic) = turn_group.pop()
        {
            let mut state = topic.lock();
            let (visited, more) = state.wake_some(room);
            // A topic without listeners counts as one place, because it takes time too.
            room = room.saturating_sub(visited.max(1));
            if more {
                drop(state);
                turn_group.push(topic);
                continue;
            }
            let again = matches!(state.round, Round::Runs { again: true, .. });
            state.round = Round::Over;
            if again {
                self.begin(&topic, &mut state, false);
            }
        }
        if turn_group.ends_turn() {
            self.running.push_back(turn_group);
        }
        true
    }

    fn begin_due(&mut self) {
        let now = clock::now();
        while let Some(at) = self.due.iter().position(|(due, _)| *due <= now) {
            let (_, topic) = self.due.swap_remove(at);
            let mut state = topic.lock();
            state.round = Round::Over;
            // It waits again if a further value has come.
            self.begin(&topic, &mut state, false);
        }
    }
}

impl<T> State<T> {
    /// Visits up to `count` places and wakes their listeners. Returns how many places it
    /// visited, and whether any are left.
    fn wake_some(&mut self, count: usize) -> (usize, bool) {
        let places = self.listeners.capacity();
        let Round::Runs { left, .. } = &mut self.round else { return (0, false) };
        for visited in 0..count {
            let Some(place) = left.next(places) else { return (visited, false) };
            if let Some(waker) = self.listeners.get(place) {
                waker.wake_by_ref();
            }
        }
        (count, !left.is_over(places))
    }
}

impl<T> Default for TurnGroup<T> {
    fn default() -> Self {
        Self(Mutex::new(Waiting { topics: VecDeque::new(), queued: false }))
    }
}

impl<T> TurnGroup<T> {
    /// Adds a topic. Returns whether the turn group must be queued for a turn.
    fn push(&self, topic: Arc<Topic<T>>) -> bool {
        let mut waiting = self.lock();
        waiting.topics.push_back(topic);
        !std::mem::replace(&mut waiting.queued, true)
    }

    fn pop(&self) -> Option<Arc<Topic<T>>> {
        self.lock().topics.pop_front()
    }

    /// Ends the turn group's turn. Returns whether it needs another one.
    fn ends_turn(&self) -> bool {
        let mut waiting = self.lock();
        waiting.queued = !waiting.topics.is_empty();
        waiting.queued
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remaining {
    /// All places, starting with the first.
    const ALL: Self = Self { at: 0, end: usize::MAX, behind: 0 };

    /// All places, starting with the next one. If each restart began with the first
    /// place, the last might never be woken.
    fn all(self) -> Self {
        Self { at: self.at, end: usize::MAX, behind: self.at }
    }

    /// Returns the next place of a slab that has `places` places now, and removes it from
    /// the remaining ones.
    fn next(&mut self, places: usize) -> Option<usize> {
        if self.at >= self.end.min(places) {
            *self = Self { at: 0, end: self.behind, behind: 0 };
        }
        let place = self.at;
        (place < self.end.min(places)).then(|| {
            self.at += 1;
            place
        })
    }

    fn is_over(mut self, places: usize) -> bool {
        self.next(places).is_none()
    }
}

/// Lets every ready task run before this one continues. tokio's `yield_now` would also
/// wait for the driver's turn, which comes every 61 tasks, so that more listeners would
/// be woken than run.
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
