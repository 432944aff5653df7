//! Tests backends whose registrations are lost, and backends without a lease that refuse.

use std::net::IpAddr;

use super::*;
use crate::model::Endpoint;

#[test]
fn a_key_that_flaps_is_no_change() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=2)));
    let hello = world.catalog.subscribe(&target("hello")).unwrap();
    let version = hello.version();
    for _ in 0..3 {
        world.say(gone(many(1..=1), Cause::InDoubt));
        assert_eq!(world.catalog.liveness().held_len(), 1);
        world.say(put(many(1..=1).remove(0)));
        assert_eq!(*world.catalog.liveness(), Liveness::default());
    }
    assert_eq!(hello.version(), version);
}

#[test]
fn no_time_is_over_while_the_registry_is_stale() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=4)));
    // The registry came back empty, and was cut off before any backend had registered
    // again.
    world.say(reset(Vec::new()));
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (4, 4));
    let stale = |since| Input::Registry(Event::Stale { since, reason: "gone".into() });
    world.say(stale(world.now));
    world.now += RULES.keep_lost * 2;
    world.say(stale(world.now));
    assert_eq!(world.hello(), 4);
    assert_eq!(world.index.due(false), None, "nothing to wake up for");
    // Backends that are registered when the registry answers again stay. The time of the
    // others begins anew, because they may have been registered meanwhile.
    world.say(reset(many(1..=3)));
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (4, 1));
    world.now += RULES.keep_lost;
    world.say(Input::Registry(Event::Apply { revision: 9, changes: Vec::new() }));
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (3, 0));
}

#[test]
fn a_deregistration_is_obeyed_at_once_also_when_it_is_known_late() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=10)));
    world.say(gone(many(1..=1), Cause::Deregistered));
    assert_eq!(world.hello(), 9);
    world.say(gone(many(2..=9), Cause::InDoubt));
    assert_eq!(world.hello(), 9);
    world.say(gone(many(2..=9), Cause::Deregistered));
    assert_eq!(world.hello(), 1);
    assert_eq!(*world.catalog.liveness(), Liveness::default());
}

#[test]
fn a_sweep_is_obeyed_unless_it_takes_most_of_a_service() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=10)));
    world.say(gone(many(1..=3), Cause::Swept));
    assert_eq!(world.hello(), 7);
    world.say(gone(many(4..=10), Cause::Swept));
    assert_eq!(world.hello(), 7, "an accident, or so it seems");
    (4..=10).for_each(|port| world.say(Input::Probed(addr(port), ProbeResult::Refuses)));
    assert_eq!(world.hello(), 4);
    world.say(Input::Release("hello".to_owned(), Duration::ZERO));
    assert_eq!(world.hello(), 0);
    // A sweep that is known late, with the leases, has the same effect.
    let mut world = World::with(RULES);
    world.say(reset(many(1..=10)));
    world.say(gone(many(1..=3), Cause::InDoubt));
    world.say(gone(many(1..=3), Cause::Swept));
    assert_eq!(world.hello(), 7);
    world.say(gone(many(4..=10), Cause::InDoubt));
    world.say(gone(many(4..=10), Cause::Swept));
    assert_eq!(world.hello(), 7);
}

#[test]
fn a_sweep_over_keys_with_and_without_leases_is_one() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=10)));
    let delete = |ports: std::ops::RangeInclusive<u16>, cause| {
        many(ports).into_iter().map(move |entry| Change::Delete(entry.key, cause)).collect()
    };
    let mut changes: Vec<Change> = delete(1..=5, Cause::InDoubt);
    changes.extend::<Vec<_>>(delete(6..=10, Cause::Swept));
    world.say(Input::Registry(Event::Apply { revision: 3, changes }));
    assert_eq!(world.hello(), 10);
    world.say(gone(many(1..=5), Cause::Swept));
    assert_eq!(world.hello(), 10);
}

#[test]
fn losses_in_a_row_are_measured_by_what_was_before_the_first() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=10)));
    for port in 1..=10 {
        world.say(gone(many(port..=port), Cause::InDoubt));
        world.say(Input::Probed(addr(port), ProbeResult::Refuses));
        world.now += Duration::from_secs(20);
    }
    assert_eq!(world.hello(), 5);
}

