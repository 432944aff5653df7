//! How many calls the clients of each service start, by the newest report of each client.
//!
//! In: streams that join and leave, and their reports. Out: the rates of each service. A stream
//! of a service whose settings do not ask for shedding by overload costs nothing here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::facts::demand::per_second;
use crate::facts::overload::CallRates;
use crate::load::Calls;
use crate::model::ServiceName;

/// The rates of all services that ask for it.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<ServiceName, Arc<Mutex<CallRates>>>>);

/// One stream's part of the rates. It ends when this is dropped.
pub(super) struct RateMember {
    service: ServiceName,
    sum: Arc<Mutex<CallRates>>,
    /// Calls per second that the client starts and sends; `None` before its first report.
    newest: Option<(f64, f64)>,
    /// When it reported last, or joined.
    since: Instant,
}

impl Rates {
    /// Counts one more stream.
    pub(super) fn join(&self, service: &ServiceName) -> RateMember {
        let mut services = self.lock();
        let sum = services.entry(service.clone()).or_default().clone();
        // The lock of all services is held, so that no other thread removes this one.
        lock(&sum).clients += 1;
        RateMember { service: service.clone(), sum, newest: None, since: clock::now() }
    }

    /// Returns the rates of all services. A service that has lost its last stream comes once
    /// more.
    pub(super) fn all(&self) -> Vec<(ServiceName, CallRates)> {
        let mut services = self.lock();
        let all = services.iter().map(|(service, sum)| (service.clone(), *lock(sum))).collect();
        services.retain(|_, sum| lock(sum).clients > 0);
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceName, Arc<Mutex<CallRates>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateMember {
    /// Returns whether the stream counts for this service.
    pub(super) fn is_of(&self, service: &ServiceName) -> bool {
        self.service == *service
    }

    /// Counts the calls that the client has reported since its last report.
    pub(super) fn report(&mut self, calls: Calls) {
        let now = clock::now();
        let time = now.saturating_duration_since(self.since);
        let rate = |calls: u64| per_second(calls, time);
        let new = (rate(calls.started), rate(calls.started.saturating_sub(calls.dropped)));
        self.replace(Some(new));
        self.since = now;
    }

    fn replace(&mut self, new: Option<(f64, f64)>) {
        let old = std::mem::replace(&mut self.newest, new);
        let mut sum = lock(&self.sum);
        sum.reporting = sum.reporting + usize::from(new.is_some()) - usize::from(old.is_some());
        let ((started, sent), (old_started, old_sent)) =
            (new.unwrap_or_default(), old.unwrap_or_default());
        // Without reporting clients nothing is left, whatever was rounded.
        let reports = sum.reporting > 0;
        let add = |sum: f64, more: f64| if reports { (sum + more).max(0.0) } else { 0.0 };
        sum.started = add(sum.started, started - old_started);
        sum.sent = add(sum.sent, sent - old_sent);
    }
}

impl Drop for RateMember {
    fn drop(&mut self) {
        self.replace(None);
        lock(&self.sum).clients -= 1;
    }
}

fn lock(sum: &Mutex<CallRates>) -> MutexGuard<'_, CallRates> {
    sum.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_the_sum_of_the_newest_reports() {
        let rates = Rates::default();
        let service = ServiceName::new("hello").unwrap();
        let mut one = rates.join(&service);
        let two = rates.join(&service);
        let calls = |started, dropped| Calls { started, dropped, ..Calls::default() };
        one.report(calls(30, 10));
        let sum = |clients, reporting, started, sent| {
            vec![(service.clone(), CallRates { clients, reporting, started, sent })]
        };
        assert_eq!(rates.all(), sum(2, 1, 30.0, 20.0));
        one.report(calls(5, 0));
        assert_eq!(rates.all(), sum(2, 1, 5.0, 5.0));
        drop(one);
        assert_eq!(rates.all(), sum(1, 0, 0.0, 0.0));
        assert!(two.is_of(&service));
        drop(two);
        assert_eq!((rates.all(), rates.all()), (sum(0, 0, 0.0, 0.0), vec![]));
    }
}
