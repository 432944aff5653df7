//! Tests of which backends are asked, and when their reports change shares.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::Weight;
use crate::settings::LoadSettings;

struct World {
    tracker: LoadTracker,
    now: Instant,
    settings: ServiceSettings,
}

const EVERY: Duration = Duration::from_secs(10);

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn endpoint(port: u16, weight: u32) -> Endpoint {
    Endpoint {
        id: port.to_string().into(),
        addr: BackendAddr::new([10, 0, 0, 1].into(), port).unwrap(),
        weight: Weight(weight),
        meta: Arc::default(),
    }
}

impl World {
    fn new() -> Self {
        let load = LoadSettings { kind: LoadKind::Orca, interval: EVERY };
        let settings = ServiceSettings { load, ..ServiceSettings::DEFAULT };
        Self { tracker: LoadTracker::default(), now: Instant::now(), settings }
    }

    fn update(&mut self, name: &str, endpoints: &[Endpoint]) -> Vec<(u16, u32)> {
        let factors = self.tracker.update(&service(name), endpoints, &self.settings, self.now);
        let factors = factors.map(|all| all.0.clone()).unwrap_or_default();
        factors.into_iter().map(|(addr, one)| (addr.port(), one.as_millionths())).collect()
    }

    /// Lets an interval pass in which each backend of a port reports.
    fn pass(&mut self, reports: &[(u16, f64, f64)]) -> usize {
        self.now += EVERY;
        for &(port, calls, utilisation) in reports {
            let target = self.tracker.targets.iter().find(|one| one.addr.port() == port);
            let target = target.expect("it is asked").clone();
            self.tracker.reported(&target, Report { calls, utilisation }, self.now);
        }
        self.tracker.ready(self.now).len()
    }

    fn asked(&mut self) -> Option<Vec<u16>> {
        let targets = self.tracker.take_targets()?;
        Some(targets.iter().map(|target| target.addr.port()).collect())
    }
}

#[test]
fn a_slow_machine_gets_less_and_all_is_even_again_without_reports() {
    let mut world = World::new();
    let all = [endpoint(1, 1), endpoint(2, 1), endpoint(3, 1), endpoint(4, 0)];
    assert_eq!(world.update("hello", &all), []);
    assert_eq!(world.asked(), Some(vec![1, 2, 3, 4]));
    assert_eq!(world.asked(), None, "nothing has changed");
    // The first reports measure start-up work. Backend 2 is full at half of the calls.
    let reports = [(1, 50.0, 0.5), (2, 50.0, 1.0), (3, 50.0, 0.5)];
    let published: usize = (0..6).map(|_| world.pass(&reports)).sum();
    assert_eq!(published, 1, "the same reports are published once");
    assert_eq!(world.update("hello", &all), [(2, 500_000)]);
    // A restart of one backend changes nothing for the others.
    assert_eq!(world.update("hello", &all[..2]), [(2, 500_000)]);
    assert_eq!(world.asked(), Some(vec![1, 2]));
    // Silence: the factor stays for three minutes, and then returns to 1.
    let silent: usize = (0..17).map(|_| world.pass(&[])).sum();
    assert_eq!((silent, world.update("hello", &all[..2])), (0, vec![(2, 500_000)]));
    let _: usize = (0..10).map(|_| world.pass(&[])).sum();
    assert_eq!(world.update("hello", &all[..2]), []);
}

#[test]
fn services_share_the_reports_of_a_backend_and_end_by_themselves() {
    let mut world = World::new();
    let all = [endpoint(1, 1), endpoint(2, 1)];
    world.update("a", &all);
    world.update("b", &all[..1]);
    assert_eq!(world.asked(), Some(vec![1, 2]));
    world.update("a", &[]);
    assert_eq!(world.asked(), Some(vec![1]));
    // Another interval is another question.
    world.settings.load.interval = EVERY * 2;
    world.update("b", &all[..1]);
    assert_eq!(world.tracker.take_targets().unwrap().iter().next().unwrap().interval, EVERY * 2);
    world.settings.load.kind = LoadKind::Off;
    assert_eq!(world.update("b", &all[..1]), []);
    assert_eq!(world.asked(), Some(Vec::new()));
    assert!(world.tracker.services.is_empty() && world.tracker.due().is_none());
    assert!(!world.tracker.follows(&service("b"), &world.settings));
}

#[test]
fn servers_that_report_rarely_are_no_outage() {
    let mut world = World::new();
    let all = [endpoint(1, 1), endpoint(2, 1)];
    world.update("hello", &all);
    let mut published = 0;
    for _ in 0..8 {
        published += world.pass(&[(1, 50.0, 0.5), (2, 50.0, 0.9)]);
        // grpc-go reports every 30 seconds, whatever it is asked.
        published += world.pass(&[]) + world.pass(&[]);
    }
    assert!(published >= 1);
    let factors = world.update("hello", &all);
    assert_eq!(factors.len(), 2, "{factors:?}");
}
