//! Tests health checks that change while services are served.

use super::*;
use crate::settings::{HealthKind, ServiceSettings};

fn settings(world: &mut World, change: impl FnOnce(&mut ServiceSettings)) {
    let mut settings = ServiceSettings::DEFAULT;
    change(&mut settings);
    world.say(Input::Settings(settings.into()));
}

fn service(world: &World) -> Arc<Service> {
    match world.catalog.lookup(&target("hello")) {
        Known::Present(service) => service,
        other => panic!("{other:?}"),
    }
}

/// Lets a backend answer the only check that there is of it.
fn say(world: &mut World, address: &str, answer: HealthAnswer) {
    let targets = world.catalog.watch_health_targets().borrow().clone();
    let of = |target: &&HealthTarget| target.addr.to_string() == address;
    let target = targets.all.iter().find(of).expect("it is checked").clone();
    world.say(Input::HealthChecked(target, answer));
}

fn hello() -> World {
    let mut world = World::new();
    let all = (1..=4).map(|n| entry("hello", &format!("10.0.0.{n}:80")));
    world.say(reset(all.collect()));
    world
}

#[tokio::test(start_paused = true)]
async fn only_verdicts_are_published_and_only_where_settings_ask() {
    let mut world = hello();
    let subscription = world.catalog.subscribe(&target("hello")).unwrap();
    let targets = world.catalog.watch_health_targets();
    assert_eq!(targets.borrow().all.len(), 0);
    settings(&mut world, |settings| settings.health.kind = HealthKind::Grpc);
    assert_eq!(targets.borrow().all.len(), 4, "checks begin although no backend changes");
    let before = subscription.version();
    say(&mut world, "10.0.0.1:80", HealthAnswer::Serving);
    say(&mut world, "10.0.0.2:80", HealthAnswer::Silent);
    assert_eq!((subscription.version(), service(&world).facts.health.clone()), (before, None));
    say(&mut world, "10.0.0.2:80", HealthAnswer::Silent);
    assert_eq!(subscription.version(), before + 1);
    let health = service(&world).facts.health.clone().unwrap();
    assert_eq!((health.unhealthy.len(), health.panic), (1, false));
    say(&mut world, "10.0.0.2:80", HealthAnswer::Refuses);
    assert_eq!(subscription.version(), before + 1, "the verdict is the same");
    // Marks and other settings keep it.
    settings(&mut world, |settings| {
        settings.health.kind = HealthKind::Grpc;
        settings.guard = 1;
    });
    assert!(service(&world).facts.health.is_some());
    // Panic comes and goes by itself.
    say(&mut world, "10.0.0.3:80", HealthAnswer::NotServing);
    say(&mut world, "10.0.0.4:80", HealthAnswer::NotServing);
    assert!(service(&world).facts.health.clone().unwrap().panic);
    say(&mut world, "10.0.0.3:80", HealthAnswer::Serving);
    say(&mut world, "10.0.0.4:80", HealthAnswer::Serving);
    let panic = |world: &World| service(world).facts.health.as_ref().is_some_and(|one| one.panic);
    let begun = world.now;
    while panic(&world) {
        let due = world.publisher.due().expect("panic ends without an input");
        tokio::time::advance(due.saturating_duration_since(crate::clock::now())).await;
        world.now = crate::clock::now();
        world.say(Input::Registry(Event::Apply { revision: 3, changes: Vec::new() }));
    }
    let lasted = world.now.saturating_duration_since(begun);
    assert!((19..22).contains(&lasted.as_secs()), "two intervals, not {lasted:?}");
    assert_eq!(service(&world).facts.health.as_ref().map(|health| health.unhealthy.len()), Some(1));
    settings(&mut world, |_| {});
    assert_eq!(service(&world).facts.health, None);
    assert_eq!(targets.borrow().all.len(), 0);
}

#[test]
fn a_backend_that_was_out_for_long_starts_slowly() {
    let mut world = hello();
    settings(&mut world, |settings| {
        settings.health.kind = HealthKind::Tcp;
        settings.slow_start = Duration::from_secs(60);
    });
    say(&mut world, "10.0.0.1:80", HealthAnswer::Refuses);
    say(&mut world, "10.0.0.1:80", HealthAnswer::Refuses);
    world.now += Duration::from_secs(31);
    say(&mut world, "10.0.0.1:80", HealthAnswer::Alive);
    let starting = service(&world).facts.newcomers.clone().expect("it starts");
    assert_eq!(starting.starting.len(), 1);
    assert_eq!(service(&world).facts.health, None);
}
