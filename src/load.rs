//! Sums of what clients report of their calls, by service.
//!
//! In: differences, already checked. Out: totals since start, which only rise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::ServiceName;

/// Numbers of calls, as differences or as totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Begun. grpc-go counts a call only when it is finished.
    pub started: u64,
    /// Ended, dropped ones included.
    pub finished: u64,
    /// Ended without having reached a server, dropped ones not included.
    pub failed_to_send: u64,
    /// Ended with any answer of a server's.
    pub known_received: u64,
    /// Ended because the list said so.
    pub dropped: u64,
}

/// The totals of every service.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<ServiceName, Calls>>);

/// More services than this are summed no longer: services that come and go for
/// ever under new names must not fill the memory.
const SERVICES_MAX: usize = 100_000;

impl Ledger {
    /// Adds what a client of the service reports.
    pub fn add(&self, service: &ServiceName, calls: Calls) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(total) = totals.get_mut(service) {
            total.add(calls);
        } else if totals.len() < SERVICES_MAX {
            totals.insert(service.clone(), calls);
        }
    }

    /// Sorted by service.
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
    /// Adds; stays at the largest number there is rather than begin anew.
    pub fn add(&mut self, more: Self) {
        self.started = self.started.saturating_add(more.started);
        self.finished = self.finished.saturating_add(more.finished);
        self.failed_to_send = self.failed_to_send.saturating_add(more.failed_to_send);
        self.known_received = self.known_received.saturating_add(more.known_received);
        self.dropped = self.dropped.saturating_add(more.dropped);
    }
}
