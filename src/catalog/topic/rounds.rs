//! Wakes the listeners of every topic that has a new value, one slice at a time.
//!
//! In: topics that were published, and the time. Out: wake-ups. However many
//! listen to one name, in however many spellings, the listeners of another wait
//! for one slice of them and no longer. It never blocks and never reads a value.
//!
//! # Why a round reaches every listener
//! A listener keeps its place in the slab of its topic from its first poll to
//! its drop. What a round has left to wake are two stretches of places, in this
//! order: `at..`, which ends where the slab ends at the moment when the round
//! gets there, and `..behind`. A publication sets them to `at..` and `..at`.
//! Together these are all places, whatever size the slab has or will have, so
//! nothing is counted that could change meanwhile. After that, `at` moves only
//! over places that it wakes. A place in neither stretch has therefore been
//! woken since the publication, or was taken since; and whoever takes a place
//! reads the newest value under the same lock.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::clock;

use super::super::Known;
use super::{State, Topic, takes_away};

/// The rounds of all topics that are not over.
#[derive(Debug)]
pub(in crate::catalog) struct Rounds {
    pub(super) running: VecDeque<Arc<Family>>,
    pub(super) due: Vec<(Instant, Arc<Topic>)>,
    /// How many places one slice visits.
    pub(super) slice: usize,
    /// A topic with more listeners than this is a large fan-out.
    pub(super) large: usize,
    /// Of which versions of a snapshot it was found out last whether the second
    /// takes something away: all spellings of a name ask the same.
    pub(super) compared: Option<(u64, u64, bool)>,
}

/// The topics of one name's spellings. They share one turn, so that nobody gets
/// more turns by asking for a name in many spellings.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Family(Mutex<Waiting>);

/// Those of a family whose rounds are running.
#[derive(Debug, Default)]
struct Waiting {
    topics: VecDeque<Arc<Topic>>,
    /// The family is in [`Rounds::running`], or has its turn.
    queued: bool,
}

/// The state of one topic's round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Over,
    /// It begins later; the topic is in [`Rounds::due`].
    Due,
    /// The topic is in [`Rounds::running`]. With `again`, a newer value came
    /// that waits for a round of its own.
    Runs {
        left: Left,
        again: bool,
    },
}

/// The places that a round has not woken: `at..end`, then `..behind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    at: usize,
    end: usize,
    behind: usize,
}

/// Listeners woken before other tasks get their turn. A worker's queue holds
/// 256.
pub(super) const SLICE: usize = 128;
/// A round over more listeners than this takes tens of milliseconds of the
/// processor.
pub(super) const LARGE: usize = 1_000;
/// A value that only adds to a large fan-out waits for further ones, until this
/// long after the last round began, and is pushed with them. A value that takes
/// something away never waits.
pub(super) const GAP: Duration = Duration::from_millis(100);
/// It waits no longer once nothing has come for so long.
pub(super) const QUIET: Duration = Duration::from_millis(10);

impl Default for Rounds {
    fn default() -> Self {
        Self {
            running: VecDeque::new(),
            due: Vec::new(),
            slice: SLICE,
            large: LARGE,
            compared: None,
        }
    }
}

impl Rounds {
    /// Begins a round for a value just published, or begins a running one
    /// anew. A value that is not urgent may have to wait for its round.
    pub(super) fn begin(&mut self, topic: &Arc<Topic>, state: &mut State, urgent: bool) {
        let now = clock::now();
        let soonest = state.last_round.map(|last| (last + GAP).min(state.changed + QUIET));
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
                state.round = Round::Runs { left: Left::ALL, again: false };
                state.last_round = Some(now);
                if topic.family.push(topic.clone()) {
                    self.running.push_back(topic.family.clone());
                }
            }
        }
    }

    /// Wakes the next slice, if there is one, and lets the woken tasks run. To
    /// be awaited to its end: a race against something that is always ready
    /// would keep the next slice from ever being woken.
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

    /// Wakes one slice of the family whose turn it is. Returns false when no
    /// round is running.
    pub(super) fn wake_slice(&mut self) -> bool {
        self.begin_those_due();
        let Some(family) = self.running.pop_front() else { return false };
        let mut room = self.slice;
        while room > 0
            && let Some(topic) = family.pop()
        {
            let mut state = topic.lock();
            let (visited, more) = state.wake_some(room);
            // A topic without listeners takes its moment too.
            room = room.saturating_sub(visited.max(1));
            if more {
                drop(state);
                family.push(topic);
                continue;
            }
            let again = matches!(state.round, Round::Runs { again: true, .. });
            state.round = Round::Over;
            if again {
                self.begin(&topic, &mut state, false);
            }
        }
        if family.ends_turn() {
            self.running.push_back(family);
        }
        true
    }

    /// The same as [`takes_away`], once for all spellings of a name: large
    /// services take long.
    pub(super) fn takes_away(&mut self, old: &Known, new: &Known) -> bool {
        let (Known::Present(before), Known::Present(after)) = (old, new) else {
            return takes_away(old, new);
        };
        let versions = (before.version, after.version);
        match self.compared {
            Some((old, new, answer)) if (old, new) == versions && new > 0 => answer,
            _ => {
                let answer = takes_away(old, new);
                self.compared = Some((versions.0, versions.1, answer));
                answer
            }
        }
    }

    fn begin_those_due(&mut self) {
        let now = clock::now();
        while let Some(at) = self.due.iter().position(|(due, _)| *due <= now) {
            let (_, topic) = self.due.swap_remove(at);
            let mut state = topic.lock();
            state.round = Round::Over;
            // It goes on waiting if more has come.
            self.begin(&topic, &mut state, false);
        }
    }
}

impl State {
    /// Visits up to so many places and wakes who is there. Returns how many it
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

impl Family {
    /// Adds a topic. Returns whether the family has to be queued for a turn.
    fn push(&self, topic: Arc<Topic>) -> bool {
        let mut waiting = self.lock();
        waiting.topics.push_back(topic);
        !std::mem::replace(&mut waiting.queued, true)
    }

    fn pop(&self) -> Option<Arc<Topic>> {
        self.lock().topics.pop_front()
    }

    /// Returns whether it needs another turn.
    fn ends_turn(&self) -> bool {
        let mut waiting = self.lock();
        waiting.queued = !waiting.topics.is_empty();
        waiting.queued
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Left {
    /// All places, from the first on.
    const ALL: Self = Self { at: 0, end: usize::MAX, behind: 0 };

    /// All places, from the next one on: the first must not be the next each
    /// time, or the last would never be.
    fn all(self) -> Self {
        Self { at: self.at, end: usize::MAX, behind: self.at }
    }

    /// Takes the next place of a slab that has so many now.
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
