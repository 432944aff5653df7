//! Tests the catalog through its inputs and subscriptions.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::affected::Affected;
use super::drive::apply_input;
use super::index::Index;
use super::publish::Publisher;
use super::*;
use crate::model::{BackendAddr, HostPort, ServiceName, Weight, Zone};
use crate::registry::{Cause, Change, Entry, Event, Registration};

fn target(text: &str) -> Target {
    Target::parse(text, &Zone::new("zone").unwrap()).unwrap()
}

fn entry(service: &str, address: &str) -> Entry {
    let registration = Registration {
        service: ServiceName::new(service).unwrap(),
        id: address.into(),
        address: HostPort::parse(address).unwrap(),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    };
    Entry {
        key: Key::new(format!("{service}/{address}").as_bytes()),
        decoded: Ok(vec![registration].into()),
        leased: true,
    }
}

fn reset(entries: Vec<Entry>) -> Input {
    Input::Registry(Event::Reset { revision: 1, all: entries, went_back: false })
}

fn put(entry: Entry) -> Input {
    Input::Registry(Event::Apply { revision: 2, changes: vec![Change::Put(entry)] })
}

fn delete(entry: Entry) -> Input {
    Input::Registry(Event::Apply {
        revision: 2,
        changes: vec![Change::Delete(entry.key, Cause::Deregistered)],
    })
}

/// Applies inputs in the way of the catalog's task, at a time of the test's choice.
struct World {
    catalog: Catalog,
    index: Index,
    publisher: Publisher,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with(Rules::OFF)
    }

    fn with(rules: Rules) -> Self {
        let catalog = Catalog::with(rules);
        let (index, publisher) = (Index::new(rules), Publisher::new(crate::clock::wall));
        Self { catalog, index, publisher, now: Instant::now() }
    }

    fn say(&mut self, input: Input) {
        let before = self.catalog.status();
        let mut status = before.clone();
        let mut affected = Affected::default();
        apply_input(
            &mut self.index,
            &mut self.publisher,
            &mut status,
            &mut affected,
            input,
            self.now,
        );
        self.index.expire(self.now, status.stale.is_none(), &mut affected);
        self.catalog.publish(&mut self.index, affected, &before, status, &mut self.publisher);
    }
}

fn show(known: &Known) -> String {
    match known {
        Known::Syncing => "syncing".to_owned(),
        Known::Absent(_) => "absent".to_owned(),
        Known::Present(snapshot) => {
            let all: Vec<_> = snapshot.endpoints.iter().map(|e| e.addr.to_string()).collect();
            format!("{} {}", snapshot.name, all.join(" "))
        }
    }
}

#[test]
fn nothing_is_concluded_before_the_first_reading() {
    let mut world = World::new();
    let waiting = world.catalog.subscribe(&target("hello")).unwrap();
    assert_eq!(show(&waiting.known()), "syncing");
    world.say(put(entry("hello", "10.0.0.1:80")));
    assert_eq!(show(&waiting.known()), "syncing");
    assert_eq!(show(&world.catalog.lookup(&target("hello"))), "syncing");
    world.say(reset(vec![entry("other", "10.0.0.1:80")]));
    assert_eq!(show(&waiting.known()), "absent");
    assert_eq!(show(&world.catalog.lookup(&target("other"))), "other 10.0.0.1:80");
}

#[test]
fn a_client_that_came_first_hears_of_the_first_server() {
    let mut world = World::new();
    world.say(reset(Vec::new()));
    let early = world.catalog.subscribe(&target("game.dev.zone:443")).unwrap();
    assert_eq!(show(&early.known()), "absent");
    world.say(put(entry("dev/game", "10.0.0.1:80")));
    assert_eq!(show(&early.known()), "dev/game 10.0.0.1:80");
    world.say(delete(entry("dev/game", "10.0.0.1:80")));
    assert_eq!(show(&early.known()), "absent");
}

