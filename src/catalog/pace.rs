//! Decides when a large service may be published again.
//!
//! In: the services that changed, and what was published. Out: the services to publish
//! now. Pure. The cost of a snapshot grows with its service. A small service never waits.
//! A large one that changes all the time takes a bounded share of the catalog's task, and
//! other services wait for at most one snapshot of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::ServiceName;

/// The services that wait, and how long large ones have to.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting: BTreeSet<ServiceName>,
    /// When each large service that was published may be published again.
    next: BTreeMap<ServiceName, Instant>,
}

/// A service with at least this many endpoints is large: its snapshot takes more than a
/// tenth of a millisecond.
const LARGE: usize = 1_000;
/// The pause between two snapshots of a large service, per endpoint: some ten times the
/// cost of the snapshot. 40 ms for 20,000 endpoints.
const PAUSE: Duration = Duration::from_micros(2);

impl Pace {
    /// Takes the services that changed. Returns the services to publish now, including
    /// those that have waited long enough.
    pub(super) fn ready(
        &mut self,
        affected: BTreeSet<ServiceName>,
        now: Instant,
    ) -> BTreeSet<ServiceName> {
        self.next.retain(|_, next| *next > now);
        if self.next.is_empty() && self.waiting.is_empty() {
            return affected;
        }
        self.waiting.extend(affected);
        self.waiting.extract_if(.., |service| !self.next.contains_key(service)).collect()
    }

    /// Notes that a snapshot of so many endpoints was made.
    pub(super) fn published(&mut self, service: &ServiceName, endpoints: usize, now: Instant) {
        if let Ok(count) = u32::try_from(endpoints)
            && endpoints >= LARGE
        {
            self.next.insert(service.clone(), now + PAUSE * count);
        }
    }

    /// Returns when the next waiting service may be published.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|service| self.next.get(service)).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn names(all: &[&str]) -> BTreeSet<ServiceName> {
        all.iter().map(|text| name(text)).collect()
    }

    #[test]
    fn a_small_service_never_waits_and_a_large_one_waits_for_its_pause() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.ready(names(&["big", "small"]), now), names(&["big", "small"]));
        pace.published(&name("big"), 20_000, now);
        pace.published(&name("small"), LARGE - 1, now);
        assert_eq!(pace.due(), None, "nothing waits");
        assert_eq!(pace.ready(names(&["big", "small"]), now), names(&["small"]));
        let due = pace.due().unwrap();
        assert_eq!(due, now + Duration::from_millis(40));
        assert_eq!(pace.ready(names(&["big"]), due - PAUSE), names(&[]));
        assert_eq!(pace.ready(names(&[]), due), names(&["big"]));
        assert_eq!(pace.due(), None);
        assert!(pace.next.is_empty() && pace.waiting.is_empty());
    }
}
