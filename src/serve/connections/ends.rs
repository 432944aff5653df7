//! Remembers when connections end whose time is limited.
//!
//! In: a connection and the time at which it is to end. Out: the connections whose time is
//! over. It takes memory only for connections with a limit.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

/// The ends of connections, by time and by id.
#[derive(Default)]
pub(super) struct Ends {
    by_time: BTreeSet<(Instant, u64)>,
    by_id: HashMap<u64, Instant>,
}

impl Ends {
    /// Sets when a connection ends, unless it ends earlier already.
    pub(super) fn limit(&mut self, id: u64, at: Instant) {
        let end = self.by_id.entry(id).or_insert(at);
        self.by_time.remove(&(*end, id));
        *end = at.min(*end);
        self.by_time.insert((*end, id));
    }

    /// Forgets a connection.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(at) = self.by_id.remove(&id) {
            self.by_time.remove(&(at, id));
        }
    }

    /// Removes a connection whose time is over by now, and returns it.
    pub(super) fn pop(&mut self, now: Instant) -> Option<u64> {
        let (_, id) = *self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.forget(id);
        Some(id)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_time.is_empty() && self.by_id.is_empty()
    }
}
