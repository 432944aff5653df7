//! Tests settings that change while services are served.

use super::*;
use crate::settings::{Document, ServiceSettings, WhenEmpty};

fn settle(world: &mut World, document: &str) {
    let document = Document::parse(document).unwrap();
    let settings = world.catalog.settings().with(None, Some(Arc::new(document)));
    world.say(Input::Settings(Arc::new(settings)));
}

fn version(world: &World, name: &str) -> u64 {
    match world.catalog.lookup(&target(name)) {
        Known::Present(service) => service.version,
        _ => 0,
    }
}

fn in_force(world: &World, name: &str) -> ServiceSettings {
    (**world.catalog.lookup(&target(name)).settings().unwrap()).clone()
}

#[test]
fn a_service_whose_settings_change_is_published_and_no_other() {
    let mut world = World::new();
    world.say(reset(vec![entry("dev/game", "10.0.0.1:80"), entry("hello", "10.0.0.2:80")]));
    let absent = world.catalog.subscribe(&target("nobody")).unwrap();
    let game = world.catalog.subscribe(&target("game.dev")).unwrap();
    let hello = world.catalog.subscribe(&target("hello")).unwrap();
    let before = (version(&world, "game.dev"), version(&world, "hello"));
    let told = |all: [&Subscription; 3]| all.map(Subscription::version);
    let first = told([&absent, &game, &hello]);
    let Known::Present(old) = game.known() else { panic!("it is there") };

    settle(&mut world, "[service.'dev/*']\nwhen-empty = 'drop'\n[service.nobody]\nguard = 1\n");
    assert!(version(&world, "game.dev") > before.0);
    assert_eq!(version(&world, "hello"), before.1);
    let second = told([&absent, &game, &hello]);
    assert_eq!(second, [first[0] + 1, first[1] + 1, first[2]]);
    let Known::Present(new) = game.known() else { panic!("it is there") };
    assert!(Arc::ptr_eq(&old.snapshot, &new.snapshot), "nothing was gathered anew");
    assert_eq!(in_force(&world, "game.dev").when_empty, WhenEmpty::Drop);
    assert_eq!((in_force(&world, "nobody").guard, in_force(&world, "other").guard), (1, 0));
    // Equal settings change nothing.
    settle(&mut world, "[service.'*.dev']\nwhen-empty = 'drop'\n[service.NOBODY]\nguard = 1\n");
    assert_eq!(told([&absent, &game, &hello]), second);
    // A service that comes later gets its settings, and changes of services keep them.
    world.say(put(entry("dev/new", "10.0.0.3:80")));
    assert_eq!(in_force(&world, "new.dev").when_empty, WhenEmpty::Drop);
    settle(&mut world, "");
    assert_eq!(in_force(&world, "game.dev").when_empty, WhenEmpty::Wait);
    assert_eq!(told([&absent, &game, &hello]), [second[0] + 1, second[1] + 1, second[2]]);
}

#[test]
fn settings_come_before_the_registry_too() {
    let mut world = World::new();
    settle(&mut world, "[service.hello]\nwhen-empty = 'fallback'\n");
    let subscription = world.catalog.subscribe(&target("hello")).unwrap();
    assert_eq!(subscription.known(), Known::Syncing);
    world.say(reset(vec![entry("hello", "10.0.0.2:80")]));
    assert_eq!(in_force(&world, "hello").when_empty, WhenEmpty::Fallback);
}

#[test]
fn a_service_keeps_what_it_lost_by_its_own_rules() {
    let mut world = World::with(RULES);
    world.say(reset(vec![entry("a", "10.0.0.1:80"), entry("b", "10.0.0.2:80")]));
    settle(&mut world, "[service.b]\nkeep-lost = '0s'\n");
    let lost = |name: &str, addr: &str| Change::Delete(entry(name, addr).key, Cause::InDoubt);
    let changes = vec![lost("a", "10.0.0.1:80"), lost("b", "10.0.0.2:80")];
    world.say(Input::Registry(Event::Apply { revision: 3, changes }));
    let listed = |world: &World, name: &str| version(world, name) > 0;
    assert!(listed(&world, "a") && !listed(&world, "b"));
    // A shorter time applies to backends that are held already, and so does a longer one.
    settle(&mut world, "[service.a]\nkeep-lost = '1m'\n");
    world.now += Duration::from_secs(59);
    world.say(Input::Registry(Event::Apply { revision: 4, changes: Vec::new() }));
    assert!(listed(&world, "a"));
    settle(&mut world, "[service.a]\nkeep-lost = '2m'\n");
    world.now += Duration::from_secs(60);
    world.say(Input::Registry(Event::Apply { revision: 5, changes: Vec::new() }));
    assert!(listed(&world, "a"));
    settle(&mut world, "[service.a]\nkeep-lost = '90s'\n");
    assert!(!listed(&world, "a"));
    assert_eq!(world.catalog.liveness().held_len(), 0);
}

#[test]
fn the_guard_of_a_service_is_its_own() {
    let mut world = World::with(RULES);
    let all = ["10.0.0.1:80", "10.0.0.2:80"].map(|addr| [entry("a", addr), entry("b", addr)]);
    let all = all.concat();
    let gone = |entry: &Entry| Change::Delete(entry.key.clone(), Cause::InDoubt);
    let changes = all.iter().map(gone).collect();
    world.say(reset(all));
    settle(&mut world, "[service.a]\nguard = 100\n");
    world.say(Input::Registry(Event::Apply { revision: 3, changes }));
    for n in [1, 2] {
        let addr = BackendAddr::new([10, 0, 0, n].into(), 80).unwrap();
        world.say(Input::Probed(addr, ProbeResult::Refuses));
    }
    let listed = |world: &World, name: &str| match world.catalog.lookup(&target(name)) {
        Known::Present(service) => service.endpoints.len(),
        _ => 0,
    };
    assert_eq!((listed(&world, "a"), listed(&world, "b")), (2, 1));
    // A dead backend leaves as soon as the guard allows it.
    settle(&mut world, "[service.a]\nguard = 50\n[service.b]\nguard = 0\n");
    assert_eq!((listed(&world, "a"), listed(&world, "b")), (1, 0));
}

#[test]
fn backends_without_a_lease_are_probed_where_their_service_says_so() {
    let mut world = World::with(RULES);
    let mut all =
        vec![entry("a", "10.0.0.1:80"), entry("b", "10.0.0.2:80"), entry("b", "10.0.0.1:80")];
    all.iter_mut().for_each(|entry| entry.leased = false);
    world.say(reset(all));
    assert!(world.catalog.liveness().unleased.is_empty());
    let probed = |world: &World| {
        let all = world.catalog.liveness().unleased.clone();
        all.iter().map(|(addr, every)| (addr.to_string(), every.as_secs())).collect::<Vec<_>>()
    };
    settle(&mut world, "[service.a]\nprobe-unleased = '30s'\n");
    assert_eq!(probed(&world), [("10.0.0.1:80".to_owned(), 30)]);
    settle(
        &mut world,
        "[service.'*']\nprobe-unleased = '20s'\n[service.a]\nprobe-unleased = '30s'\n",
    );
    let both = [("10.0.0.1:80".to_owned(), 20), ("10.0.0.2:80".to_owned(), 20)];
    assert_eq!(probed(&world), both);
    settle(&mut world, "");
    assert!(probed(&world).is_empty());
}
