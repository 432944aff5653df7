//! Services without a backend, for as long as somebody may miss them.
//!
//! In: when a service lost its last backend, and when it was asked for. Out:
//! [`EmptyService`]s for those who show them, a warning when a service that
//! streams ask for is empty, and a word when it has backends again. It never
//! remembers more than [`UNASKED_MAX`] services that nobody asks for.

use std::collections::VecDeque;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Catalog, Group};
use crate::model::ServiceName;

/// A name that has no backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptyService {
    /// The canonical name: every spelling of it means the same.
    pub canonical: String,
    /// The service as it was registered last; `None` when no backend of it has
    /// been registered since the start.
    pub name: Option<ServiceName>,
    /// When its last backend went, or when it was first asked for.
    pub since: Instant,
    /// Streams that ask for it now, and have no service by another reading of
    /// their name.
    pub streams: usize,
}

/// What a group remembers while it has no backend.
#[derive(Debug)]
pub(super) struct Empty {
    pub(super) name: Option<ServiceName>,
    pub(super) since: Instant,
    /// When the last stream that asked for it ended, or when it became empty.
    pub(super) asked: Instant,
    /// Whether the warning is logged.
    pub(super) told: bool,
}

/// Services that became empty, in order: which to forget next.
#[derive(Debug, Default)]
pub(super) struct Emptied(VecDeque<(Instant, String)>);

/// So long an empty service is shown after the last stream that asked for it:
/// a few scrapes of its metric, and the time in which an operator comes to look.
pub(super) const SHOWN: Duration = Duration::from_secs(600);
/// More than these are forgotten earlier, the oldest first: whoever may write
/// keys can make up names without end.
const UNASKED_MAX: usize = 1_000;
/// Empty services that are looked at with one publication: more than become
/// empty with most.
const FORGOTTEN_AT_ONCE: usize = 64;

impl Catalog {
    /// Forgets empty services that nobody asks for any more.
    pub(super) fn forget_empty(&self, now: Instant) {
        let mut emptied = self.emptied();
        for _ in 0..FORGOTTEN_AT_ONCE {
            let full = emptied.is_full();
            let Some(canonical) = emptied.next(now) else { return };
            let is_over = |group: &Group| group.is_unused(now) || (full && group.is_bare());
            self.0.groups.remove_if(&canonical, |_, group| is_over(group));
            if self.0.groups.get(&canonical).is_some_and(|group| group.services.is_empty()) {
                emptied.push(now, canonical);
            }
        }
    }

    pub(super) fn emptied(&self) -> MutexGuard<'_, Emptied> {
        self.0.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Empty {
    /// For a name that is asked for and was never registered.
    pub(super) fn unknown(now: Instant) -> Self {
        Self { name: None, since: now, asked: now, told: false }
    }

    /// For a service whose last backend went.
    pub(super) fn left(name: ServiceName, now: Instant) -> Self {
        Self { name: Some(name), since: now, asked: now, told: false }
    }

    /// Whether it need not be remembered while no stream asks for it.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.name.is_none() || now >= self.asked + SHOWN
    }

    /// Whether there is something to log that has not been logged.
    pub(super) fn is_untold(&self) -> bool {
        self.name.is_some() && !self.told
    }

    /// Logs, once, that clients miss the service, if any do.
    pub(super) fn warn(&mut self, streams: usize) {
        if let Some(service) = self.name.as_ref().filter(|_| !self.told && streams > 0) {
            self.told = true;
            tracing::warn!(%service, streams, "service has no backend left, and clients ask for it");
        }
    }

    /// Logs that the service is back, if it was missed.
    pub(super) fn end(self, now: Instant) {
        if let Some(service) = self.name.filter(|_| self.told) {
            let empty_for = now.duration_since(self.since);
            tracing::info!(%service, ?empty_for, "service has backends again");
        }
    }
}

impl Emptied {
    pub(super) fn push(&mut self, now: Instant, canonical: String) {
        self.0.push_back((now, canonical));
    }

    /// A name whose time may be over.
    pub(super) fn next(&mut self, now: Instant) -> Option<String> {
        let (since, _) = self.0.front()?;
        let due = self.0.len() > UNASKED_MAX || now >= *since + SHOWN;
        due.then(|| self.0.pop_front()).flatten().map(|(_, canonical)| canonical)
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() > UNASKED_MAX
    }
}
