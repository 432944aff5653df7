//! Tests newcomers: endpoints join and leave at times that each test chooses.

use super::*;
use crate::catalog::HealthAnswer;
use crate::model::Weight;

/// A service whose endpoints join and leave at times that each test chooses.
struct World {
    tracker: NewcomerTracker,
    settings: ServiceSettings,
    all: Vec<Endpoint>,
    start: Instant,
    newcomers: Option<Arc<Newcomers>>,
    health: Health,
}

/// The wall clock at the start: 15 s into a minute.
fn wall() -> Duration {
    Duration::from_secs(60_000_015)
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        id: format!("{port:05}").into(),
        addr: addr(port),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    }
}

fn addr(port: u16) -> BackendAddr {
    BackendAddr::new([10, 0, 0, 1].into(), port).unwrap()
}

impl World {
    /// Makes a service of ten endpoints that the first reading of the registry had.
    fn new(slow_start: u64, flap_delay: u64) -> Self {
        let (slow_start, flap_delay) =
            (Duration::from_secs(slow_start), Duration::from_secs(flap_delay));
        let settings = ServiceSettings { slow_start, flap_delay, ..ServiceSettings::DEFAULT };
        let tracker = NewcomerTracker::new(wall);
        let start = Instant::now();
        let mut world = Self {
            tracker,
            settings,
            all: Vec::new(),
            start,
            newcomers: None,
            health: Health::default(),
        };
        world.change(0, false, (1..=10).map(endpoint).collect());
        world
    }

    fn change(&mut self, at: u64, join: bool, after: Vec<Endpoint>) {
        let before = std::mem::replace(&mut self.all, after);
        self.update(at, join, &before);
    }

    fn update(&mut self, at: u64, join: bool, before: &[Endpoint]) {
        let (service, now) = (ServiceName::new("hello").unwrap(), self.at(at));
        let health = [Some(&self.health); 2];
        let change = Change { before, after: &self.all, join, health };
        self.newcomers = self.tracker.update(&service, &change, &self.settings, now);
    }

