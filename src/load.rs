//! Sums up the calls that clients report, by service.
//!
//! In: differences, already checked. Out: totals since the start, which never fall.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::ServiceName;

/// Numbers of calls: differences or totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls that began. grpc-go counts a call only when it has finished.
    pub started: u64,
    /// Calls that ended, including dropped ones.
    pub finished: u64,
    /// Calls that ended without reaching a backend, without dropped ones.
    pub failed_to_send: u64,
    /// Calls that ended with any answer of a backend.
    pub known_received: u64,
    /// Calls that ended because the list told the client to drop them.
    pub dropped: u64,
}

/// The most calls in one report: a million a second, for a quarter of an hour.
pub const REPORT_MAX: u64 = 1_000_000_000;

/// The totals of every service.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<ServiceName, Calls>>);

/// The most services that are summed up. Services that come and go under new names must
/// not fill the memory.
const SERVICES_MAX: usize = 100_000;

impl Ledger {
    /// Adds what a client of the service reports. Ignores a new service once there are
    /// `SERVICES_MAX`.
    pub fn add(&self, service: &ServiceName, calls: Calls) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(total) = totals.get_mut(service) {
            total.add(calls);
        } else if totals.len() < SERVICES_MAX {
            totals.insert(service.clone(), calls);
        }
    }

    /// Returns the totals of one service: zero if its clients have reported nothing.
    #[must_use]
    pub fn total(&self, service: &ServiceName) -> Calls {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.get(service).copied().unwrap_or_default()
    }

    /// Returns the totals, sorted by service.
    #[must_use]
    pub fn totals(&self) -> Vec<(ServiceName, Calls)> {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = totals.iter().map(|(name, calls)| (name.clone(), *calls)).collect();
        drop(totals);
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl Calls {
    /// Adds other numbers. A sum stays at the largest `u64` rather than wrap around.
    pub fn add(&mut self, more: Self) {
        self.started = self.started.saturating_add(more.started);
        self.finished = self.finished.saturating_add(more.finished);
        self.failed_to_send = self.failed_to_send.saturating_add(more.failed_to_send);
        self.known_received = self.known_received.saturating_add(more.known_received);
        self.dropped = self.dropped.saturating_add(more.dropped);
    }
}
