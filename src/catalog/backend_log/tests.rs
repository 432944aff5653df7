//! Tests the log lines about losses.

use std::io;
use std::sync::{Arc, Mutex};

use crate::catalog::affected::Affected;
use crate::catalog::liveness::{ProbeResult, Rules};
use crate::model::{BackendAddr, HostPort, Weight};
use crate::registry::{Cause, Change, Entry, Event, Key, Registration};

use super::*;

/// The text that was logged.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct World {
    index: Index,
    backend_log: BackendLog,
    now: Instant,
    lines: Vec<String>,
}

fn addr(port: u16) -> BackendAddr {
    BackendAddr::new([127, 0, 0, 1].into(), port).unwrap()
}

fn entry(port: u16) -> Entry {
    let registration = Registration {
        service: ServiceName::new("hello").unwrap(),
        id: format!("b{port:03}").as_str().into(),
        address: HostPort::parse(&format!("127.0.0.1:{port}")).unwrap(),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    };
    let key = Key::new(port.to_string().as_bytes());
    Entry { key, decoded: Ok(vec![registration].into()), leased: true }
}

impl World {
    fn new(keep: Duration) -> Self {
        let rules = Rules { keep_lost: keep, guard: 50, probe_unleased: Duration::ZERO };
        let (index, backend_log) = (Index::new(rules), BackendLog::default());
        let mut world = Self { index, backend_log, now: Instant::now(), lines: Vec::new() };
        let all = (1..=20).map(entry).collect();
        world.apply(Event::Reset { revision: 1, all, went_back: false });
        world
    }

    fn apply(&mut self, event: Event) {
        let mut affected = Affected::default();
        self.index.apply(event, self.now, &mut affected);
        self.publish(affected);
    }

    fn gone(&mut self, ports: impl IntoIterator<Item = u16>, cause: Cause) {
        let changes = ports.into_iter().map(|port| Change::Delete(entry(port).key, cause));
        self.apply(Event::Apply { revision: 2, changes: changes.collect() });
    }

    fn put(&mut self, ports: impl IntoIterator<Item = u16>) {
        let changes = ports.into_iter().map(|port| Change::Put(entry(port)));
        self.apply(Event::Apply { revision: 2, changes: changes.collect() });
    }

    fn probed(&mut self, port: u16, answer: ProbeResult) {
        let mut affected = Affected::default();
        self.index.probed(addr(port), answer, &mut affected);
        self.publish(affected);
    }

    /// Publishes in the way of the catalog.
    fn publish(&mut self, mut affected: Affected) {
        self.index.expire(self.now, true, &mut affected);
        for service in &affected.services {
            self.index.snapshot(service, 1);
        }
        let changed = self.index.liveness().map(|(_, services)| services).unwrap_or_default();
        let departures = self.index.departures.take();
        let page = Page::default();
        let writer = page.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(log, || {
            let state = State { index: &self.index, health: &HealthTracker::default() };
            self.backend_log.update(changed, departures, state, self.now);
        });
        let bytes = page.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        self.lines.extend(text.lines().map(|line| line.trim().to_owned()));
    }

    /// Advances the time. Returns the lines that were logged meanwhile.
    fn after(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        while let Some(due) = self.backend_log.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.publish(Affected::default());
        }
        self.now = end;
        self.publish(Affected::default());
        std::mem::take(&mut self.lines)
    }
}

const KEEP: Duration = Duration::from_secs(600);

#[test]
fn a_mass_loss_is_a_line_with_the_true_count_and_three_names() {
    let mut world = World::new(KEEP);
    world.gone(1..=20, Cause::InDoubt);
    assert_eq!(world.after(GATHER), [""; 0], "nobody knows yet");
    (1..=20).for_each(|port| world.probed(port, ProbeResult::Takes));
    let first = r#"WARN registrations are lost: keeping backends that answer service=hello held=20 answering=1 names=["b001", "b002", "b003"]"#;
    assert_eq!(world.after(PAUSE * 3), [first]);
    // Equal answers for minutes log nothing.
    for _ in 0..100 {
        (1..=20).for_each(|port| world.probed(port, ProbeResult::Takes));
    }
    assert_eq!(world.after(PAUSE), [""; 0]);
    world.put(1..=5);
    let less = r#"WARN registrations are lost: keeping backends that answer service=hello held=15 answering=15 names=["b006", "b007", "b008"]"#;
    assert_eq!(world.after(PAUSE), [less]);
    world.put(6..=20);
    let over = "INFO no backend is held any more service=hello";
    assert_eq!(world.after(PAUSE), [over]);
    world.after(PAUSE * 2);
    assert!(world.backend_log.lines.is_empty() && world.backend_log.due.is_empty());
}

#[test]
fn those_that_probes_find_dead_are_one_line_and_those_that_must_stay_another() {
    let mut world = World::new(KEEP);
    world.gone(1..=20, Cause::InDoubt);
    (1..=20).for_each(|port| world.probed(port, ProbeResult::Refuses));
    let lines = world.after(PAUSE * 2);
    assert_eq!(
        lines,
        [
            r#"WARN too much of a service is lost: keeping backends that do not answer service=hello held=10 dead=1 names=["b011"]"#,
            r#"INFO registrations are lost and probes fail: backends removed service=hello backends=10 listed=10 names=["b001", "b002", "b003"]"#,
            r#"WARN too much of a service is lost: keeping backends that do not answer service=hello held=10 dead=10 names=["b011", "b012", "b013"]"#,
        ]
    );
    let lines = world.after(KEEP * 2);
    let over = "INFO no backend is guarded any more service=hello";
    assert_eq!(lines.last().map(String::as_str), Some(over), "{lines:?}");
}

#[test]
fn a_flapping_backend_is_a_line_in_a_while() {
    let mut world = World::new(KEEP);
    let mut lines = Vec::new();
    for _ in 0..100 {
        world.gone([1], Cause::InDoubt);
        world.probed(1, ProbeResult::Takes);
        world.put([1]);
        lines.extend(world.after(Duration::from_secs(1)));
    }
    assert!(lines.len() <= 11, "{} lines in 100 s", lines.len());
}

#[test]
fn what_goes_at_once_is_counted_and_what_goes_on_purpose_too_when_it_is_much() {
    let mut world = World::new(Duration::ZERO);
    world.gone([1], Cause::Deregistered);
    assert_eq!(world.after(PAUSE * 2), [""; 0], "one of twenty");
    world.gone(2..=10, Cause::Deregistered);
    world.gone([11], Cause::Deregistered);
    let many = r#"INFO a large part of a service deregistered service=hello backends=10 listed=9 names=["b002", "b003", "b004"]"#;
    assert_eq!(world.after(PAUSE * 2), [many]);
    world.gone(12..=20, Cause::InDoubt);
    let lost = r#"WARN registrations are lost: backends removed at once service=hello backends=9 listed=0 names=["b012", "b013", "b014"]"#;
    assert_eq!(world.after(PAUSE * 2), [lost]);
}
