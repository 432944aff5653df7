//! Tests ramps that run while services are served.

use super::*;
use crate::facts::factor::Factor;
use crate::settings::Document;

fn share(world: &World) -> Option<u32> {
    let Known::Present(service) = world.catalog.lookup(&target("hello")) else { return None };
    service.split().map(|split| split.share.as_millionths() / 10_000)
}

fn settle(world: &mut World, document: &str) {
    let document = Document::parse(document).unwrap();
    let settings = world.catalog.settings().with(None, Some(Arc::new(document)));
    world.say(Input::Settings(Arc::new(settings)));
}

/// Returns a ramp of steps of a minute, which began so many seconds ago.
fn ramp(ago: u64) -> String {
    let begins = std::time::UNIX_EPOCH + crate::clock::wall() - Duration::from_secs(ago);
    let begins = humantime::format_rfc3339_seconds(begins);
    let steps = "1% 1m, 5% 1m, 100%";
    format!("[service.hello.split]\nselect = 'version=v2'\nramp = '{steps}'\nbegins = '{begins}'\n")
}

#[test]
fn a_service_has_the_share_of_its_ramp() {
    let mut world = World::new();
    settle(&mut world, &ramp(70));
    // A service that comes later has it too, and keeps it whatever changes.
    world.say(reset(vec![entry("hello", "10.0.0.1:80"), entry("other", "10.0.0.2:80")]));
    assert_eq!(share(&world), Some(5));
    world.say(put(entry("hello", "10.0.0.3:80")));
    assert_eq!(share(&world), Some(5));
    let subscription = world.catalog.subscribe(&target("hello")).unwrap();
    let version = subscription.version();
    settle(&mut world, &ramp(10));
    assert_eq!((share(&world), subscription.version()), (Some(1), version + 1));
    assert!(world.publisher.due().is_some(), "it waits for its next step");
    for (ago, expected) in [(0, 1), (130, 100), (70, 5)] {
        settle(&mut world, &ramp(ago));
        assert_eq!(share(&world), Some(expected));
    }
    settle(&mut world, "[service.hello]\nsplit = { select = 'version=v2', percent = 7 }\n");
    assert_eq!((share(&world), world.publisher.due()), (Some(7), None));
    settle(&mut world, "");
    assert_eq!(share(&world), None);
}

/// The wall clock of this test is the time since its start, from a moment just before the
/// second step.
fn wall() -> Duration {
    use std::sync::OnceLock;
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    Duration::from_secs(1_000_058) + START.get_or_init(tokio::time::Instant::now).elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_step_is_published_when_its_moment_comes() {
    let catalog = Catalog::new();
    let (inputs, inputs_rx) = mpsc::channel(8);
    tokio::spawn(drive(inputs_rx, catalog.clone(), wall));
    let begins = "1970-01-12T13:46:40Z";
    let text = format!(
        "[service.hello.split]\nselect = 'version=v2'\nramp = '1% 1m, 5% 1m, 100%'\n\
         begins = '{begins}'\n"
    );
    let settings = catalog.settings().with(None, Some(Arc::new(Document::parse(&text).unwrap())));
    inputs.send(Input::Settings(Arc::new(settings))).await.unwrap();
    inputs.send(reset(vec![entry("hello", "10.0.0.1:80")])).await.unwrap();
    let mut changes = catalog.watch_changes();
    let mut seen = Vec::new();
    while seen.last() != Some(&Factor::ONE) {
        changes.changed().await.unwrap();
        if let Known::Present(service) = catalog.lookup(&target("hello")) {
            seen.push(service.facts.ramp_share.unwrap());
        }
    }
    let expected = [10_000, 50_000, 1_000_000].map(Factor::millionths);
    assert_eq!(seen, expected);
    assert!(wall() < Duration::from_secs(1_000_121));
}
