//! When each backend is asked next.
//!
//! In: the backends to check, the ends of checks, the time. Out: the backend that is due.
//! Pure. A new set of backends costs only its differences from the former one, and a check
//! costs a few look-ups, however many backends there are.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use imbl::OrdSet;
use imbl::ordset::DiffItem;

use crate::catalog::HealthTarget;

/// The times of all checks, each with a value of the caller's.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    wanted: OrdSet<HealthTarget>,
    targets: BTreeMap<HealthTarget, Planned<T>>,
    /// The targets by due time, without those that are being asked.
    due: BTreeSet<(Instant, HealthTarget)>,
}

/// One target.
#[derive(Debug)]
struct Planned<T> {
    /// `None` while it is being asked.
    due: Option<Instant>,
    /// When it was asked last.
    asked: Option<Instant>,
    /// How often it was asked.
    times: u64,
    value: T,
}

/// The most checks per second. Where there are more backends, each is asked less often.
const RATE_MAX: u32 = 1_000;
/// The shortest time between two checks of a backend, whatever it pushes.
pub(super) const APART: Duration = Duration::from_secs(1);

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { wanted: OrdSet::new(), targets: BTreeMap::new(), due: BTreeSet::new() }
    }
}

impl<T: Default> Schedule<T> {
    /// Replaces the wanted targets and forgets all others. A single new backend is asked at
    /// once. Many are spread over their interval, and all of them the first time.
    pub(super) fn want(&mut self, wanted: &OrdSet<HealthTarget>, now: Instant) {
        let before = std::mem::replace(&mut self.wanted, wanted.clone());
        let mut joined = Vec::new();
        for change in before.diff(wanted) {
            match change {
                DiffItem::Add(target) => joined.push(target.clone()),
                DiffItem::Remove(target) => {
                    if let Some(Planned { due: Some(due), .. }) = self.targets.remove(target) {
                        self.due.remove(&(due, target.clone()));
                    }
                }
            }
        }
        let most = match joined.len() {
            1 => Duration::ZERO,
            _ if before.is_empty() => Duration::MAX,
            many => Duration::from_millis(20) * u32::try_from(many).unwrap_or(u32::MAX),
        };
        for target in joined {
            let spread = self.interval(target.check.interval).min(most);
            let due = now + spread * permille(&target, 0) / 1000;
            let planned = Planned { due: Some(due), asked: None, times: 0, value: T::default() };
            self.due.insert((due, target.clone()));
            self.targets.insert(target, planned);
        }
    }

    /// Returns a target that is due, and marks it as being asked.
    pub(super) fn next(&mut self, now: Instant) -> Option<HealthTarget> {
        self.due().filter(|due| *due <= now)?;
        let (_, target) = self.due.pop_first()?;
        let planned = self.targets.get_mut(&target)?;
        planned.due = None;
        planned.asked = Some(now);
        planned.times += 1;
        Some(target)
    }

    /// Returns when the next target is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Returns the caller's value of a target that is still wanted.
    pub(super) fn value(&mut self, target: &HealthTarget) -> Option<&mut T> {
        self.targets.get_mut(target).map(|planned| &mut planned.value)
    }

    /// Plans the next check of a target after one has ended: an interval later, 10 % more or
    /// less.
    pub(super) fn done(&mut self, target: &HealthTarget, now: Instant) {
        let interval = self.interval(target.check.interval);
        let Some(planned) = self.targets.get(target) else { return };
        let part = 900 + permille(target, planned.times) / 5;
        self.plan(target, now + interval * part / 1000);
    }

    /// Plans a check of a target as soon as may be, unless it is being asked.
    pub(super) fn hasten(&mut self, target: &HealthTarget, now: Instant) {
        let Some(planned) = self.targets.get(target) else { return };
        let soonest = planned.asked.map_or(now, |asked| now.max(asked + APART));
        if planned.due.is_some_and(|due| due > soonest) {
            self.plan(target, soonest);
        }
    }

    fn plan(&mut self, target: &HealthTarget, due: Instant) {
        let Some(planned) = self.targets.get_mut(target) else { return };
        if let Some(old) = planned.due.replace(due) {
            self.due.remove(&(old, target.clone()));
        }
        self.due.insert((due, target.clone()));
    }

    /// Returns `every`, or longer where there are so many targets that the rate would be
    /// exceeded.
    fn interval(&self, every: Duration) -> Duration {
        let targets = u32::try_from(self.wanted.len()).unwrap_or(u32::MAX);
        every.max(Duration::from_secs(1) * targets / RATE_MAX)
    }
}

/// Returns a number below 1000 that differs between targets and between their checks.
fn permille(target: &HealthTarget, times: u64) -> u32 {
    let mut hasher = DefaultHasher::new();
    (target.addr, times).hash(&mut hasher);
    u32::try_from(hasher.finish() % 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::BackendAddr;
    use crate::settings::HealthCheck;

    const EVERY: Duration = Duration::from_secs(10);

    fn target(port: u16) -> HealthTarget {
        let timeout = Duration::from_secs(1);
        let check = HealthCheck { grpc: None, interval: EVERY, timeout, tls: None };
        let addr = BackendAddr::new([127, 0, 0, 1].into(), port).unwrap();
        HealthTarget { addr, check: Arc::new(check) }
    }

    fn wanted(ports: impl IntoIterator<Item = u16>) -> OrdSet<HealthTarget> {
        ports.into_iter().map(target).collect()
    }

    #[test]
    fn the_first_round_is_spread_and_one_newcomer_is_asked_at_once() {
        let (mut schedule, start) = (Schedule::<()>::default(), Instant::now());
        schedule.want(&wanted(1..=1_000), start);
        let second = |n: u64| start + Duration::from_secs(n);
        for n in 0..10 {
            let due =
                schedule.due.iter().filter(|(due, _)| (second(n)..second(n + 1)).contains(due));
            assert!((60..140).contains(&due.count()), "a tenth in each second");
        }
        schedule.want(&wanted(1..=1_001), start);
        assert_eq!(schedule.targets[&target(1_001)].due, Some(start));
        schedule.want(&wanted([7]), start);
        assert_eq!((schedule.targets.len(), schedule.due.len()), (1, 1));
    }

    #[test]
    fn a_check_follows_an_interval_after_the_last_or_sooner_if_asked() {
        let (mut schedule, start) = (Schedule::<()>::default(), Instant::now());
        schedule.want(&wanted([1]), start);
        let one = schedule.next(start).unwrap();
        assert_eq!((schedule.next(start), schedule.due()), (None, None), "one check at a time");
        schedule.hasten(&one, start);
        assert_eq!(schedule.due(), None);
        schedule.done(&one, start);
        let due = schedule.due().unwrap() - start;
        assert!((EVERY * 9 / 10..=EVERY * 11 / 10).contains(&due), "{due:?}");
        schedule.hasten(&one, start);
        assert_eq!(schedule.due(), Some(start + APART), "whatever it pushes");
        schedule.hasten(&one, start);
        assert_eq!(schedule.due.len(), 1);
        schedule.want(&wanted([]), start);
        schedule.done(&one, start);
        assert_eq!(schedule.due(), None, "nobody wants it any more");
    }

    #[test]
    fn many_are_asked_at_a_bounded_rate() {
        let (mut schedule, start) = (Schedule::<()>::default(), Instant::now());
        schedule.want(&wanted(1..=30_000), start);
        let mut seconds: Vec<_> =
            schedule.due.iter().map(|(due, _)| (*due - start).as_secs()).collect();
        seconds.sort_unstable();
        let busiest = seconds.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
        assert!(busiest < 1_200, "{busiest} in one second");
    }
}
