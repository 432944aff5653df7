//! Tests the health of a service: answers and reports come at times that each test chooses.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::load::{BackendCalls, Calls};
use crate::marks::{Mark, MarkKey, Marks, ServiceMarks, Value};
use crate::model::Weight;
use crate::settings::HealthSettings;

const OK: HealthAnswer = HealthAnswer::Serving;
const NOT: HealthAnswer = HealthAnswer::NotServing;
const LOST: HealthAnswer = HealthAnswer::Unreachable;

/// A service of ten backends with weight 1, unless a test says otherwise.
struct World {
    tracker: HealthTracker,
    settings: Arc<ServiceSettings>,
    endpoints: Vec<Endpoint>,
    drained: ServiceMarks,
    start: Instant,
    now: Instant,
    health: Health,
    answered: u64,
    /// The backends to which clients say that calls succeed: 5 of each ten calls, each second.
    reached: Vec<u16>,
}

fn addr(port: u16) -> BackendAddr {
    BackendAddr::new(IpAddr::from([10, 0, 0, 1]), port).unwrap()
}

fn endpoint(port: u16, weight: u32) -> Endpoint {
    let id = format!("{port:05}").into();
    Endpoint { id, addr: addr(port), weight: Weight(weight), meta: Arc::default() }
}

fn service() -> ServiceName {
    ServiceName::new("hello").unwrap()
}

impl World {
    fn new() -> Self {
        Self::with((1..=10).map(|port| endpoint(port, 1)).collect(), |_| {})
    }

    fn with(endpoints: Vec<Endpoint>, change: impl Fn(&mut HealthSettings)) -> Self {
        let mut settings = ServiceSettings::DEFAULT;
        settings.health.kind = HealthKind::Grpc;
        change(&mut settings.health);
        let start = Instant::now();
        let mut world = Self {
            tracker: HealthTracker::default(),
            settings: Arc::new(settings),
            endpoints,
            drained: ServiceMarks::default(),
            start,
            now: start,
            health: Health::default(),
            answered: 0,
            reached: Vec::new(),
        };
        world.update();
        world
    }

    fn update(&mut self) {
        let Self { tracker, endpoints, drained, settings, now, .. } = self;
        let health = tracker.update(&service(), endpoints, drained, settings, *now);
        self.health = health.map(|health| (*health).clone()).unwrap_or_default();
    }

    /// Advances the time as the catalog's task does.
    fn at(&mut self, seconds: u64) -> &mut Self {
        let end = self.start + Duration::from_secs(seconds);
        while let Some(due) = self.tracker.due().filter(|due| *due <= end) {
            self.now = due;
            assert!(!self.tracker.ready(due).is_empty());
            self.update();
        }
        self.now = end;
        self
    }

    fn say(&mut self, ports: impl IntoIterator<Item = u16>, answer: HealthAnswer) -> &mut Self {
        let check = self.settings.health.check().unwrap();
        for port in ports {
            let target = HealthTarget { addr: addr(port), check: Arc::new(check.clone()) };
            if !self.tracker.answered(&target, answer, self.now).is_empty() {
                self.update();
            }
        }
        self
    }

    /// Reports calls each second until a time: how many of ten are answered.
    fn report(&mut self, until: u64, of_ten: u64) -> &mut Self {
        let begun = (self.now - self.start).as_secs();
        for second in begun..=until {
            self.at(second);
            self.answered += of_ten;
            let finished = self.answered + (second - begun + 1) * (10 - of_ten);
            let all = Calls { finished, known_received: self.answered, ..Calls::default() };
            let count = |by: u64| second * by;
            let calls = BackendCalls { started: count(10), succeeded: count(5), failed: count(5) };
            let reached = self.reached.iter().map(|port| (addr(*port).socket_addr(), calls));
            let calls = ServiceCalls { all, backends: reached.collect() };
            if !self.tracker.reported(&[(service(), calls)], self.now).is_empty() {
                self.update();
            }
        }
        self
    }

    fn unhealthy(&self) -> Vec<u16> {
        self.health.unhealthy.keys().map(|addr| addr.port()).collect()
    }
}

#[test]
fn failures_count_twice_and_a_word_of_its_own_at_once() {
    let mut world = World::new();
    assert_eq!(world.tracker.take_targets().unwrap().all.len(), 10);
    world.say([1], HealthAnswer::Silent).say([2], NOT);
    assert_eq!(world.unhealthy(), [2]);
    world.at(10).say([1], HealthAnswer::Refuses);
    assert_eq!(world.unhealthy(), [1, 2]);
    assert_eq!(world.health.unhealthy[&addr(1)], HealthAnswer::Refuses);
    world.say([1, 2], OK);
    assert_eq!(world.health, Health::default());
    // A single failure is forgotten.
    world.say([1], LOST).say([1], OK).say([1], LOST);
    assert!(world.unhealthy().is_empty());
    assert!(world.tracker.take_targets().unwrap().in_question.contains(&service()));
    world.say([1], OK);
    assert!(world.tracker.take_targets().unwrap().in_question.is_empty());
    assert_eq!(world.tracker.take_targets(), None);
}

