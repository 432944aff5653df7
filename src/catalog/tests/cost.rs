//! Tests the cost of inputs by counting, or by the processor time of the thread.

use rustix::time::{ClockId, clock_gettime};

use super::*;

/// Makes a service of `count` backends, all of which are held.
fn held(count: u16) -> World {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=count)));
    world.say(gone(many(1..=count), Cause::InDoubt));
    assert_eq!(world.catalog.liveness().held_len(), usize::from(count));
    world
}

#[test]
fn an_answer_of_a_probe_makes_no_snapshot_unless_somebody_goes() {
    let mut world = held(400);
    let before = world.index.snapshots;
    for port in 1..=400 {
        world.say(Input::Probed(addr(port), ProbeResult::Takes));
    }
    assert_eq!(world.index.snapshots, before);
    let held = world.catalog.liveness().held.values().next().unwrap().clone();
    assert!(held.values().all(|held| held.answer == Some(ProbeResult::Takes)));
    // Half must stay, dead or not.
    for port in 1..=400 {
        world.say(Input::Probed(addr(port), ProbeResult::Refuses));
    }
    assert_eq!(world.hello(), 200);
    assert_eq!(world.index.snapshots, before + 200);
    // The removed backends are forgotten later, and that changes no list.
    world.now += Duration::from_secs(60);
    world.say(Input::Registry(Event::Apply { revision: 9, changes: Vec::new() }));
    assert_eq!(world.index.snapshots, before + 200);
}

#[test]
fn an_answer_that_says_the_same_again_changes_nothing_that_is_shown() {
    let mut world = held(100);
    world.say(Input::Probed(addr(1), ProbeResult::Takes));
    let mut liveness = world.catalog.watch_liveness();
    liveness.mark_unchanged();
    world.say(Input::Probed(addr(1), ProbeResult::Takes));
    assert!(!liveness.has_changed().unwrap());
    world.say(Input::Probed(addr(2), ProbeResult::Takes));
    assert!(liveness.has_changed().unwrap());
}

#[test]
fn a_loss_that_changes_no_list_makes_no_snapshot() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=100)));
    let before = world.index.snapshots;
    for port in 1..=100 {
        world.say(gone(many(port..=port), Cause::InDoubt));
    }
    assert_eq!((world.index.snapshots, world.hello()), (before, 100));
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_of_a_large_service_costs_a_few_snapshots() {
    let mut world = World::with(RULES);
    world.say(reset(many(1..=2_000)));
    let before = world.index.snapshots;
    for port in 2_001..=2_100_u16 {
        world.say(put(entry("hello", &format!("127.0.0.1:{port}"))));
        world.say(put(entry("small", &format!("127.0.0.1:{port}"))));
        let Known::Present(small) = world.catalog.lookup(&target("small")) else { panic!() };
        assert_eq!(small.endpoints.len(), usize::from(port - 2_000), "it waits for nothing");
        tokio::time::advance(Duration::from_micros(100)).await;
    }
    let large = world.index.snapshots - before - 100;
    assert!(large <= 3, "{large} snapshots of the large service in 10 ms");
    let due = world.publisher.due().unwrap();
    tokio::time::advance(due - clock::now()).await;
    world.say(Input::Registry(Event::Apply { revision: 9, changes: Vec::new() }));
    assert_eq!((world.hello(), world.publisher.due()), (2_100, None));
}

/// Returns the processor time of this thread, which other programs do not lengthen.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// The cost grows with the number of lost backends, however large their services are. If
/// one of the causes of quadratic cost came back, it would be twenty times as much here.
#[test]
fn the_loss_of_one_large_service_costs_what_that_of_many_small_ones_does() {
    const COUNT: u16 = 4_000;
    let all = |services: u16| -> Vec<Entry> {
        let one = |n| entry(&format!("s{:03}", n % services), &format!("127.0.0.1:{n}"));
        (1..=COUNT).map(one).collect()
    };
    let time = |services, cause| {
        let mut world = World::with(RULES);
        world.say(reset(all(services)));
        // Deregistered after it was lost, as by a deletion of the prefix.
        if cause == Cause::Deregistered {
            world.say(gone(all(services), Cause::InDoubt));
        }
        let input = gone(all(services), cause);
        let begun = thread_time();
        world.say(input);
        thread_time() - begun
    };
    for cause in [Cause::InDoubt, Cause::Deregistered, Cause::Swept] {
        let least = |services| (0..2).map(|_| time(services, cause)).min().unwrap();
        let (large, small) = (least(1), least(40));
        assert!(large < small * 5, "{cause:?}: {large:?}, and {small:?} over 40 services");
    }
}