#[test]
fn an_exact_match_wins_and_case_folds_only_without_one() {
    let mut world = World::new();
    world.say(reset(vec![entry("Hello", "10.0.0.1:80")]));
    let lower = world.catalog.subscribe(&target("hello")).unwrap();
    assert_eq!(show(&lower.known()), "Hello 10.0.0.1:80");
    world.say(put(entry("hello", "10.0.0.2:80")));
    assert_eq!(show(&lower.known()), "hello 10.0.0.2:80");
    assert_eq!(show(&world.catalog.lookup(&target("Hello"))), "Hello 10.0.0.1:80");
    assert_eq!(show(&world.catalog.lookup(&target("HELLO"))), "Hello 10.0.0.1:80");
    world.say(delete(entry("hello", "10.0.0.2:80")));
    assert_eq!(show(&lower.known()), "Hello 10.0.0.1:80");
}

#[test]
fn a_service_may_be_called_like_a_selector() {
    let mut world = World::new();
    let name = "album-api--first-revision.env1.zone:443";
    let early = world.catalog.subscribe(&target(name)).unwrap();
    let seventh = world.catalog.subscribe(&target(&format!("id--7.{name}"))).unwrap();
    assert_eq!(show(&early.known()), "syncing");
    world.say(reset(Vec::new()));
    let mut version = early.version();
    let mut check = |world: &World, expected: &str, selectors: usize| {
        assert_eq!(show(&early.known()), expected);
        assert_eq!(show(&seventh.known()), expected);
        assert_eq!(show(&world.catalog.lookup(&target(name))), expected);
        assert!(early.version() > version || expected == "absent");
        version = early.version();
        if let Known::Present(snapshot) = early.known() {
            assert_eq!(target(name).selectors_for(&snapshot.name).len(), selectors);
        }
    };
    check(&world, "absent", 0);
    // No service has this name yet, and another service takes its first label as a
    // selector.
    world.say(put(entry("env1", "10.0.0.9:80")));
    check(&world, "env1 10.0.0.9:80", 1);
    world.say(put(entry("album-api--first-revision.env1", "10.0.0.1:80")));
    check(&world, "album-api--first-revision.env1 10.0.0.1:80", 0);
    world.say(delete(entry("album-api--first-revision.env1", "10.0.0.1:80")));
    check(&world, "env1 10.0.0.9:80", 1);
    // Matched by its path too, whatever the letter case.
    world.say(put(entry("Env1/Album-API--First-Revision", "10.0.0.2:80")));
    check(&world, "Env1/Album-API--First-Revision 10.0.0.2:80", 0);
    world.say(delete(entry("env1", "10.0.0.9:80")));
    drop((early, seventh));
    // The groups of two services stay. Nothing stays of the other typed names.
    assert_eq!(world.catalog.0.groups.len(), 2);
}

#[test]
fn only_what_differs_wakes_anyone() {
    let mut world = World::new();
    world.say(reset(vec![entry("hello", "10.0.0.1:80")]));
    let hello = world.catalog.subscribe(&target("hello")).unwrap();
    let version = hello.version();
    world.say(put(entry("hello", "10.0.0.1:80")));
    world.say(put(entry("world", "10.0.0.1:80")));
    world.say(reset(vec![entry("hello", "10.0.0.1:80")]));
    let since = Instant::now();
    world.say(Input::Registry(Event::Stale { since, reason: "gone".into() }));
    assert_eq!(hello.version(), version);
    assert!(world.catalog.status().stale.is_some());
    world.say(Input::Registry(Event::Apply { revision: 9, changes: Vec::new() }));
    assert_eq!((world.catalog.status().stale, world.catalog.status().revision), (None, 9));
    assert_eq!(hello.version(), version);
}

#[test]
fn names_nobody_waits_for_leave_nothing_behind() {
    let mut world = World::new();
    world.say(reset(Vec::new()));
    let subscriptions: Vec<_> =
        (0..100).map(|i| world.catalog.subscribe(&target(&format!("n{i}")))).collect();
    let twice = world.catalog.subscribe(&target("n0")).unwrap();
    assert_eq!(world.catalog.0.groups.len(), 100);
    drop(subscriptions);
    assert_eq!(world.catalog.0.groups.len(), 1);
    drop(twice);
    assert_eq!(world.catalog.0.groups.len(), 0);
    world.say(put(entry("hello", "10.0.0.1:80")));
    drop(world.catalog.subscribe(&target("hello")));
    assert_eq!(world.catalog.services().len(), 1);
}

