//! Services without a backend, remembered while clients may ask for them.
//!
//! In: when a service lost its last backend, and when it was asked for. Out:
//! [`EmptyService`]s for the admin port, a warning when a service that streams ask for is
//! empty, and a log line when it has backends again. It remembers at most [`UNASKED_MAX`]
//! services that no stream asks for.

use std::collections::VecDeque;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Catalog, Group};
use crate::model::ServiceName;

/// A name without a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptyService {
    /// The canonical name, which all spellings share.
    pub canonical: String,
    /// The service's name as it was registered last; `None` if no backend of it has been
    /// registered since the start.
    pub name: Option<ServiceName>,
    /// When its last backend left, or when it was first asked for.
    pub since: Instant,
    /// The streams that ask for it now and have no service by another reading of their
    /// name.
    pub streams: usize,
}

/// The state of a group that has no backend.
#[derive(Debug)]
pub(super) struct EmptyState {
    pub(super) name: Option<ServiceName>,
    pub(super) since: Instant,
    /// When the last stream that asked for it ended, or when it became empty.
    pub(super) asked: Instant,
    /// Whether the warning has been logged.
    pub(super) warned: bool,
}

/// The services that became empty, the oldest first, so that old ones are forgotten.
#[derive(Debug, Default)]
pub(super) struct RecentlyEmpty(VecDeque<(Instant, String)>);

/// How long an empty service is shown after the last stream that asked for it ended. This
/// is enough for a few scrapes of its metric, and for an operator to look.
pub(super) const SHOWN: Duration = Duration::from_secs(600);
/// The most empty services that are remembered. Beyond it the oldest are forgotten early,
/// because a client that may write keys can make up names without end.
const UNASKED_MAX: usize = 1_000;
/// How many empty services one publication looks at. Most publications leave fewer
/// services empty.
const FORGOTTEN_AT_ONCE: usize = 64;

impl Catalog {
    /// Forgets empty services that no stream asks for any more.
    pub(super) fn forget_empty(&self, now: Instant) {
        let mut recently_empty = self.recently_empty();
        for _ in 0..FORGOTTEN_AT_ONCE {
            let full = recently_empty.is_full();
            let Some(canonical) = recently_empty.next(now) else { return };
            let is_over = |group: &Group| group.is_unused(now) || (full && group.is_bare());
            self.0.groups.remove_if(&canonical, |_, group| is_over(group));
            if self.0.groups.get(&canonical).is_some_and(|group| group.services.is_empty()) {
                recently_empty.push(now, canonical);
            }
        }
    }

    pub(super) fn recently_empty(&self) -> MutexGuard<'_, RecentlyEmpty> {
        self.0.recently_empty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EmptyState {
    /// Makes the state of a name that is asked for and was never registered.
    pub(super) fn never_registered(now: Instant) -> Self {
        Self { name: None, since: now, asked: now, warned: false }
    }

    /// Makes the state of a service whose last backend left.
    pub(super) fn lost_last_backend(name: ServiceName, now: Instant) -> Self {
        Self { name: Some(name), since: now, asked: now, warned: false }
    }

    /// Returns whether it can be forgotten while no stream asks for it.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.name.is_none() || now >= self.asked + SHOWN
    }

    /// Returns whether the warning may still have to be logged.
    pub(super) fn may_warn(&self) -> bool {
        self.name.is_some() && !self.warned
    }

    /// Logs once that clients ask for the service, if any do.
    pub(super) fn warn(&mut self, streams: usize) {
        if let Some(service) = self.name.as_ref().filter(|_| !self.warned && streams > 0) {
            self.warned = true;
            tracing::warn!(%service, streams, "service has no backend left, and clients ask for it");
        }
    }

    /// Logs that the service has backends again, if the warning was logged.
    pub(super) fn end(self, now: Instant) {
        if let Some(service) = self.name.filter(|_| self.warned) {
            let empty_for = now.duration_since(self.since);
            tracing::info!(%service, ?empty_for, "service has backends again");
        }
    }
}

impl RecentlyEmpty {
    pub(super) fn push(&mut self, now: Instant, canonical: String) {
        self.0.push_back((now, canonical));
    }

    /// Removes and returns the oldest name, if its time is over or there are too many.
    pub(super) fn next(&mut self, now: Instant) -> Option<String> {
        let (since, _) = self.0.front()?;
        let due = self.0.len() > UNASKED_MAX || now >= *since + SHOWN;
        due.then(|| self.0.pop_front()).flatten().map(|(_, canonical)| canonical)
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() > UNASKED_MAX
    }
}