    /// Lets a backend turn healthy or unhealthy.
    fn turn(&mut self, at: u64, port: u16, healthy: bool) {
        let (service, now) = (ServiceName::new("hello").unwrap(), self.at(at));
        let before = self.health.clone();
        match healthy {
            true => self.health.unhealthy.remove(&addr(port)),
            false => self.health.unhealthy.insert(addr(port), HealthAnswer::NotServing),
        };
        let health = [Some(&before), Some(&self.health)];
        let change = Change { before: &self.all, after: &self.all, join: true, health };
        self.newcomers = self.tracker.update(&service, &change, &self.settings, now);
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn join(&mut self, at: u64, port: u16) {
        let mut after = self.all.clone();
        after.push(endpoint(port));
        self.change(at, true, after);
    }

    fn leave(&mut self, at: u64, port: u16) {
        let after = self.all.iter().filter(|one| one.addr != addr(port)).cloned().collect();
        self.change(at, true, after);
    }

    /// Lets time pass as the catalog's task does. Returns the second of each change.
    fn pass(&mut self, until: u64) -> Vec<u64> {
        let mut changes = Vec::new();
        while let Some(due) = self.tracker.due().filter(|due| *due <= self.at(until)) {
            let second = (due - self.start).as_secs();
            assert_eq!(self.tracker.ready(due).len(), 1, "it is due at {second}");
            assert_eq!(self.tracker.ready(due).len(), 0, "once");
            let (before, all) = (self.newcomers.clone(), self.all.clone());
            self.update(second, true, &all);
            if self.newcomers != before {
                changes.push(second);
            }
        }
        changes
    }

    fn factor(&self, port: u16) -> Option<u32> {
        let factor = self.newcomers.as_ref()?.starting.get(&addr(port))?;
        Some(factor.as_millionths() / 10_000)
    }

    fn is_delayed(&self, port: u16) -> bool {
        self.newcomers.as_ref().is_some_and(|all| all.delayed.contains_key(&addr(port)))
    }
}

#[test]
fn a_backend_that_joins_gets_its_share_in_aligned_steps() {
    let mut world = World::new(60, 0);
    assert_eq!(world.newcomers, None, "they were there before");
    world.join(0, 11);
    world.join(1, 12);
    assert_eq!((world.factor(11), world.factor(12), world.factor(1)), (Some(10), Some(10), None));
    // The wall clock is 15 s into a minute, and a step is 12 s.
    assert_eq!(world.pass(30), [21]);
    assert_eq!((world.factor(11), world.factor(12)), (Some(20), Some(20)));
    assert_eq!(world.pass(1_000), [33, 45, 57], "all starting backends step together");
    assert_eq!(world.newcomers, None);
    assert!(world.tracker.services.is_empty(), "nothing is left to follow");
}

#[test]
fn a_backend_that_flaps_is_listed_after_a_delay_and_then_starts() {
    let mut world = World::new(60, 300);
    for at in [0, 10, 20] {
        world.leave(at, 1);
        assert!(!world.is_delayed(1), "a single restart is not delayed, nor a second");
        world.join(at + 1, 1);
    }
    assert!(world.is_delayed(1));
    assert_eq!(world.factor(1), None, "it is not listed");
    // Another backend joins and leaves, and the end of the delay stays the same.
    world.join(22, 11);
    let until = world.newcomers.as_ref().unwrap().delayed.clone();
    world.leave(23, 11);
    assert_eq!(world.newcomers.as_ref().unwrap().delayed, until, "the end stays");
    assert_eq!(world.pass(26), [26]);
    assert_eq!((world.is_delayed(1), world.factor(1)), (false, Some(10)));
    world.leave(27, 1);
    world.join(28, 1);
    assert_eq!(world.pass(37), [] as [u64; 0]);
    assert!(world.is_delayed(1), "twice as long as before");
    assert_eq!(world.pass(38), [38]);
    world.pass(1_000);
    assert!(world.tracker.services.is_empty(), "after five minutes it is forgotten");
}

#[test]
fn a_backend_whose_health_flaps_is_delayed_like_one_that_leaves() {
    let mut world = World::new(0, 300);
    for at in [0, 10] {
        world.turn(at, 1, false);
        world.turn(at + 1, 1, true);
        assert!(!world.is_delayed(1));
    }
    world.leave(20, 1);
    world.join(21, 1);
    assert!(world.is_delayed(1), "a removal counts as much");
    assert_eq!(world.pass(26), [26]);
    world.turn(27, 1, false);
    assert!(!world.is_delayed(1), "it is unhealthy");
    world.turn(28, 1, true);
    assert_eq!(world.pass(37), [] as [u64; 0]);
    assert!(world.is_delayed(1), "twice as long as before");
    assert_eq!(world.pass(38), [38]);
}

#[test]
fn a_service_that_flaps_as_a_whole_is_not_delayed() {
    let mut world = World::new(0, 300);
    for at in [0, 10, 20] {
        let all = world.all.clone();
        world.change(at, true, Vec::new());
        world.change(at + 1, true, all);
    }
    assert_eq!(world.newcomers, None);
    // A backend that is listed stays listed when the others calm down.
    world.pass(100);
    assert_eq!(world.newcomers, None);
}

#[test]
fn a_delay_that_ends_early_leaves_no_slow_start_for_later() {
    let mut world = World::new(60, 300);
    let flap = |world: &mut World, at, port| {
        world.leave(at, port);
        world.join(at, port);
    };
    for at in [0, 1, 2] {
        flap(&mut world, at, 1);
        flap(&mut world, at, 2);
    }
    assert!(world.is_delayed(1) && world.is_delayed(2));
    // Two of the nine that are left are more than a fifth: none is delayed.
    world.leave(3, 3);
    assert!(!world.is_delayed(1) && !world.is_delayed(2));
    assert_eq!((world.factor(1), world.factor(2)), (Some(10), Some(10)));
    assert_eq!(world.pass(1_000).last(), Some(&57), "their slow start began then");
}

#[test]
fn a_backend_under_another_name_has_not_left() {
    let mut world = World::new(60, 300);
    let mut after = world.all.clone();
    after[0].id = "zz".into();
    after.sort();
    world.change(1, true, after);
    assert_eq!(world.newcomers, None);
    assert!(world.tracker.services.is_empty());
}

#[test]
fn settings_that_are_taken_back_end_everything() {
    let mut world = World::new(60, 300);
    for at in [0, 1, 2] {
        world.leave(at, 1);
        world.join(at, 1);
    }
    world.join(3, 11);
    assert!(world.is_delayed(1) && world.factor(11).is_some());
    world.settings.flap_delay = Duration::ZERO;
    let all = world.all.clone();
    world.update(4, true, &all);
    assert!(!world.is_delayed(1) && world.factor(11).is_some());
    assert_eq!(world.pass(300).last(), Some(&57), "it starts now, not when its delay would end");
    world.join(301, 12);
    world.settings.slow_start = Duration::ZERO;
    let all = world.all.clone();
    world.update(302, true, &all);
    assert_eq!((world.newcomers.clone(), world.tracker.due()), (None, None));
}

#[test]
fn a_clock_that_is_set_changes_no_step() {
    // The wall clock does not move in this test, but the steps happen.
    let mut world = World::new(60, 0);
    world.join(0, 11);
    assert_eq!(world.pass(57), [21, 33, 45, 57]);
}
