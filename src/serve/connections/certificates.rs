//! Ends the connections of clients whose certificates changed files no longer accept.
//!
//! In: the chain of each client with a certificate, and the files that verify it. Out: the
//! request to leave, at a bounded rate. It takes memory only for clients with a certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Admitted, Connections};
use crate::clock;
use crate::reload::{Chain, Reloading, ServerTls};

/// The certificates of the open connections.
#[derive(Default)]
pub(super) struct Certificates {
    chains: BTreeMap<u64, Chain>,
    /// How often the files had been replaced when all connections last became due.
    version: u64,
    /// The connections that were verified by former files.
    due: BTreeSet<u64>,
}

/// The interval at which some chains are verified.
const TICK: Duration = Duration::from_millis(1);
/// How many chains are verified at a time. One takes a tenth of a millisecond. So at most two
/// thousand clients are sent away in a second, as many as while draining.
const AT_ONCE: usize = 2;
/// The interval at which it looks for handshakes that began before the files changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Certificates {
    /// Remembers the chain of a connection, which the files of `version` accepted.
    fn add(&mut self, id: u64, chain: Chain, version: u64) {
        self.chains.insert(id, chain);
        if version < self.version {
            self.due.insert(id);
        }
    }

    /// Forgets a connection.
    pub(super) fn forget(&mut self, id: u64) {
        if self.chains.remove(&id).is_some() {
            self.due.remove(&id);
        }
    }

    /// Returns the next connections that the files of `version` have not verified.
    fn next(&mut self, version: u64) -> Vec<(u64, Chain)> {
        if version > self.version {
            self.version = version;
            self.due = self.chains.keys().copied().collect();
        }
        let next = std::iter::from_fn(|| self.due.pop_first());
        next.take(AT_ONCE).filter_map(|id| Some((id, self.chains.get(&id)?.clone()))).collect()
    }
}

impl Admitted {
    /// Remembers the chain that the client has shown, which the files of `version` accepted.
    pub(in crate::serve) fn remember(&self, chain: Chain, version: u64) {
        self.all.lock().certificates.add(self.id, chain, version);
    }
}

impl Connections {
    /// Verifies the chains of all connections again whenever the files change, and ends the
    /// connections of those that are refused. Never returns.
    pub(in crate::serve) async fn verify_again(&self, tls: Option<Reloading<ServerTls>>) {
        let Some(tls) = tls.filter(|tls| tls.value().clients.is_some()) else {
            return std::future::pending().await;
        };
        let mut changes = tls.changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut refused, mut reason) = (0, String::new());
        loop {
            tick.tick().await;
            // In this order, so that the value is at least as new as its version.
            let (version, newest) = (tls.version(), tls.value());
            let next = self.lock().certificates.next(version);
            if next.is_empty() {
                if refused > 0 {
                    tracing::warn!(
                        refused,
                        reason,
                        "the changed files of --tls-client-ca and --tls-client-crl refuse the \
                         certificates of connected clients: their connections end"
                    );
                    refused = 0;
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    () = sleep(LOOK_AGAIN) => {}
                }
                continue;
            }
            for (id, chain) in next {
                if let Err(error) = newest.verify(&chain, clock::wall()) {
                    refused += self.refuse(id);
                    reason = error.to_string();
                }
            }
        }
    }

    /// Ends a connection whose client may no longer be served. Returns how many that are.
    fn refuse(&self, id: u64) -> usize {
        let inner = self.lock();
        let Some(open) = inner.open.get(&id) else { return 0 };
        open.close.refuse();
        self.counters.connections_revoked.increment();
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        [].into()
    }

    fn ids(next: Vec<(u64, Chain)>) -> Vec<u64> {
        next.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn each_connection_is_verified_once_for_each_change_and_few_at_a_time() {
        let mut all = Certificates::default();
        (0..3).for_each(|id| all.add(id, chain(), 0));
        assert!(all.next(0).is_empty());
        all.forget(1);
        assert_eq!(ids(all.next(1)), [0, 2]);
        assert!(all.next(1).is_empty());
        (3..6).for_each(|id| all.add(id, chain(), 1));
        assert_eq!(ids(all.next(2)), [0, 2]);
        // Another change begins anew.
        assert_eq!(ids(all.next(3)), [0, 2]);
        assert_eq!([ids(all.next(3)), ids(all.next(3))], [vec![3, 4], vec![5]]);
        assert!(all.next(3).is_empty());
    }

    #[test]
    fn a_handshake_that_began_before_the_change_is_verified_too() {
        let mut all = Certificates::default();
        assert!(all.next(1).is_empty());
        all.add(7, chain(), 0);
        all.add(8, chain(), 1);
        assert_eq!(ids(all.next(1)), [7]);
        all.add(9, chain(), 0);
        all.forget(9);
        assert!(all.next(1).is_empty() && all.due.is_empty());
    }
}
