//! Inputs in, subscriptions out.

use super::*;
use crate::model::{HostPort, Weight, Zone};
use crate::registry::{Cause, Change, Entry, Registration};

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
        meaning: Ok(vec![registration]),
        leased: true,
    }
}

fn reset(entries: Vec<Entry>) -> Input {
    Input::Registry(Event::Reset { revision: 1, all: entries })
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

/// Runs the driver over these inputs to their end.
struct World {
    catalog: Catalog,
    index: Index,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with(Rules::OFF)
    }

    fn with(rules: Rules) -> Self {
        let catalog = Catalog::with(rules);
        Self { catalog, index: Index::new(rules), now: Instant::now() }
    }

    fn say(&mut self, input: Input) {
        let before = self.catalog.status();
        let mut status = before.clone();
        let mut touched = Touched::default();
        take_in(&mut self.index, &mut status, &mut touched, input, self.now);
        self.index.pass(self.now, &mut touched);
        self.catalog.publish(&mut self.index, touched, &before, status);
    }
}

fn show(known: &Known) -> String {
    match known {
        Known::Syncing => "syncing".to_owned(),
        Known::Absent => "absent".to_owned(),
        Known::Present(snapshot) => {
            let all: Vec<_> = snapshot.endpoints.iter().map(|e| e.addr.to_string()).collect();
            format!("{} {}", snapshot.name, all.join(" "))
        }
    }
}

#[test]
fn nothing_is_concluded_before_the_first_reading() {
    let mut world = World::new();
    let mut waiting = world.catalog.subscribe(&target("hello")).unwrap();
    assert_eq!(show(&waiting.known.borrow_and_update()), "syncing");
    world.say(put(entry("hello", "10.0.0.1:80")));
    assert!(!waiting.known.has_changed().unwrap());
    assert_eq!(show(&world.catalog.lookup(&target("hello"))), "syncing");
    world.say(reset(vec![entry("other", "10.0.0.1:80")]));
    assert_eq!(show(&waiting.known.borrow_and_update()), "absent");
    assert_eq!(show(&world.catalog.lookup(&target("other"))), "other 10.0.0.1:80");
}

#[test]
fn a_client_that_came_first_hears_of_the_first_server() {
    let mut world = World::new();
    world.say(reset(Vec::new()));
    let mut early = world.catalog.subscribe(&target("game.dev.zone:443")).unwrap();
    assert_eq!(show(&early.known.borrow_and_update()), "absent");
    world.say(put(entry("dev/game", "10.0.0.1:80")));
    assert_eq!(show(&early.known.borrow_and_update()), "dev/game 10.0.0.1:80");
    world.say(delete(entry("dev/game", "10.0.0.1:80")));
    assert_eq!(show(&early.known.borrow_and_update()), "absent");
}

#[test]
fn an_exact_match_wins_and_case_folds_only_without_one() {
    let mut world = World::new();
    world.say(reset(vec![entry("Hello", "10.0.0.1:80")]));
    let mut lower = world.catalog.subscribe(&target("hello")).unwrap();
    assert_eq!(show(&lower.known.borrow_and_update()), "Hello 10.0.0.1:80");
    world.say(put(entry("hello", "10.0.0.2:80")));
    assert_eq!(show(&lower.known.borrow_and_update()), "hello 10.0.0.2:80");
    assert_eq!(show(&world.catalog.lookup(&target("Hello"))), "Hello 10.0.0.1:80");
    assert_eq!(show(&world.catalog.lookup(&target("HELLO"))), "Hello 10.0.0.1:80");
    world.say(delete(entry("hello", "10.0.0.2:80")));
    assert_eq!(show(&lower.known.borrow_and_update()), "Hello 10.0.0.1:80");
}

#[test]
fn only_what_differs_wakes_anyone() {
    let mut world = World::new();
    world.say(reset(vec![entry("hello", "10.0.0.1:80")]));
    let mut hello = world.catalog.subscribe(&target("hello")).unwrap();
    hello.known.mark_unchanged();
    world.say(put(entry("hello", "10.0.0.1:80")));
    world.say(put(entry("world", "10.0.0.1:80")));
    world.say(reset(vec![entry("hello", "10.0.0.1:80")]));
    let since = Instant::now();
    world.say(Input::Registry(Event::Stale { since, reason: "gone".into() }));
    assert!(!hello.known.has_changed().unwrap());
    assert!(world.catalog.status().stale.is_some());
    world.say(Input::Registry(Event::Apply { revision: 9, changes: Vec::new() }));
    assert_eq!((world.catalog.status().stale, world.catalog.status().revision), (None, 9));
    assert!(!hello.known.has_changed().unwrap());
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

#[test]
fn closing_ends_every_subscription() {
    let catalog = Catalog::new();
    let subscription = catalog.subscribe(&target("hello")).unwrap();
    catalog.close();
    assert!(subscription.known.has_changed().is_err());
    assert!(catalog.subscribe(&target("hello")).is_none());
}

#[test]
fn rejected_keys_are_listed_until_they_are_read() {
    let mut world = World::new();
    let rejected = Rejected { reason: "bad".into(), value: "?".into() };
    let key = Key::new(b"p/hello/a");
    let bad = Entry { key: key.clone(), meaning: Err(rejected.clone()), leased: true };
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
    let mut hello = catalog.subscribe(&target("hello")).unwrap();
    drive(inputs_rx, catalog.clone()).await;
    let Known::Present(snapshot) = hello.known.borrow_and_update().clone() else { panic!() };
    assert_eq!(snapshot.endpoints.len(), 5);
    assert_eq!(catalog.status().keys, 5);
}