/// Returns the empty services as text: `canonical registered streams`.
fn empty(world: &World) -> Vec<String> {
    let all = world.catalog.empty_services();
    let text = |EmptyService { canonical, name, streams, .. }: EmptyService| {
        format!("{canonical} {} {streams}", name.as_ref().map_or("-", ServiceName::as_str))
    };
    all.into_iter().map(text).collect()
}

/// Listens as a stream does.
fn listen(subscription: &Subscription) -> Subscriber {
    let mut listener = subscription.listen();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = listener.poll_known(&mut cx);
    listener
}

#[tokio::test(start_paused = true)]
async fn a_service_that_lost_all_is_shown_while_it_is_asked_for_and_some_minutes_after() {
    let mut world = World::new();
    assert_eq!(empty(&world), [""; 0], "nothing is read");
    world.say(reset(vec![entry("dev/Game", "10.0.0.1:80"), entry("hello", "10.0.0.2:80")]));
    let asked = world.catalog.subscribe(&target("game.dev")).unwrap();
    let stream = listen(&asked);
    assert_eq!(empty(&world), [""; 0]);
    world.say(delete(entry("dev/Game", "10.0.0.1:80")));
    assert_eq!(empty(&world), ["game.dev dev/Game 1"]);
    world.say(put(entry("dev/Game", "10.0.0.1:80")));
    assert_eq!(empty(&world), [""; 0]);
    world.say(delete(entry("dev/Game", "10.0.0.1:80")));
    tokio::time::advance(empty::SHOWN * 2).await;
    world.say(delete(entry("hello", "10.0.0.2:80")));
    assert_eq!(empty(&world), ["game.dev dev/Game 1", "hello hello 0"]);
    drop((stream, asked));
    assert_eq!(empty(&world), ["game.dev dev/Game 0", "hello hello 0"]);
    tokio::time::advance(empty::SHOWN).await;
    world.say(put(entry("other", "10.0.0.3:80")));
    assert_eq!(empty(&world), [""; 0]);
    assert_eq!(world.catalog.0.groups.len(), 1, "and nothing is left of them");
}

#[test]
fn a_name_that_never_had_a_backend_is_shown_while_it_is_asked_for() {
    let mut world = World::new();
    let early = world.catalog.subscribe(&target("Typo")).unwrap();
    world.say(reset(Vec::new()));
    let stream = listen(&early);
    assert_eq!(empty(&world), ["typo - 1"]);
    drop((stream, early));
    assert_eq!(empty(&world), [""; 0]);
    assert_eq!(world.catalog.0.groups.len(), 0);
}

#[test]
fn who_has_a_service_by_another_reading_of_its_name_misses_none() {
    let mut world = World::new();
    let early = world.catalog.subscribe(&target("id--7.x--y.env1")).unwrap();
    world.say(reset(Vec::new()));
    let mut stream = listen(&early);
    let poll = |stream: &mut Subscriber| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(stream.poll_known(&mut cx).is_ready());
    };
    assert_eq!(empty(&world), ["env1 - 1"]);
    world.say(put(entry("x--y.env1", "10.0.0.1:80")));
    poll(&mut stream);
    assert_eq!(empty(&world), [""; 0]);
    // A service with the shorter name came and went, and no stream asks for it.
    world.say(put(entry("env1", "10.0.0.9:80")));
    world.say(delete(entry("env1", "10.0.0.9:80")));
    let late = world.catalog.subscribe(&target("x--y.env1")).unwrap();
    let second = listen(&late);
    assert_eq!(empty(&world), ["env1 env1 0"]);
    let asked = world.catalog.subscribe(&target("env1")).unwrap();
    let third = listen(&asked);
    assert_eq!(empty(&world), ["env1 env1 1"]);
    drop((third, asked, second, late));
    assert_eq!(empty(&world), ["env1 env1 0"]);
    world.say(delete(entry("x--y.env1", "10.0.0.1:80")));
    poll(&mut stream);
    assert_eq!(empty(&world), ["env1 env1 1", "x--y.env1 x--y.env1 1"]);
}

