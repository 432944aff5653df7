//! Follows the ramps of splits: which share each service has reached.
//!
//! In: the settings of services, the time. Out: the share of a service's ramp, and when any
//! share changes next. Pure. A service without a ramp costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::facts::factor::Factor;
use crate::model::ServiceName;
use crate::settings::ServiceSettings;

use super::due_times::DueTimes;

/// The ramps of all services, followed by the catalog's writer.
#[derive(Debug)]
pub(super) struct RampTracker {
    /// When each service must be looked at again, and what it waits for.
    waiting: BTreeMap<ServiceName, Waiting>,
    due: DueTimes<Instant>,
    wall: fn() -> Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    due: Instant,
    /// When the share changes, in milliseconds of the wall clock.
    step: u64,
}

/// How often the wall clock is read while a ramp waits for its next step: an operator, or
/// NTP, may set it.
const READ_EVERY: Duration = Duration::from_secs(30);

impl RampTracker {
    /// Makes a tracker. `wall` returns the time since 1970.
    pub(super) fn new(wall: fn() -> Duration) -> Self {
        Self { waiting: BTreeMap::new(), due: DueTimes::default(), wall }
    }

    /// Returns the share that a service's ramp has reached; `None` if it has no ramp. From
    /// then on, [`Self::ready`] returns the service when its share changes.
    pub(super) fn share(
        &mut self,
        service: &ServiceName,
        settings: &ServiceSettings,
        now: Instant,
    ) -> Option<Factor> {
        self.forget(service);
        let ramp = settings.split.ramp()?;
        let millis = self.millis();
        if let Some(step) = ramp.next(millis) {
            self.wait(service.clone(), step, millis, now);
        }
        Some(ramp.share(millis))
    }

    /// Stops following a service.
    pub(super) fn forget(&mut self, service: &ServiceName) {
        if let Some(waiting) = self.waiting.remove(service) {
            self.due.remove(service, waiting.due);
        }
    }

    /// Returns the services whose shares change at this moment.
    pub(super) fn ready(&mut self, now: Instant) -> BTreeSet<ServiceName> {
        let mut ready = BTreeSet::new();
        while let Some(service) = self.due.pop(now) {
            let millis = self.millis();
            match self.waiting.remove(&service) {
                Some(Waiting { step, .. }) if step > millis => {
                    self.wait(service, step, millis, now);
                }
                _ => _ = ready.insert(service),
            }
        }
        ready
    }

    /// Returns when [`Self::ready`] must be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first()
    }

    fn wait(&mut self, service: ServiceName, step: u64, millis: u64, now: Instant) {
        let rest = Duration::from_millis(step.saturating_sub(millis).max(1));
        let due = now + rest.min(READ_EVERY);
        self.due.add(&service, due);
        self.waiting.insert(service, Waiting { due, step });
    }

    fn millis(&self) -> u64 {
        u64::try_from((self.wall)().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::model::Selector;
    use crate::settings::{SplitKey, SplitSetting};

    thread_local! {
        /// The wall clock of a test, in seconds.
        static WALL: Cell<u64> = const { Cell::new(0) };
    }

    fn wall() -> Duration {
        Duration::from_secs(WALL.get())
    }

    fn ramping() -> ServiceSettings {
        let mut settings = ServiceSettings::DEFAULT;
        settings.split.select = Some(Selector { key: "version".into(), value: "v2".into() });
        for (key, text) in
            [(SplitKey::Ramp, "1% 1m, 5% 1m, 100%"), (SplitKey::Begins, "1970-01-01T00:16:40Z")]
        {
            settings.split.set(SplitSetting::parse(key, text).unwrap());
        }
        settings
    }

    /// Lets the clocks run until a service is ready. Returns the seconds of the wall clock.
    fn next(ramps: &mut RampTracker, start: Instant) -> Option<u64> {
        loop {
            let due = ramps.due()?;
            WALL.set((due - start).as_secs());
            if !ramps.ready(due).is_empty() {
                return Some(WALL.get());
            }
        }
    }

    #[test]
    fn a_service_is_ready_at_each_step() {
        let (start, service) = (Instant::now(), ServiceName::new("hello").unwrap());
        let (mut ramps, settings) = (RampTracker::new(wall), ramping());
        let share = |ramps: &mut RampTracker| {
            let now = start + Duration::from_secs(WALL.get());
            ramps.share(&service, &settings, now).unwrap().as_millionths() / 10_000
        };
        WALL.set(0);
        let mut seen = vec![(0, share(&mut ramps))];
        while let Some(at) = next(&mut ramps, start) {
            seen.push((at, share(&mut ramps)));
        }
        assert_eq!(seen, [(0, 0), (1_000, 1), (1_060, 5), (1_120, 100)]);
        assert_eq!(ramps.share(&service, &ServiceSettings::DEFAULT, start), None);
    }

    #[test]
    fn a_clock_that_is_set_moves_the_steps() {
        let (start, service) = (Instant::now(), ServiceName::new("hello").unwrap());
        let mut ramps = RampTracker::new(wall);
        WALL.set(900);
        assert_eq!(ramps.share(&service, &ramping(), start), Some(Factor::ZERO));
        // It is read again after half a minute, and is a minute ahead by then.
        assert_eq!(ramps.due(), Some(start + READ_EVERY));
        WALL.set(990);
        assert!(ramps.ready(start + READ_EVERY).is_empty());
        let due = start + READ_EVERY + Duration::from_secs(10);
        assert_eq!(ramps.due(), Some(due));
        WALL.set(1_000);
        assert_eq!(ramps.ready(due), [service.clone()].into());
        ramps.share(&service, &ramping(), due);
        ramps.forget(&service);
        assert_eq!(ramps.due(), None);
    }
}
