//! Who may open one more stream that selects among a service's instances.
//!
//! In: connections, classes, what their lists cost. Out: a word, and an
//! [`Admitted`] to hold while the stream is open. Lists of the whole service
//! are shared by all, so streams that select nothing are not asked about.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What each connection's selecting streams cost.
#[derive(Default)]
pub(super) struct Admission(Mutex<HashMap<SocketAddr, usize>>);

/// A stream's part of what its connection may cost.
pub(super) struct Admitted {
    peer: SocketAddr,
    cost: usize,
    owner: Arc<Admission>,
}

/// What the lists of all classes that select may have together, in entries: 40
/// MB, and some tens of milliseconds where one change touches them all.
const ALL_MAX: usize = 1_000_000;
/// What the lists of one connection's selecting streams may have, so that none
/// takes it all: a third of a very large service for each of 37 streams.
const CONNECTION_MAX: usize = ALL_MAX / 8;
/// What a class costs at least, in entries: the memory for itself.
pub(super) const COST_MIN: usize = 16;

impl Admission {
    /// Admits a stream of this connection whose list has at most so many entries,
    /// where all lists but this one have so many. `None` when it is too much.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: SocketAddr,
        entries: usize,
        others: usize,
    ) -> Option<Admitted> {
        let cost = entries.max(COST_MIN);
        let mut connections = self.lock();
        let before = connections.get(&peer).copied().unwrap_or(0);
        if others + cost > ALL_MAX || before + cost > CONNECTION_MAX {
            return None;
        }
        connections.insert(peer, before + cost);
        Some(Admitted { peer, cost, owner: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut connections = self.owner.lock();
        let left = connections.get(&self.peer).map_or(0, |cost| cost - self.cost);
        if left == 0 {
            connections.remove(&self.peer);
        } else {
            connections.insert(self.peer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn a_connection_gets_its_part_and_no_more_and_gives_it_back() {
        let admission = Arc::new(Admission::default());
        let all: Vec<_> =
            std::iter::from_fn(|| admission.admit(peer(1), CONNECTION_MAX / 10, 0)).collect();
        assert_eq!(all.len(), 10);
        assert!(admission.admit(peer(1), 1, 0).is_none());
        let other = admission.admit(peer(2), 1, 0).unwrap();
        drop(all);
        assert!(admission.admit(peer(1), 1, 0).is_some());
        drop(other);
        assert!(admission.lock().is_empty());
    }

    #[test]
    fn all_together_get_so_much() {
        let admission = Arc::new(Admission::default());
        assert!(admission.admit(peer(1), 100, ALL_MAX - 100).is_some());
        assert!(admission.admit(peer(1), 100, ALL_MAX - 99).is_none());
        // What is small costs its class all the same.
        assert!(admission.admit(peer(1), 1, ALL_MAX - COST_MIN + 1).is_none());
    }
}