#[test]
fn what_is_missing_at_a_new_reading_is_in_doubt_for_its_time() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=4)));
    world.say(reset(Vec::new()));
    assert_eq!((world.hello(), world.catalog.liveness().held_addresses.len()), (4, 4));
    world.now += RULES.keep_lost;
    world.say(Input::Registry(Event::Apply { revision: 9, changes: Vec::new() }));
    assert_eq!((world.hello(), world.catalog.liveness().held_addresses.len()), (0, 0));
}

#[test]
fn a_saved_state_serves_until_the_registry_is_read_and_then_is_in_doubt() {
    let mut world = World::with(RULES);
    let endpoint = |n| crate::model::Endpoint {
        id: format!("127.0.0.1:{n}").as_str().into(),
        addr: addr(n),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    };
    let services = vec![(ServiceName::new("hello").unwrap(), (1..=4).map(endpoint).collect())];
    let age = Duration::from_secs(60);
    world.say(Input::Restored(Restored { saved: "then".into(), age, services }));
    assert_eq!(world.catalog.status().restored.as_deref(), Some("then"));
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (4, 0));
    let hello = world.catalog.subscribe(&target("hello")).unwrap();
    let version = hello.version();
    world.say(reset(many(1..=3)));
    assert_eq!(hello.version(), version, "the same list");
    assert_eq!(world.catalog.status().restored, None);
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (4, 1));
    // The registry may have had it until this reading, so its time begins now.
    let nothing = || Input::Registry(Event::Apply { revision: 9, changes: Vec::new() });
    world.now += RULES.keep_lost - age;
    world.say(nothing());
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (4, 1));
    world.now += age;
    world.say(nothing());
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (3, 0));
}

/// Returns the ports as text: `+` listed and registered, `?` held.
fn ports(world: &World) -> String {
    let liveness = world.catalog.liveness();
    let Known::Present(snapshot) = world.catalog.lookup(&target("hello")) else {
        return String::new();
    };
    let text = |endpoint: &Endpoint| match liveness.held(&snapshot.name, endpoint.addr) {
        Some(_) => format!("?{}", endpoint.addr.port()),
        None => format!("+{}", endpoint.addr.port()),
    };
    let mut all: Vec<_> = snapshot.endpoints.iter().map(text).collect();
    all.sort_by(|a, b| a[1..].cmp(&b[1..]));
    all.join(" ")
}

/// Makes an entry of a key with an address, which may differ from its former one.
fn at(key: &str, port: u16) -> Entry {
    let entry = entry("hello", &format!("127.0.0.1:{port}"));
    Entry { key: Key::new(key.as_bytes()), ..entry }
}

fn read_again(entries: Vec<Entry>, went_back: bool) -> Input {
    Input::Registry(Event::Reset { revision: 1, all: entries, went_back })
}

#[test]
fn an_older_address_in_a_restored_store_takes_the_living_one_out_of_no_list() {
    for (went_back, expected) in [(true, "+1 ?2 +3"), (false, "+1 +3")] {
        let mut world = World::with(RULES);
        world.say(reset(vec![at("a", 2), at("b", 3)]));
        world.say(read_again(vec![at("a", 1), at("b", 3)], went_back));
        assert_eq!(ports(&world), expected);
        let liveness = world.catalog.liveness();
        assert_eq!(liveness.held_addresses.contains(&addr(2)), went_back, "it is probed");
    }
    let mut world = World::with(RULES);
    world.say(reset(vec![at("a", 2), at("b", 3)]));
    world.say(read_again(vec![at("a", 1), at("b", 3)], true));
    // A second reading changes nothing, and neither does a change of another key.
    world.say(read_again(vec![at("a", 1), at("b", 3)], false));
    world.say(put(at("b", 4)));
    assert_eq!(ports(&world), "+1 ?2 +4");
    world.say(Input::Probed(addr(2), ProbeResult::Takes));
    // Its owner writes the key again.
    world.say(put(at("a", 2)));
    assert_eq!(ports(&world), "+2 +4");
    // A dead one leaves after one probe.
    world.say(read_again(vec![at("a", 1), at("b", 4)], true));
    world.say(Input::Probed(addr(2), ProbeResult::Refuses));
    assert_eq!(ports(&world), "+1 +4");
    // A key that no longer registers anything, and one that is rejected.
    let nothing = Entry { decoded: Ok(Vec::new().into()), ..at("a", 1) };
    let rejected = Rejected { reason: "bad".into(), value: "?".into() };
    let bad = Entry { decoded: Err(rejected), ..at("b", 4) };
    world.say(read_again(vec![nothing, bad], true));
    assert_eq!(ports(&world), "?1 +4");
}

