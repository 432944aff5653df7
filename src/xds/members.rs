//! What is counted of each client of a service: its zone, its cells, and the calls that it
//! reports.
//!
//! In: streams that begin and cease to want a name, and reports of load. Out: the demand by
//! zone, the cells of each client of a large service, the keys where they are bounded, the calls of services that may be overloaded, and the sums of all calls. A client
//! reports on another stream than the one that brings its backends. Both are on one
//! connection and have the name in common, so a report counts only for a name that a stream
//! of the same connection wants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::catalog::Service;
use crate::load::{BackendCalls, Calls, Ledger};
use crate::model::{Class, ServiceName};
use crate::placements::{CellMember, KeyMember, Placements};
use crate::policy::{bounds_keys, subset};
use crate::settings::LbKind;
use crate::streams::demand::{Demands, Member};
use crate::streams::rates::{RateMember, Rates};

use super::resources::reports;
use super::session::NAMES_MAX;

/// The clients of which something is counted.
pub(super) struct Members {
    demands: Arc<Demands>,
    rates: Arc<Rates>,
    placements: Arc<Placements>,
    ledger: Arc<Ledger>,
    /// The clients that report, by connection and name: one for each stream with the name, the
    /// newest at the end. A report counts for that one.
    reporting: Mutex<Reporting>,
}

type Reporting = BTreeMap<(SocketAddr, Arc<str>), Vec<Arc<Mutex<Counted>>>>;

/// One client of a service. It counts until this is dropped.
pub(super) struct XdsMember {
    owner: Arc<Members>,
    service: ServiceName,
    zone: Option<Arc<str>>,
    counts: Counts,
    counted: Arc<Mutex<Counted>>,
    /// Set if it reports.
    key: Option<(SocketAddr, Arc<str>)>,
}

/// What is counted of the clients of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    zones: bool,
    cells: bool,
    keys: bool,
    calls: bool,
    /// How often they report; `None`: never.
    reports: Option<Duration>,
}

/// What is counted of one client.
struct Counted {
    service: ServiceName,
    interval: Duration,
    demand: Option<Member>,
    cell: Option<CellMember>,
    key: Option<KeyMember>,
    rate: Option<RateMember>,
    /// All calls that it has reported, whatever was counted of it before.
    calls: Arc<Mutex<Calls>>,
}

impl Members {
    pub(super) fn new(
        demands: Arc<Demands>,
        rates: Arc<Rates>,
        placements: Arc<Placements>,
        ledger: Arc<Ledger>,
    ) -> Arc<Self> {
        Arc::new(Self { demands, rates, placements, ledger, reporting: Mutex::default() })
    }

    /// Counts one more client, which adds to `calls` what it reports; `None` if nothing is
    /// counted of it.
    pub(super) fn join(
        self: &Arc<Self>,
        service: &Service,
        class: &Class,
        client: SocketAddr,
        name: &Arc<str>,
        calls: Arc<Mutex<Calls>>,
    ) -> Option<XdsMember> {
        let (counts, zone) = (Counts::of(service, class)?, class.zone());
        let interval = service.settings.report_interval;
        let demand = counts.zones.then(|| self.demands.join(&service.name, zone, interval));
        let cell = counts.cells.then(|| self.placements.join(service, zone, client.ip()));
        let key = counts.keys.then(|| self.placements.join_key(service, class));
        let rate = counts.calls.then(|| self.rates.join(&service.name));
        let (service, zone) = (service.name.clone(), zone.cloned());
        let counted =
            Counted { service: service.clone(), interval, demand, cell, key, rate, calls };
        let counted = Arc::new(Mutex::new(counted));
        let key = counts.reports.map(|_| (client, name.clone()));
        if let Some(key) = &key {
            self.lock().entry(key.clone()).or_default().push(counted.clone());
        }
        Some(XdsMember { owner: self.clone(), service, zone, counts, counted, key })
    }