#[test]
fn panic_is_about_weight_without_drained_backends() {
    let endpoints = vec![endpoint(1, 60), endpoint(2, 20), endpoint(3, 20), endpoint(4, 0)];
    let mut world = World::with(endpoints, |_| {});
    world.say([4], NOT);
    assert!(!world.health.panic);
    world.say([2, 3], NOT);
    assert!(!world.health.panic, "60 percent are healthy");
    world.say([1], NOT);
    assert!(world.health.panic);
    assert_eq!(world.unhealthy(), [1, 2, 3, 4]);
    world.say([1], OK);
    assert!(world.health.panic, "not before two intervals");
    world.at(19);
    assert!(world.health.panic);
    world.at(20);
    assert!(!world.health.panic);
    // Of the 40 that are not drained, 20 are healthy, then none.
    let key = MarkKey::parse("drain/hello/10.0.0.1:1").unwrap();
    let marks = Marks::new([Arc::new(Mark { key, value: Value::default() })]);
    world.drained = marks.for_canonical("hello");
    world.say([2], OK).update();
    assert!(!world.health.panic);
    world.say([2], NOT);
    assert!(world.health.panic);
}

#[test]
fn without_checks_nothing_is_followed() {
    let mut world = World::new();
    world.say([1], NOT);
    let grpc = world.settings.clone();
    world.settings = Arc::new(ServiceSettings::DEFAULT);
    assert!(world.tracker.follows(&service(), &world.settings), "it is to be forgotten");
    world.update();
    assert_eq!(world.health, Health::default());
    assert!(!world.tracker.follows(&service(), &world.settings));
    let targets = world.tracker.take_targets().unwrap();
    assert_eq!((targets.all.len(), world.tracker.users.len()), (0, 0));
    // Another check begins anew, and a service without backends is forgotten.
    world.settings = grpc;
    world.update();
    world.say([1], NOT);
    let mut tcp = (*world.settings).clone();
    tcp.health.kind = HealthKind::Tcp;
    world.settings = Arc::new(tcp);
    world.update();
    assert_eq!((world.health.clone(), world.tracker.targets.all.len()), (Health::default(), 10));
    world.endpoints.clear();
    world.update();
    assert!(world.tracker.services.is_empty() && world.tracker.users.is_empty());
}

#[test]
fn services_share_the_checks_of_a_backend() {
    let mut world = World::new();
    let other = ServiceName::new("other").unwrap();
    let (all, drained) = (world.endpoints[..2].to_vec(), ServiceMarks::default());
    world.tracker.update(&other, &all, &drained, &world.settings, world.now);
    assert_eq!(world.tracker.take_targets().unwrap().all.len(), 10);
    let check = Arc::new(world.settings.health.check().unwrap());
    let target = HealthTarget { addr: addr(1), check };
    assert_eq!(world.tracker.answered(&target, NOT, world.now).len(), 2);
    world.tracker.update(&other, &[], &drained, &world.settings, world.now);
    assert_eq!(world.tracker.targets.all.len(), 10);
    // A backend that leaves is forgotten, with its health.
    world.update();
    world.endpoints.remove(0);
    world.update();
    assert_eq!((world.unhealthy(), world.tracker.targets.all.len()), (vec![], 9));
}

#[test]
fn a_fifth_may_be_lost_on_this_balancers_word() {
    let mut world = World::new();
    world.say(1..=3, LOST).report(19, 10);
    world.say(1..=3, LOST);
    assert_eq!(world.unhealthy(), [1, 2]);
    assert_eq!(world.health.unconfirmed.len(), 1);
    // A refusal is the host's own word.
    world.say([3], HealthAnswer::Refuses);
    assert_eq!(world.unhealthy(), [1, 2, 3]);
    assert!(world.tracker.take_targets().unwrap().in_question.is_empty());
}

#[test]
fn clients_whose_calls_fail_agree_with_the_balancer() {
    let mut world = World::new();
    world.say(1..=5, LOST).report(19, 10);
    world.say(1..=5, LOST).report(60, 10);
    assert_eq!((world.unhealthy(), world.health.unconfirmed.len()), (vec![1, 2], 3));
    world.report(95, 5);
    assert_eq!(world.unhealthy(), [1, 2, 3, 4, 5]);
    // Who is left out does not return because the other calls are answered.
    world.report(200, 10);
    assert_eq!(world.unhealthy(), [1, 2, 3, 4, 5]);
    world.say(1..=5, OK);
    assert_eq!(world.health, Health::default());
}