const PROBING: Rules = Rules { probe_unleased: Duration::from_secs(30), ..RULES };

fn unleased(entry: Entry) -> Entry {
    Entry { leased: false, ..entry }
}

/// Makes three backends without a lease, of which one is down.
fn with_one_down() -> World {
    let mut world = World::with(PROBING);
    world.say(reset((1..=3).map(|n| unleased(at(&n.to_string(), n))).collect()));
    assert_eq!(world.catalog.liveness().unleased.len(), 3);
    (0..3).for_each(|_| world.say(Input::Probed(addr(1), ProbeResult::Refuses)));
    assert_eq!(ports(&world), "+2 +3");
    assert_eq!(world.catalog.liveness().down.values().map(Vec::len).sum::<usize>(), 1);
    world
}

#[test]
fn who_gains_a_lease_or_registers_anew_is_listed_at_once() {
    let all = "+1 +2 +3";
    // The key gets a lease.
    let mut world = with_one_down();
    world.say(put(at("1", 1)));
    assert_eq!(ports(&world), all);
    let liveness = world.catalog.liveness();
    assert_eq!((liveness.down.len(), liveness.unleased.contains_key(&addr(1))), (0, false));
    (0..9).for_each(|_| world.say(Input::Probed(addr(1), ProbeResult::Refuses)));
    assert_eq!(ports(&world), all, "no probe takes one with a lease away");
    // The key loses its lease again: the address is probed from then on.
    world.say(put(unleased(at("1", 1))));
    assert!(world.catalog.liveness().unleased.contains_key(&addr(1)));
    assert_eq!(ports(&world), all);
    // Another key with a lease has the address.
    let mut world = with_one_down();
    world.say(put(at("other", 1)));
    assert_eq!(ports(&world), all);
    // A key of another service counts too, because a process is alive there.
    let mut world = with_one_down();
    world.say(put(entry("world", "127.0.0.1:1")));
    assert_eq!(ports(&world), all);
    // The key was read again with a lease.
    let mut world = with_one_down();
    world.say(reset(vec![at("1", 1), unleased(at("2", 2)), unleased(at("3", 3))]));
    assert_eq!(ports(&world), all);
    // The backend deregistered and registered anew.
    let mut world = with_one_down();
    world.say(delete(at("1", 1)));
    world.say(put(unleased(at("1", 1))));
    assert_eq!(ports(&world), all);
    // But a registrant that writes the same value again proves nothing.
    let mut world = with_one_down();
    world.say(put(unleased(at("1", 1))));
    assert_eq!(ports(&world), "+2 +3");
    let heavier = |mut entry: Entry| {
        entry.decoded.as_mut().unwrap().registrations[0].weight = Weight(7);
        entry
    };
    world.say(put(unleased(heavier(at("1", 1)))));
    assert_eq!(ports(&world), "+2 +3");
}

/// Makes three keys of host names, each of which has five addresses.
fn with_host_names() -> World {
    let mut world = World::with(RULES);
    let key = |n: u8| Entry {
        key: Key::new(format!("k{n}").as_bytes()),
        ..entry("hello", &format!("h{n}.local:80"))
    };
    world.say(reset((1..=3).map(key).collect()));
    for n in 1..=3_u8 {
        let addresses = (1..=5).map(|m| IpAddr::from([10, 0, n, m])).collect();
        world.say(Input::Hosts(Resolved { host: format!("h{n}.local"), addresses, trouble: None }));
    }
    assert_eq!(world.hello(), 15);
    world
}

