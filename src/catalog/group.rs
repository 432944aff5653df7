//! The services whose names fold together, and who asked for them.
//!
//! In: snapshots, as the driver has them. Out: what each spelling means, to
//! those who asked for it. It decides what a spelling means and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::{ServiceName, name};

use super::{Known, ServiceSnapshot};

/// The services that share a canonical name (nearly always one), and who asked
/// for it in which spelling.
#[derive(Default)]
pub(super) struct Group {
    pub(super) services: BTreeMap<ServiceName, Arc<ServiceSnapshot>>,
    pub(super) subscribers: BTreeMap<Arc<str>, watch::Sender<Known>>,
}

impl Group {
    /// The service that a spelling means: the best match, and among equals the
    /// first by name, so that every replica says the same.
    pub(super) fn known(&self, typed: &str) -> Known {
        let rank = |service: &&ServiceName| name::matches(typed, service);
        let best = self.services.keys().filter(|service| rank(service).is_some()).min_by_key(rank);
        match best.and_then(|service| self.services.get(service)) {
            Some(snapshot) => Known::Present(snapshot.clone()),
            None => Known::Absent,
        }
    }

    pub(super) fn announce_if(&self, synced: bool) {
        if synced {
            self.announce();
        }
    }

    pub(super) fn announce(&self) {
        for (typed, sender) in &self.subscribers {
            let new = self.known(typed);
            sender.send_if_modified(|current| {
                let differs = *current != new;
                *current = new;
                differs
            });
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.services.is_empty() && self.subscribers.is_empty()
    }
}
