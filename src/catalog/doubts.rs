//! What is known of backends whose registration and whose life disagree.
//!
//! Values for those who probe and those who show; `guard` and `index` decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{BackendAddr, Endpoint, ServiceName};

/// What the operator decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a backend whose registration went in doubt stays listed at
    /// most; zero: it goes at once.
    pub keep: Duration,
    /// The part of a service's last good list that stays whatever probes say,
    /// in percent; zero: none.
    pub share: u32,
    /// How often a registration without a lease is probed; zero: never.
    pub probe_unleased: Duration,
}

/// Why a registration is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Its lease is gone, expired or revoked.
    LeaseLost,
    /// It was deleted in one stroke with a large share of its service.
    Swept,
    /// It was not there when the registry was read again.
    Missing,
}

/// What a probe of a backend came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It takes connections.
    Takes,
    /// It refuses them: nobody listens there.
    Refuses,
    /// Nothing came back in time, or the network said that there is no way.
    Silent,
}

/// A listed backend whose registration is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Since when it is gone.
    pub since: Instant,
    /// Why that is in doubt.
    pub why: Doubt,
    /// What the newest probe came to.
    pub answer: Option<Answer>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubts {
    /// Listed though the registration is gone.
    pub held: BTreeMap<ServiceName, BTreeMap<BackendAddr, Held>>,
    /// Services that keep backends which do not answer, for too few would be
    /// left.
    pub guarded: BTreeSet<ServiceName>,
    /// Registered without a lease and not listed: they refuse connections.
    pub down: BTreeMap<ServiceName, Vec<Endpoint>>,
    /// Registered without a lease.
    pub unleased: Arc<BTreeSet<BackendAddr>>,
    /// To be probed now and again, closely: those that are held.
    pub suspects: BTreeSet<BackendAddr>,
}

impl Rules {
    /// What is in doubt goes, and nothing is probed.
    pub const OFF: Self = Self { keep: Duration::ZERO, share: 0, probe_unleased: Duration::ZERO };
}

impl Doubts {
    /// How many backends are held.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.held.values().map(BTreeMap::len).sum()
    }

    /// Why one is held, if it is.
    #[must_use]
    pub fn held(&self, service: &ServiceName, addr: BackendAddr) -> Option<&Held> {
        self.held.get(service)?.get(&addr)
    }
}

/// Logs what matters of a difference, service by service: what is decided about
/// a thousand backends at once is one matter.
pub(super) fn tell(before: &Doubts, after: &Doubts) {
    for service in after.guarded.difference(&before.guarded) {
        let kept = after.held.get(service).map_or(0, BTreeMap::len);
        tracing::warn!(%service, kept, "too much of a service is lost: keeping backends that do not answer");
    }
    for service in before.guarded.difference(&after.guarded) {
        tracing::info!(%service, "no backend is kept any more that does not answer");
    }
    // Not before one has answered: most are about to deregister, or to return.
    let kept = |doubts: &Doubts, service| {
        let held = doubts.held.get(service).into_iter().flat_map(BTreeMap::values);
        held.filter(|held| held.answer == Some(Answer::Takes)).count()
    };
    for service in before.held.keys().chain(after.held.keys()).collect::<BTreeSet<_>>() {
        match (kept(before, service), kept(after, service)) {
            (0, now @ 1..) => {
                tracing::warn!(%service, kept = now, "registrations are lost: keeping backends that answer")
            }
            (1.., 0) => {
                tracing::info!(%service, "no backend is kept any more without registration")
            }
            _ => {}
        }
    }
    let down = |doubts: &Doubts, service| doubts.down.get(service).map_or(0, Vec::len);
    for service in before.down.keys().chain(after.down.keys()).collect::<BTreeSet<_>>() {
        let (was, down) = (down(before, service), down(after, service));
        if was != down {
            tracing::info!(%service, down, "backends without a lease refuse connections");
        }
    }
}

impl Doubt {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeaseLost => "its lease is gone: expired or revoked",
            Self::Swept => "its key was deleted in one stroke with most of its service",
            Self::Missing => "its key was missing when the registry was read again",
        }
    }
}

impl Answer {
    /// For people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Takes => "takes connections",
            Self::Refuses => "refuses connections",
            Self::Silent => "does not answer",
        }
    }
}