#[test]
fn a_host_name_that_returns_takes_nothing_away_before_its_addresses_are_known() {
    let mut world = with_host_names();
    let key = Entry { key: Key::new(b"k1"), ..entry("hello", "h1.local:80") };
    let known = |last: u8| {
        let addresses = (1..=5).map(|m| IpAddr::from([10, 0, last, m])).collect();
        Input::Hosts(Resolved { host: "h1.local".to_owned(), addresses, trouble: None })
    };
    let held = |world: &World| world.catalog.liveness().held_len();
    for last in [1, 4] {
        world.say(gone(vec![key.clone()], Cause::InDoubt));
        world.say(put(key.clone()));
        assert_eq!((world.hello(), held(&world)), (15, 5));
        // DNS does not answer yet.
        let trouble = Some("no answer".to_owned());
        let host = "h1.local".to_owned();
        world.say(Input::Hosts(Resolved { host, addresses: Vec::new(), trouble }));
        assert_eq!((world.hello(), held(&world)), (15, 5));
        world.say(known(last));
        assert_eq!((world.hello(), held(&world)), (15, 0));
    }
    // A name that means nothing takes nothing away either, but for as long as backends are
    // held.
    world.say(gone(vec![key.clone()], Cause::InDoubt));
    world.say(put(key));
    world.now += RULES.keep_lost;
    world.say(Input::Registry(Event::Apply { revision: 9, changes: Vec::new() }));
    assert_eq!((world.hello(), held(&world)), (10, 0));
}

#[test]
fn a_key_that_returns_with_a_wrong_value_takes_nothing_away() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=2)));
    world.say(gone(many(1..=1), Cause::InDoubt));
    let mut wrong = many(1..=1).remove(0);
    wrong.decoded = Err(crate::registry::Rejected { reason: "bad".into(), value: "?".into() });
    world.say(put(wrong));
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (2, 1));
    world.say(gone(many(1..=1), Cause::Deregistered));
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (1, 0));
}

fn sweep(keys: &[&str]) -> Input {
    let gone = |key: &&str| Change::Delete(Key::new(key.as_bytes()), Cause::Swept);
    Input::Registry(Event::Apply { revision: 3, changes: keys.iter().map(gone).collect() })
}

#[test]
fn a_sweep_counts_backends_on_both_sides() {
    let mut world = with_host_names();
    world.say(sweep(&["k1", "none"]));
    assert_eq!(world.hello(), 10, "ten of fifteen are enough");
    world.say(sweep(&["k2", "k3"]));
    assert_eq!((world.hello(), world.catalog.liveness().held_len()), (10, 10));
    // Five that deregistered do not count as missing, so all five lost ones leave.
    let mut world = with_host_names();
    world.say(gone(vec![Entry { key: Key::new(b"k1"), ..at("k1", 1) }], Cause::InDoubt));
    world.say(gone(vec![Entry { key: Key::new(b"k2"), ..at("k2", 1) }], Cause::Deregistered));
    for m in 1..=5 {
        let addr = BackendAddr::new(IpAddr::from([10, 0, 1, m]), 80).unwrap();
        world.say(Input::Probed(addr, ProbeResult::Refuses));
    }
    assert_eq!(world.hello(), 5, "half of ten");
    // Two keys have one address: the deletion of one of them removes no backend.
    let mut world = World::with(RULES);
    world.say(reset(vec![at("a", 1), at("b", 1), at("c", 2)]));
    world.say(sweep(&["a", "c"]));
    assert_eq!(ports(&world), "+1");
}

#[test]
fn what_a_host_name_no_longer_means_is_not_missed() {
    let mut world = with_host_names();
    world.say(gone(vec![Entry { key: Key::new(b"k1"), ..at("k1", 1) }], Cause::InDoubt));
    for n in 2..=3_u8 {
        let addresses = vec![IpAddr::from([10, 0, n, 1])];
        world.say(Input::Hosts(Resolved { host: format!("h{n}.local"), addresses, trouble: None }));
    }
    assert_eq!(world.hello(), 7);
    for m in 1..=5 {
        let addr = BackendAddr::new(IpAddr::from([10, 0, 1, m]), 80).unwrap();
        world.say(Input::Probed(addr, ProbeResult::Refuses));
    }
    assert_eq!(world.hello(), 4, "half of the seven that are left");
}
