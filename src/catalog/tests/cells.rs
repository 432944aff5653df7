//! Tests the cells and the overload of services, which settings and reports change.

use super::*;
use crate::facts::capacity::Report;
use crate::facts::overload::CallRates;
use crate::settings::Document;

fn settle(world: &mut World, document: &str) {
    let document = Document::parse(document).unwrap();
    let settings = world.catalog.settings().with(None, Some(Arc::new(document)));
    world.say(Input::Settings(Arc::new(settings)));
}

fn service(world: &World, name: &str) -> Arc<Service> {
    match world.catalog.lookup(&target(name)) {
        Known::Present(service) => service,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cells_follow_settings_and_the_number_of_backends() {
    let mut world = World::new();
    let named = |n: usize| entry("large", &format!("10.0.{}.{}:80", n / 250, n % 250 + 1));
    let all = |count: usize| (0..count).map(named).chain([entry("small", "10.1.0.1:80")]).collect();
    world.say(reset(all(300)));
    let sizes = |world: &World| {
        let facts = service(world, "large").facts.clone();
        let cells = facts.cells?;
        let sizes: Vec<_> = cells.groups.values().map(|size| (size.bits, size.peak)).collect();
        Some((sizes, facts.placed))
    };
    assert_eq!(sizes(&world), None);
    settle(&mut world, "[service.'*']\nsubset.mode = 'cells'\n");
    assert_eq!(sizes(&world), Some((vec![(3, 300)], 0)));
    assert_eq!(service(&world, "small").facts.cells, None, "it is too small");
    let [version, small] = ["large", "small"].map(|name| service(&world, name).version);
    world.say(Input::Placed(ServiceName::new("large").unwrap()));
    world.say(Input::Placed(ServiceName::new("small").unwrap()));
    assert_eq!(sizes(&world), Some((vec![(3, 300)], 1)));
    assert!(service(&world, "large").version > version);
    assert_eq!(service(&world, "small").version, small, "it is not divided");
    // Backends that are away for a while change no cell.
    world.say(reset(all(250)));
    assert_eq!(sizes(&world), Some((vec![(3, 300)], 1)));
    settle(&mut world, "[service.'*']\nsubset = { mode = 'cells', least = 128 }\n");
    assert_eq!(sizes(&world), None, "they are no four cells of 128");
    // Keys that move are a new value too, where they are bounded.
    settle(&mut world, "[service.small]\nhash.balance-factor = 125\n");
    assert_eq!(sizes(&world), None);
    for (name, placed) in [("large", 0), ("small", 1)] {
        world.say(Input::Placed(ServiceName::new(name).unwrap()));
        assert_eq!(service(&world, name).facts.placed, placed);
    }
}

/// The wall clock of this test is the time since its start.
fn wall() -> Duration {
    use std::sync::OnceLock;
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    START.get_or_init(tokio::time::Instant::now).elapsed()
}

#[tokio::test(start_paused = true)]
async fn cells_change_by_the_wall_clock_without_an_input() {
    let catalog = Catalog::new();
    let (inputs, inputs_rx) = mpsc::channel(8);
    tokio::spawn(drive(inputs_rx, catalog.clone(), wall));
    let document = Document::parse("[service.'*']\nsubset.mode = 'cells'\n").unwrap();
    let settings = catalog.settings().with(None, Some(Arc::new(document)));
    inputs.send(Input::Settings(Arc::new(settings))).await.unwrap();
    let all =
        |count: usize| (0..count).map(|n| entry("large", &format!("10.0.0.{n}:80"))).collect();
    let hears = async |count: usize| inputs.send(reset(all(count))).await.unwrap();
    let cells = || match catalog.lookup(&target("large")) {
        Known::Present(service) => {
            let cells = service.facts.cells.as_ref();
            cells.map_or((1, 0), |cells| {
                let size = cells.groups.values().next().unwrap();
                (1 << size.bits, size.peak)
            })
        }
        other => panic!("{other:?}"),
    };
    let at = async |minutes: u64| {
        let end = Duration::from_secs(60 * minutes) + Duration::from_millis(1_500);
        tokio::time::sleep(end.saturating_sub(wall())).await;
        cells()
    };
    hears(200).await;
    assert_eq!(at(0).await, (4, 200));
    // Some leave. They count as long as they may be back after a restart.
    hears(120).await;
    assert_eq!([at(1).await, at(6).await], [(4, 200); 2]);
    // Four cells of 30 stay for up to an hour. A replica that starts now has one list.
    assert_eq!(at(11).await, (4, 120));
    assert_eq!(at(61).await, (1, 0));
}

#[test]
fn clients_shed_while_they_start_more_than_backends_report_to_serve() {
    let mut world = World::new();
    world.say(reset(vec![entry("hello", "10.0.0.1:80")]));
    let on = "[service.hello]\nload.kind = 'orca'\nshed.mode = 'overload'\n";
    settle(&mut world, on);
    let hello = ServiceName::new("hello").unwrap();
    let target = world.catalog.watch_load_targets().borrow().iter().next().unwrap().clone();
    let second = |world: &mut World, started: f64, utilisation: f64| {
        let report = Report { calls: 100.0 * utilisation, utilisation };
        world.say(Input::Loaded(target.clone(), report));
        let rates = CallRates { clients: 1, reporting: 1, started, sent: started };
        world.say(Input::Started(vec![(hello.clone(), rates)]));
        world.now += Duration::from_secs(1);
        service(world, "hello").facts.overload_shed
    };
    // The first 10 s of a backend do not count.
    for _ in 0..30 {
        assert_eq!(second(&mut world, 70.0, 0.7), None);
    }
    let shed: Vec<_> = (0..3).map(|_| second(&mut world, 200.0, 1.0)).collect();
    assert!(shed[0] == Some(30) && shed[2] > Some(45), "{shed:?}");
    assert_eq!(service(&world, "hello").settings.shed.most, 95);
    settle(&mut world, &format!("{on}shed.most = 40\n"));
    assert_eq!(service(&world, "hello").facts.overload_shed, Some(40));
    // Without reports of load, nothing is known.
    settle(&mut world, "[service.hello]\nshed.mode = 'overload'\n");
    let after: Vec<_> = (0..10).map(|_| second(&mut world, 200.0, 1.0)).collect();
    assert_eq!(after[9], None, "{after:?}");
}