#[test]
fn services_without_end_leave_a_bounded_memory() {
    let mut world = World::new();
    world.say(reset(Vec::new()));
    let asked = world.catalog.subscribe(&target("s0")).unwrap();
    for n in 0..3_000 {
        let one = entry(&format!("s{n}"), "10.0.0.1:80");
        world.say(put(one.clone()));
        world.say(delete(one));
    }
    assert!(empty(&world).len() <= 1_001, "{}", empty(&world).len());
    assert!(empty(&world).contains(&"s0 s0 0".to_owned()), "asked for");
    drop(asked);
}

/// Notes at each wake-up whether the status is synced already.
struct Witness(Catalog, std::sync::Mutex<Vec<bool>>);

impl std::task::Wake for Witness {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0.status().synced);
    }
}

#[test]
fn whoever_is_woken_by_a_change_finds_the_status_that_belongs_to_it() {
    for entries in [Vec::new(), vec![entry("hello", "10.0.0.1:80")]] {
        let mut world = World::new();
        let witness = Arc::new(Witness(world.catalog.clone(), std::sync::Mutex::default()));
        let mut changes = world.catalog.watch_changes();
        let mut changed = std::pin::pin!(changes.changed());
        let waker = std::task::Waker::from(witness.clone());
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(changed.as_mut().poll(&mut cx).is_pending());
        world.say(reset(entries));
        assert_eq!(*witness.1.lock().unwrap(), [true], "also when nothing was read");
    }
}

#[test]
fn closing_ends_every_subscription() {
    let catalog = Catalog::new();
    let subscription = catalog.subscribe(&target("hello")).unwrap();
    catalog.close();
    assert!(subscription.has_closed());
    assert!(catalog.subscribe(&target("hello")).is_none());
}

#[test]
fn rejected_keys_are_listed_until_they_are_read() {
    let mut world = World::new();
    let rejected = Rejected { reason: "bad".into(), value: "?".into() };
    let key = Key::new(b"p/hello/a");
    let bad = Entry { key: key.clone(), decoded: Err(rejected.clone()), leased: true };
    world.say(reset(vec![bad]));
    assert_eq!(world.catalog.rejected(), vec![(key.clone(), rejected)]);
    world.say(Input::Registry(Event::Apply {
        revision: 2,
        changes: vec![Change::Delete(key, Cause::Deregistered)],
    }));
    assert_eq!(world.catalog.rejected_len(), 0);
}

#[tokio::test]
async fn the_driver_applies_a_burst_and_ends_with_its_sources() {
    let catalog = Catalog::new();
    let (inputs_tx, inputs_rx) = mpsc::channel(8);
    inputs_tx.send(reset(Vec::new())).await.unwrap();
    for i in 1..=5 {
        inputs_tx.send(put(entry("hello", &format!("10.0.0.{i}:80")))).await.unwrap();
    }
    drop(inputs_tx);
    let hello = catalog.subscribe(&target("hello")).unwrap();
    drive(inputs_rx, catalog.clone(), crate::clock::wall).await;
    let Known::Present(snapshot) = hello.known() else { panic!() };
    assert_eq!(snapshot.endpoints.len(), 5);
    assert_eq!(catalog.status().keys, 5);
}

mod cost;
mod health;
mod loss;
mod marks;
mod ramps;
mod settings;
mod zones;

const RULES: Rules =
    Rules { keep_lost: Duration::from_secs(600), guard: 50, probe_unleased: Duration::ZERO };

fn gone(entries: Vec<Entry>, cause: Cause) -> Input {
    let changes = entries.into_iter().map(|entry| Change::Delete(entry.key, cause)).collect();
    Input::Registry(Event::Apply { revision: 3, changes })
}

fn addr(n: u16) -> BackendAddr {
    BackendAddr::new([127, 0, 0, 1].into(), n).unwrap()
}

fn many(ports: std::ops::RangeInclusive<u16>) -> Vec<Entry> {
    ports.map(|port| entry("hello", &format!("127.0.0.1:{port}"))).collect()
}

impl World {
    /// Returns how many endpoints the service has.
    fn hello(&self) -> usize {
        match self.catalog.lookup(&target("hello")) {
            Known::Present(snapshot) => snapshot.endpoints.len(),
            _ => 0,
        }
    }
}
