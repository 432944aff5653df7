//! Counts the backends that leave the lists, by service and reason.
//!
//! In: one departure after the other. Out: how many there were since this was
//! asked for last, with a few names. Pure. It keeps no more than [`NAMES_MAX`]
//! names of each, however many leave.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use crate::model::ServiceName;

/// Why a backend is not listed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Departure {
    /// It deregistered.
    Deregistered,
    /// Its registration was lost, and lost backends are not held.
    Lost,
    /// It was held, and a probe found that it does not answer.
    Dead,
    /// It was held for as long as that may be.
    Expired,
}

/// Backends of one service that left for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Departed {
    pub(super) count: usize,
    /// The first few.
    pub(super) names: Vec<Arc<str>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Departures(BTreeMap<(ServiceName, Departure), Departed>);

/// Enough to know where to look.
pub(super) const NAMES_MAX: usize = 3;

impl Departures {
    pub(super) fn add(&mut self, service: &ServiceName, why: Departure, name: &Arc<str>) {
        let departed = self.0.entry((service.clone(), why)).or_default();
        departed.add(1, std::slice::from_ref(name));
    }

    pub(super) fn take(&mut self) -> BTreeMap<(ServiceName, Departure), Departed> {
        mem::take(&mut self.0)
    }
}

impl Departed {
    pub(super) fn add(&mut self, count: usize, names: &[Arc<str>]) {
        self.count += count;
        let room = NAMES_MAX.saturating_sub(self.names.len());
        self.names.extend(names.iter().take(room).cloned());
    }
}
