//! Tests marks that change while services are served.

use super::*;
use crate::marks::{Mark, MarkKey, Marks, Value};

fn mark(world: &mut World, all: &[&str]) {
    let one = |below: &&str| {
        let key = MarkKey::parse(below).unwrap();
        Arc::new(Mark { key, value: Value::default() })
    };
    world.say(Input::Marks(Arc::new(Marks::new(all.iter().map(one)))));
}

fn service(world: &World, name: &str) -> Arc<Service> {
    match world.catalog.lookup(&target(name)) {
        Known::Present(service) => service,
        other => panic!("{other:?}"),
    }
}

/// Returns how many backends of a service are drained.
fn drained(world: &World, name: &str) -> usize {
    let service = service(world, name);
    service.endpoints.iter().filter(|one| service.marks.drain(one).is_some()).count()
}

#[test]
fn a_mark_is_published_to_those_whom_it_concerns() {
    let mut world = World::new();
    world.say(reset(vec![entry("dev/game", "10.0.0.1:80"), entry("hello", "10.0.0.2:80")]));
    let game = world.catalog.subscribe(&target("game.dev")).unwrap();
    let hello = world.catalog.subscribe(&target("hello")).unwrap();
    let told = || (game.version(), hello.version());
    let (first, before) = (told(), service(&world, "game.dev"));
    mark(&mut world, &["drain/game.dev/10.0.0.1:80"]);
    assert_eq!(told(), (first.0 + 1, first.1));
    assert_eq!((drained(&world, "game.dev"), drained(&world, "hello")), (1, 0));
    let after = service(&world, "game.dev");
    assert!(Arc::ptr_eq(&before.snapshot, &after.snapshot) && after.version > before.version);
    // Equal marks change nothing, and neither does a mark for a service that does not
    // exist.
    mark(&mut world, &["drain/game.dev/10.0.0.1:80", "drain/nobody/x"]);
    assert_eq!(told(), (first.0 + 1, first.1));
    // A service that changes keeps its marks, and a service that comes later gets its
    // own.
    world.say(put(entry("dev/game", "10.0.0.3:80")));
    assert_eq!(drained(&world, "game.dev"), 1);
    world.say(put(entry("nobody", "10.0.0.4:80")));
    assert_eq!(drained(&world, "nobody"), 0);
    mark(&mut world, &["drain/*/10.0.0.2"]);
    assert_eq!((drained(&world, "game.dev"), drained(&world, "hello")), (0, 1));
    mark(&mut world, &[]);
    assert_eq!((drained(&world, "game.dev"), drained(&world, "hello")), (0, 0));
}

#[test]
fn marks_come_before_the_registry_too() {
    let mut world = World::new();
    mark(&mut world, &["drain/hello/10.0.0.2"]);
    let subscription = world.catalog.subscribe(&target("hello")).unwrap();
    assert_eq!(subscription.known(), Known::Syncing);
    world.say(reset(vec![entry("hello", "10.0.0.2:80")]));
    assert_eq!(drained(&world, "hello"), 1);
}

#[test]
fn a_release_is_about_what_was_lost_before_it() {
    let mut world = World::with(RULES);
    world.say(reset(vec![entry("hello", "10.0.0.1:80"), entry("other", "10.0.0.2:80")]));
    let lost = |name: &str, addr: &str| Change::Delete(entry(name, addr).key, Cause::InDoubt);
    let changes = vec![lost("hello", "10.0.0.1:80"), lost("other", "10.0.0.2:80")];
    world.say(Input::Registry(Event::Apply { revision: 3, changes }));
    world.now += Duration::from_secs(60);
    // The registry is read again. The loss still counts from when it began.
    world.say(reset(Vec::new()));
    let is_there =
        |world: &World| matches!(world.catalog.lookup(&target("hello")), Known::Present(_));
    world.say(Input::Release("hello".to_owned(), Duration::from_secs(61)));
    assert!(is_there(&world), "it was released before it was lost");
    world.say(Input::Release("hello".to_owned(), Duration::from_secs(59)));
    assert!(!is_there(&world));
    assert_eq!(service(&world, "other").endpoints.len(), 1);
}
