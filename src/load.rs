//! Sums up the calls that clients report, by service and, where they say it, by backend.
//!
//! In: differences, already checked. Out: totals since the start, which never fall.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
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

/// Numbers of calls to one backend: differences or totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackendCalls {
    /// Calls that began.
    pub started: u64,
    /// Calls that ended with the status `OK`.
    pub succeeded: u64,
    /// Calls that ended with another status.
    pub failed: u64,
}

/// The totals of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceCalls {
    /// The calls of all its clients.
    pub all: Calls,
    /// The calls to each backend, by address, of clients that say which backends they call.
    pub backends: BTreeMap<SocketAddr, BackendCalls>,
}

/// The totals of every service.
#[derive(Debug, Default)]
pub struct Ledger {
    services: Mutex<HashMap<ServiceName, Calls>>,
    backends: Mutex<HashMap<ServiceName, Backends>>,
}

/// The totals of the backends of one service.
#[derive(Debug, Default)]
struct Backends {
    /// With the number of the newest report.
    by_address: BTreeMap<SocketAddr, (BackendCalls, u64)>,
    reports: u64,
}

/// The most backends of a service that are summed up: twice as many as may have a locality of
/// their own. Clients name them, so the one that was reported longest ago makes room.
pub const BACKENDS_MAX: usize = 256;
/// The most services of which backends are summed up.
const DETAILED_MAX: usize = 10_000;

/// The most services that are summed up. Services that come and go under new names must
/// not fill the memory.
const SERVICES_MAX: usize = 100_000;

impl Ledger {
    /// Adds what a client of the service reports. Ignores a new service once there are
    /// `SERVICES_MAX`.
    pub fn add(&self, service: &ServiceName, calls: Calls) {
        let mut totals = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(total) = totals.get_mut(service) {
            total.add(calls);
        } else if totals.len() < SERVICES_MAX {
            totals.insert(service.clone(), calls);
        }
    }

    /// Adds what a client reports of single backends of the service.
    pub fn add_backends(
        &self,
        service: &ServiceName,
        calls: impl IntoIterator<Item = (SocketAddr, BackendCalls)>,
    ) {
        let mut calls = calls.into_iter().peekable();
        let mut all = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.peek().is_none() || !all.contains_key(service) && all.len() >= DETAILED_MAX {
            return;
        }
        let Backends { by_address, reports } = all.entry(service.clone()).or_default();
        *reports += 1;
        for (address, more) in calls {
            if !by_address.contains_key(&address) && by_address.len() >= BACKENDS_MAX {
                let oldest = by_address.iter().min_by_key(|(_, (_, at))| *at);
                if let Some(oldest) = oldest.map(|(address, _)| *address) {
                    by_address.remove(&oldest);
                }
            }
            let (total, at) = by_address.entry(address).or_default();
            total.add(more);
            *at = *reports;
        }
    }

    /// Returns the totals of the backends of one service, by address; empty if no client says
    /// which backends it calls.
    #[must_use]
    pub fn backends(&self, service: &ServiceName) -> BTreeMap<SocketAddr, BackendCalls> {
        let all = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = all.get(service).into_iter().flat_map(|one| &one.by_address);
        totals.map(|(address, (calls, _))| (*address, *calls)).collect()
    }

    /// Returns the totals of one service: zero if its clients have reported nothing.
    #[must_use]
    pub fn total(&self, service: &ServiceName) -> Calls {
        let totals = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        totals.get(service).copied().unwrap_or_default()
    }

    /// Returns the totals of one service and of its backends.
    #[must_use]
    pub fn service(&self, service: &ServiceName) -> ServiceCalls {
        ServiceCalls { all: self.total(service), backends: self.backends(service) }
    }

    /// Returns the totals, sorted by service.
    #[must_use]
    pub fn totals(&self) -> Vec<(ServiceName, Calls)> {
        let totals = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = totals.iter().map(|(name, calls)| (name.clone(), *calls)).collect();
        drop(totals);
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl BackendCalls {
    fn add(&mut self, more: Self) {
        self.started = self.started.saturating_add(more.started);
        self.succeeded = self.succeeded.saturating_add(more.succeeded);
        self.failed = self.failed.saturating_add(more.failed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_that_was_reported_longest_ago_makes_room() {
        let ledger = Ledger::default();
        let service = ServiceName::new("s").unwrap();
        let calls = BackendCalls { started: 2, succeeded: 1, failed: 1 };
        let address = |port: usize| SocketAddr::from(([10, 0, 0, 1], port.try_into().unwrap()));
        ledger.add_backends(&service, []);
        assert!(ledger.backends.lock().unwrap().is_empty());
        for port in 1..=BACKENDS_MAX {
            ledger.add_backends(&service, [(address(port), calls)]);
        }
        ledger.add_backends(&service, [(address(1), calls), (address(1_000), calls)]);
        let all = ledger.backends(&service);
        assert_eq!((all.len(), all.get(&address(2))), (BACKENDS_MAX, None));
        assert_eq!(all[&address(1)], BackendCalls { started: 4, succeeded: 2, failed: 2 });
        assert_eq!(all[&address(1_000)], calls);
    }
}