    /// Adds what a client reports of a name, and of single backends. Returns how often it should report; `None` if
    /// the report does not count.
    pub(super) fn report(
        &self,
        client: SocketAddr,
        name: &str,
        calls: Calls,
        backends: Vec<(SocketAddr, BackendCalls)>,
    ) -> Option<Duration> {
        let counted = self.counted(client, name)?;
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted { service, interval, demand, cell, key, rate, calls: all } = &mut *counted;
        self.ledger.add(service, calls);
        self.ledger.add_backends(service, backends);
        all.lock().unwrap_or_else(PoisonError::into_inner).add(calls);
        demand.iter_mut().for_each(|demand| demand.report(calls.started));
        cell.iter().for_each(|cell| cell.report(calls.started));
        key.iter().for_each(|key| key.report(calls.started));
        rate.iter_mut().for_each(|rate| rate.report(calls));
        Some(*interval)
    }

    /// Forgets how many calls a client makes of a name, because it reports no more.
    pub(super) fn forget(&self, client: SocketAddr, name: &str) {
        let Some(counted) = self.counted(client, name) else { return };
        let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.cell.iter().for_each(CellMember::forget);
        counted.key.iter().for_each(KeyMember::forget);
        counted.rate.iter_mut().for_each(RateMember::forget);
    }

    /// Returns how often a client should report, by all names of its connection; `None` if
    /// none of them says so.
    pub(super) fn interval(&self, client: SocketAddr) -> Option<Duration> {
        let reporting = self.lock();
        let all = reporting.range((client, "".into())..).take(NAMES_MAX);
        let own = all.take_while(|((other, _), _)| *other == client);
        own.flat_map(|(_, all)| all)
            .map(|counted| counted.lock().unwrap_or_else(PoisonError::into_inner).interval)
            .min()
    }

    fn counted(&self, client: SocketAddr, name: &str) -> Option<Arc<Mutex<Counted>>> {
        self.lock().get(&(client, name.into()))?.last().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Reporting> {
        self.reporting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Returns `None` if nothing is counted.
    fn of(service: &Service, class: &Class) -> Option<Self> {
        let settings = &service.settings;
        let reports = reports(settings).then_some(settings.report_interval);
        let zones = service.facts.zones.is_some();
        // Nothing is known of the calls of clients that never report.
        let calls = settings.shed.is_on() && reports.is_some();
        let (cells, keys) = (divides(service, class), bounds_keys(service, class));
        let counts = zones || cells || keys || reports.is_some();
        counts.then_some(Self { zones, cells, keys, calls, reports })
    }
}

impl XdsMember {
    /// Returns whether a client of the service, if it were of this class, would be counted as
    /// this one is.
    pub(super) fn is_of(&self, service: &Service, class: &Class) -> bool {
        self.service == service.name
            && self.zone.as_ref() == class.zone()
            && Counts::of(service, class) == Some(self.counts)
            && self.lock().key.iter().all(|key| key.is_of(service, class))
    }

    /// Returns the class with the subset of the service's backends that the client uses, and the
    /// backend of its key.
    pub(super) fn placed(&self, service: &Service, class: Class) -> Class {
        let counted = self.lock();
        let subset = counted.cell.as_ref().and_then(|cell| cell.subset(service));
        let backend = counted.key.as_ref().and_then(|key| key.backend(service));
        class.with_subset(subset).with_backend(backend)
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether anything may be counted of the clients of a service.
pub(super) fn counts(service: &Service) -> bool {
    service.settings.hash_balance > 0 || Counts::of(service, &Class::default()).is_some()
}

/// Returns whether clients of a class get a part of the backends. Where calls are hashed, all
/// clients need the same backends, so that all send a value of the header to the same one.
fn divides(service: &Service, class: &Class) -> bool {
    let hashes = service.settings.xds.balancing.kind == LbKind::RingHash;
    !hashes && subset::divides(service, class)
}

impl Drop for XdsMember {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut reporting = self.owner.lock();
        // Another stream of the connection may have the name too.
        let Some(all) = reporting.get_mut(key) else { return };
        all.retain(|counted| !Arc::ptr_eq(counted, &self.counted));
        if all.is_empty() {
            reporting.remove(key);
        }
    }
}