/// Of their calls to each backend, clients of xDS say only which succeed.
#[test]
fn a_backend_to_which_calls_succeed_stays_though_others_fail() {
    let mut world = World::new();
    world.reached = vec![1, 2, 3, 4];
    world.say(1..=5, LOST).report(19, 5);
    world.say(1..=5, LOST).report(60, 5);
    assert_eq!(world.unhealthy(), [1, 2, 5], "a fifth may go");
    assert_eq!(world.health.unconfirmed.len(), 2);
    // Another one, of which clients have said nothing yet, gets the time for that.
    world.reached.push(6);
    world.say([6], LOST).report(62, 5).say([6], LOST);
    assert_eq!(world.health.unconfirmed.len(), 3);
    world.report(90, 5);
    assert_eq!(world.health.unconfirmed.len(), 3);
    // Once their calls to one do not succeed any more, it goes.
    world.reached.retain(|port| *port != 4);
    world.report(130, 5);
    assert_eq!(world.unhealthy(), [1, 2, 4, 5]);
    world.say(1..=6, NOT);
    assert_eq!(world.unhealthy(), [1, 2, 3, 4, 5, 6], "their own word counts at once");
}

#[test]
fn clients_outweigh_the_balancer_for_a_limited_time() {
    let mut world = World::new();
    world.say(1..=10, LOST).report(20, 10);
    world.say(1..=10, LOST).report(619, 10);
    assert_eq!((world.unhealthy(), world.health.panic), (vec![1, 2], false));
    world.report(621, 10);
    assert_eq!((world.unhealthy().len(), world.health.panic), (10, true));
}

#[test]
fn clients_get_the_time_to_report_once() {
    let mut world = World::with((1..=10).map(|port| endpoint(port, 1)).collect(), |health| {
        health.interval = Duration::from_secs(1);
    });
    world.say(1..=4, LOST).at(1).say(1..=4, LOST);
    assert_eq!((world.unhealthy(), world.health.unconfirmed.len()), (vec![1, 2], 2));
    world.at(14);
    assert_eq!(world.unhealthy(), [1, 2]);
    world.at(15);
    assert_eq!(world.unhealthy(), [1, 2, 3, 4], "nobody reports anything");
}

#[test]
fn whoever_was_out_for_long_starts_slowly() {
    let mut world = World::new();
    world.say(1..=2, NOT).at(30).say([1], OK).at(31).say([2], OK);
    assert_eq!(world.tracker.take_cold(&service()), [addr(2)].into());
    assert!(world.tracker.take_cold(&service()).is_empty());
    // Whoever was listed all the time is warm.
    world.say(1..=6, NOT).at(100).say(1..=6, OK);
    assert!(world.tracker.take_cold(&service()).is_empty());
    let mut observed = World::with(world.endpoints, |health| health.kind = HealthKind::Observe);
    observed.say([1], NOT).at(100).say([1], OK);
    assert!(observed.tracker.take_cold(&service()).is_empty());
}

proptest! {
    /// Whatever backends answer: at least the threshold's part of the weight is listed, the
    /// unhealthy are among those that failed, and the health is that of the last call.
    #[test]
    fn enough_stays_listed(
        weights in prop::collection::vec(0..5_u32, 1..12),
        answers in prop::collection::vec((0..12_u16, 0..5_u8, 0..9_u64), 0..80),
        percent in 1..=100_u32, reports in 0..=10_u64,
    ) {
        let endpoints: Vec<_> =
            (1..).zip(&weights).map(|(port, weight)| endpoint(port, *weight)).collect();
        let mut world = World::with(endpoints, |health| health.panic = percent);
        let mut failed = BTreeSet::new();
        let mut second = 0;
        for (port, answer, pause) in answers {
            second += pause;
            world.report(second, reports);
            let port = port % u16::try_from(weights.len()).unwrap() + 1;
            let answer = [OK, NOT, LOST, HealthAnswer::Silent, HealthAnswer::Alive][answer as usize];
            if answer.is_healthy() { failed.remove(&port); } else { failed.insert(port); }
            world.say([port], answer);
            let total: u32 = weights.iter().sum();
            let out = |port: &u16| weights[usize::from(*port) - 1];
            let unhealthy: u32 = world.unhealthy().iter().map(out).sum();
            prop_assert!(world.health.panic || (total - unhealthy) * 100 >= total * percent);
            prop_assert!(world.unhealthy().iter().all(|port| failed.contains(port)));
            prop_assert!(world.health.unconfirmed.keys().all(|a| !world.health.unhealthy.contains_key(a)));
            let before = world.health.clone();
            world.update();
            prop_assert_eq!(&world.health, &before, "asking again changes nothing");
        }
    }
}
