//! Counts the backends that leave the lists, by service and reason.
//!
//! In: one departure after the other. Out: their number since the last call, with a few
//! names. Pure. It keeps at most [`NAMES_MAX`] names of each, however many backends
//! leave.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use crate::model::ServiceName;

/// Why a backend is not listed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Departure {
    /// It deregistered.
    Deregistered,
    /// Its registration was lost, and the settings do not hold lost backends.
    Lost,
    /// It was held, and probes found it dead.
    Dead,
    /// It was held for as long as `--keep-lost` allows.
    Expired,
}

/// Backends of one service that left for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Departed {
    pub(super) count: usize,
    /// The first few names.
    pub(super) names: Vec<Arc<str>>,
}

/// All departures, by service and reason.
#[derive(Debug, Default)]
pub(super) struct Departures(BTreeMap<(ServiceName, Departure), Departed>);

/// Enough names to know where to look.
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
