//! Decides whether a connection may open one more stream with selectors.
//!
//! In: connections, and the cost of their lists. Out: an [`Admitted`] to hold while the
//! stream is open, or a refusal. The list of a whole service is shared by all its
//! clients, so streams without selectors are not limited here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The cost of each connection's streams with selectors.
#[derive(Default)]
pub(crate) struct Admission(Mutex<HashMap<SocketAddr, usize>>);

/// A stream's part of its connection's cost.
pub(crate) struct Admitted {
    peer: SocketAddr,
    cost: usize,
    owner: Arc<Admission>,
}

/// The most entries that the lists of all classes with selectors may have together: 40
/// MB, and some tens of milliseconds if one change touches them all.
const ALL_MAX: usize = 1_000_000;
/// The most entries that the lists of one connection's streams may have, so that no
/// connection takes everything: a third of a very large service for each of 37 streams.
const CONNECTION_MAX: usize = ALL_MAX / 8;
/// The least that a class costs, in entries: the memory for the class itself. Ten thousand
/// names of a connection fit.
pub(crate) const COST_MIN: usize = 12;

impl Admission {
    /// Admits a stream of this connection whose list has at most `entries` entries, while
    /// all other lists have `others`. Returns `None` if that is too much.
    pub(crate) fn admit(
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
        // A short list costs the minimum too.
        assert!(admission.admit(peer(1), 1, ALL_MAX - COST_MIN + 1).is_none());
    }
}
