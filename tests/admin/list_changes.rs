//! Tests what a comparison says of lists, against the lists that follow when the document is
//! applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lookaside::admin::json::{Diff, ListChange, ListChanges, ServiceDetail, ServiceLists};
use lookaside::catalog::{HealthAnswer, HealthTarget, Input, Rules};
use lookaside::facts::demand::Demand;
use lookaside::marks::{Mark, MarkKey, Marks, Value};
use lookaside::model::{BackendAddr, ClientKind, ServiceName, Subset, Target, Zone};
use lookaside::registry::{Cause, Change, Entry, Event, Key};
use lookaside::settings::Document;
use lookaside::telemetry::{ClientView, XdsView};

use crate::admin::settings::diff;
use crate::admin::world::{World, client, entry, stale};

/// The share of each listed backend.
type Shares = BTreeMap<String, f64>;

async fn compare(world: &World, document: &str) -> ListChanges {
    let answer = diff(world, document, "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told: Diff = serde_json::from_str(&answer.body).unwrap();
    told.lists.unwrap()
}

/// Puts a document in force.
async fn apply(world: &World, document: &str) {
    let document = Arc::new(Document::parse(document).unwrap());
    let settings = Arc::new(world.catalog.settings().with(None, Some(document)));
    world.inputs.send(Input::Settings(settings.clone())).await.unwrap();
    while world.catalog.settings() != settings {
        tokio::task::yield_now().await;
    }
    settle(world).await;
}

/// Returns when all inputs up to here are applied.
async fn settle(world: &World) {
    world
        .say(Event::Apply { revision: world.catalog.status().revision + 1, changes: vec![] })
        .await;
}

/// Returns the shares in the list of clients that select nothing.
async fn shares(world: &World, service: &str) -> Shares {
    let answer = world.get(&format!("/api/v1/services/{service}")).await;
    if answer.status == 404 {
        return Shares::new();
    }
    let detail: ServiceDetail = serde_json::from_str(&answer.body).unwrap();
    let listed = detail.endpoints.into_iter().filter(|one| one.due > 0.0);
    listed.map(|one| (one.address, one.due)).collect()
}

fn of<'a>(lists: &'a ListChanges, service: &str) -> &'a ServiceLists {
    lists.first.iter().find(|one| one.service == service).expect("the service is compared")
}

/// Returns the change of one class as a line: each backend with its shares in percent.
fn line(change: &ListChange) -> String {
    let percent =
        |share: Option<f64>| share.map_or("-".into(), |one| format!("{:.0}", 100.0 * one));
    let shares = change.shares.iter().map(|one| {
        let host = one.backend.split([':', '.']).nth(3).unwrap();
        format!(" {host}:{}>{}", percent(one.before), percent(one.after))
    });
    format!("{} ({}){}", change.class, change.clients, shares.collect::<String>())
}

/// Compares a document, applies it, and checks that what was told has come. Returns what was
/// told.
async fn foretold(world: &World, service: &str, document: &str) -> ServiceLists {
    let mut expected = shares(world, service).await;
    let told = of(&compare(world, document).await, service).clone();
    if let Some(change) = told.lists.iter().find(|one| one.class == "all") {
        let named = change.joins + change.leaves + change.moves;
        assert_eq!(change.shares.len(), named, "all are shown");
        for share in &change.shares {
            let before = expected.remove(&share.backend);
            let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-6,
                (a, b) => a == b,
            };
            assert!(near(before, share.before), "{share:?}: {before:?}");
            expected.extend(share.after.map(|after| (share.backend.clone(), after)));
        }
    }
    apply(world, document).await;
    let now = shares(world, service).await;
    assert!(now.keys().eq(expected.keys()), "{document}: {now:?}, {expected:?}");
    for (backend, due) in now {
        assert!((due - expected[&backend]).abs() < 1e-6, "{document}: {backend} {due}");
    }
    told
}

fn hello() -> Vec<Entry> {
    vec![
        entry("hello", "a", "10.0.0.1:80", 1, &[("zone", "a")]),
        entry("hello", "b", "10.0.0.2:80", 1, &[("zone", "b")]),
        entry("hello", "c", "10.0.0.3:80", 2, &[("zone", "b"), ("version", "v2")]),
        entry("other", "a", "10.0.0.4:80", 1, &[]),
    ]
}

#[tokio::test]
async fn what_a_comparison_says_of_lists_comes_true() {
    let keep = Duration::from_secs(600);
    let rules = Rules { keep_lost: keep, guard: 0, probe_unleased: Duration::ZERO };
    let world = World::ruled(rules).await;
    world.read(hello()).await;
    let stream = |name: &str, port| client(name, Some("hello"), ClientKind::Go, port);
    let names = ["hello", "hello", "version--v2.hello"];
    *world.clients.lock().unwrap() =
        names.iter().zip(1..).map(|(name, port)| stream(name, port)).collect();
    let tell = async |document: &str| {
        let told = foretold(&world, "hello", document).await;
        let lines: Vec<_> = told.lists.iter().map(line).collect();
        (lines, told.unknown)
    };
    let nothing: [&str; 0] = [];

    // A split moves shares; a selection that has canaries alone keeps its list.
    let (lines, unknown) =
        tell("[service.hello]\nsplit = { select = 'version=v2', percent = 10 }").await;
    assert_eq!((lines, unknown), (vec!["all (2) 3:50>10 1:25>45 2:25>45".into()], vec![]));
    // Clients of one split by clients belong to a part.
    let text = "[service.hello]\nsplit = { select = 'version=v2', percent = 100, by = 'clients' }";
    let (lines, _) = tell(text).await;
    assert!(lines.iter().any(|line| line == "all -> canaries only (2) 3:10>100 1:45>- 2:45>-"));
    let (lines, _) = tell("").await;
    assert!(lines.iter().any(|line| line.starts_with("canaries only -> all (2)")), "{lines:?}");

    // Checks begin when the document is applied, and that is said.
    let checks = |kind: &str| format!("[service.hello]\nhealth = {{ kind = '{kind}', panic = 0 }}");
    let (lines, unknown) = tell(&checks("grpc")).await;
    assert_eq!(lines, nothing);
    assert!(unknown[0].starts_with("health: checks begin anew"), "{unknown:?}");
    let name = ServiceName::new("hello").unwrap();
    let check = world.catalog.settings().for_service(&name).health.check().unwrap();
    let addr = BackendAddr::new([10, 0, 0, 1].into(), 80).unwrap();
    let target = HealthTarget { addr, check: Arc::new(check) };
    let sick = Input::HealthChecked(target, HealthAnswer::NotServing);
    world.inputs.send(sick).await.unwrap();
    settle(&world).await;
    assert_eq!(shares(&world, "hello").await.len(), 2, "it is left out");
    let (lines, unknown) = tell(&checks("observe")).await;
    assert_eq!(lines, ["all (2) 1:->25 3:67>50 2:33>25"]);
    assert_eq!(unknown, nothing, "the same checks go on");
    let (lines, _) = tell(&checks("grpc")).await;
    assert_eq!(lines, ["all (2) 1:25>- 3:50>67 2:25>33"]);
    let panic = "[service.hello]\nhealth = { kind = 'grpc', panic = 90 }";
    assert_eq!(tell(panic).await.0, ["all (2) 1:->25 3:67>50 2:33>25"]);
    assert_eq!(tell("").await.0, nothing);

    // Held backends leave when their time is over.
    let lost = Change::Delete(Key::new(b"/hello/b"), Cause::InDoubt);
    world.say(Event::Apply { revision: 100, changes: vec![lost] }).await;
    assert_eq!(tell("[service.hello]\nkeep-lost = '20m'").await.0, nothing);
    let (lines, _) = tell("[service.hello]\nkeep-lost = '0s'").await;
    assert_eq!(lines, ["all (2) 2:25>- 3:50>67 1:25>33"]);

    // A ramp that is over has reached its last step.
    let ramp = "select = 'version=v2', ramp = '10% 10m, 80%', begins = '2020-01-01T00:00:00Z'";
    let (lines, unknown) = tell(&format!("[service.hello]\nsplit = {{ {ramp} }}")).await;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains(" 1:33>20") && line.contains(" 3:67>80"), "{line}");
    assert!(unknown.is_empty(), "{unknown:?}");
    assert_eq!(tell("").await.0.len(), 1);

    // Nobody is let go while the registry is stale.
    let lost = Change::Delete(Key::new(b"/hello/a"), Cause::InDoubt);
    apply(&world, "[service.hello]\nkeep-lost = '20m'").await;
    world.say(Event::Apply { revision: 200, changes: vec![lost] }).await;
    world.say(stale()).await;
    let told = compare(&world, "[service.hello]\nkeep-lost = '0s'").await;
    assert_eq!(of(&told, "hello").lists.len(), 0, "{told:?}");
    world.read(hello()).await;
    apply(&world, "").await;

    for (document, says) in [
        ("slow-start = '1m'", "slow-start: it begins"),
        ("load = { kind = 'metadata' }", "load: backends have"),
        ("zones = { mode = 'prefer' }", "zones: how many calls"),
        ("probe-unleased = '5s'", "probe-unleased: which backends"),
    ] {
        let (lines, unknown) = tell(&format!("[service.hello]\n{document}")).await;
        assert_eq!(lines, nothing, "{document}");
        assert!(unknown.iter().any(|why| why.starts_with(says)), "{document}: {unknown:?}");
    }
}

#[tokio::test]
async fn services_without_list_changes_are_named_and_clients_without_backends_are_compared() {
    let world = World::with(hello()).await;
    *world.clients.lock().unwrap() = vec![client("hello", Some("hello"), ClientKind::Go, 1)];
    // Each service counts once, and those whose lists change come first.
    let document = "[service.'*']\nguard = 3\n[service.other]\nclients = 'nobody'\n";
    let told = compare(&world, document).await;
    assert_eq!((told.services, told.changed, told.not_compared), (2, 0, 0));
    assert!(told.first.iter().all(|one| one.lists.is_empty() && one.unknown.is_empty()));
    // Clients that are denied have no list any more. Those that were denied before had none.
    let denied = "[service.hello]\nclients = 'nobody'";
    let told = compare(&world, denied).await;
    assert_eq!((told.changed, of(&told, "hello").denied), (1, 1));
    apply(&world, denied).await;
    let told = compare(&world, &format!("{denied}\nguard = 3")).await;
    assert_eq!((told.changed, of(&told, "hello").denied), (0, 0));
    apply(&world, "").await;
    // A name without a backend: clients see what `when-empty` says.
    let target = Target::parse("nobody", &Zone::new("lookaside.internal").unwrap()).unwrap();
    let subscription = world.catalog.subscribe(&target).unwrap();
    let mut listener = subscription.listen();
    // A stream polls like this from its first list on.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(listener.poll_known(&mut context).is_ready());
    world.clients.lock().unwrap().push(client("nobody", None, ClientKind::Go, 2));
    let told = compare(&world, "[service.nobody]\nwhen-empty = 'drop'").await;
    let change = &of(&told, "nobody").lists[0];
    let when_empty = change.when_empty.clone().unwrap();
    assert_eq!(
        (when_empty.before.as_deref(), when_empty.after.as_deref()),
        (Some("wait"), Some("drop"))
    );
    assert_eq!((change.class.as_str(), change.clients), ("all", 1));
    assert!(!told.registrants);
    assert!(compare(&world, "[registrants]\n'/a/' = ['x']\n").await.registrants);
}

/// Returns a backend of `hello`; every second one is in zone a, the others in zone b.
fn backend(n: u16) -> Entry {
    let zone = if n.is_multiple_of(2) { "a" } else { "b" };
    entry("hello", &format!("{n:03}"), &format!("10.0.0.1:{n}"), 1, &[("zone", zone)])
}

#[tokio::test]
async fn the_zone_and_the_cells_of_a_client_are_those_that_it_has() {
    let world = World::with((1..=64).map(backend).collect()).await;
    *world.clients.lock().unwrap() = vec![client("hello", Some("hello"), ClientKind::Go, 1)];
    let zones = "[service.hello]\nzones = { mode = 'prefer' }\n[zones]\n'10.0.0.0/8' = 'a'\n";
    let told = of(&compare(&world, zones).await, "hello").clone();
    assert_eq!(told.lists.len(), 0, "until there is demand, all zones serve all: {told:?}");
    assert!(told.unknown[0].starts_with("zones: how many calls"), "{told:?}");
    apply(&world, zones).await;
    let demand = Demand { zones: [("a".into(), 1_000), ("b".into(), 1_000)].into(), unknown: 0 };
    let name = ServiceName::new("hello").unwrap();
    world.inputs.send(Input::Demand(name, Arc::new(demand))).await.unwrap();
    settle(&world).await;
    assert_eq!(shares(&world, "zone--a.hello").await.len(), 32, "a zone keeps its calls");
    // Another table of zones moves the client, although no setting of the service changes.
    let other = zones.replace("'a'", "'b'");
    let told = of(&compare(&world, &other).await, "hello").clone();
    let [change] = &told.lists[..] else { panic!("one list: {told:?}") };
    assert_eq!(change.class, "zone a -> zone b");
    assert_eq!((change.joins, change.leaves, change.moves), (32, 32, 0));
    assert_eq!(told.unknown, [""; 0], "the demand stays");
    apply(&world, "").await;

    let cells = "[service.hello]\nsubset = { mode = 'cells', least = 8 }";
    let told = of(&compare(&world, cells).await, "hello").clone();
    assert_eq!(told.lists.len(), 0);
    assert!(told.unknown[0].starts_with("subset: each client gets a part"), "{told:?}");
    apply(&world, cells).await;
    world.clients.lock().unwrap()[0].subset = Subset::new(1, 0);
    // Which of other cells the client would get is decided when they are made.
    let other = cells.replace("least = 8", "least = 16");
    let told = of(&compare(&world, &other).await, "hello").clone();
    assert_eq!((told.lists.len(), told.unknown.len()), (0, 1), "{told:?}");
    let told = of(&compare(&world, "").await, "hello").clone();
    let [change] = &told.lists[..] else { panic!("one list: {told:?}") };
    assert_eq!((change.class.as_str(), change.leaves), ("cells 1/2 -> all", 0));
    assert_eq!(change.joins + change.moves, 64, "{change:?}");
    assert!(change.joins > 16, "{change:?}");
}

#[tokio::test]
async fn a_comparison_of_many_services_has_a_bound() {
    let mut all = Vec::new();
    for service in 0..60 {
        for backend in 1..=30 {
            let version = if backend == 1 { "v2" } else { "v1" };
            let address = format!("10.0.{service}.{backend}:80");
            let id = format!("{backend:02}");
            all.push(entry(&format!("s{service:02}"), &id, &address, 1, &[("version", version)]));
        }
    }
    let world = World::with(all).await;
    // Names that select make a class each.
    let stream = |n: u16| client(&format!("id--{n:02}.s00"), Some("s00"), ClientKind::Go, n);
    *world.clients.lock().unwrap() = (1..=20).map(stream).collect();
    let document = "[service.'*']\nsplit = { select = 'version=v2', percent = 50 }";
    let told = compare(&world, document).await;
    assert_eq!((told.services, told.changed, told.first.len()), (60, 60, 50));
    let first = &told.first[0];
    assert_eq!((first.clients, first.more_classes), (20, 13));
    let change = &first.lists[0];
    assert_eq!((change.joins, change.leaves, change.moves, change.shares.len()), (0, 0, 30, 10));
    assert_eq!(change.shares[0].backend, "10.0.0.1:80", "the largest change is first");
    let shown: usize =
        told.first.iter().flat_map(|one| &one.lists).map(|one| one.shares.len()).sum();
    assert!(shown <= 500, "{shown}");
}

/// A client of xDS may say in which zone it is, and one that does not obey weights belongs to
/// one group of a split.
#[tokio::test]
async fn clients_of_xds_are_compared_as_their_protocol_and_kind_demand() {
    let world = World::with((1..=64).map(backend).collect()).await;
    let xds = |kind, zone: Option<&str>, port| ClientView {
        xds: Some(XdsView { stated_zone: zone.map(Into::into), ..XdsView::default() }),
        // What is shown is the zone that counts.
        zone: Some(zone.unwrap_or("a").into()),
        ..client("hello", Some("hello"), kind, port)
    };
    *world.clients.lock().unwrap() = vec![
        client("hello", Some("hello"), ClientKind::Go, 1),
        xds(ClientKind::Go, Some("b"), 2),
        xds(ClientKind::Rust, Some("b"), 3),
        xds(ClientKind::Go, None, 4),
    ];
    let classes = async |document: &str| {
        let told = of(&compare(&world, document).await, "hello").clone();
        told.lists.into_iter().map(|one| (one.class, one.clients)).collect::<Vec<_>>()
    };
    let document = "[service.hello]\nsplit = { select = 'zone=a', percent = 100 }\n";
    let expected = [("all".to_owned(), 3), ("all -> canaries only".to_owned(), 1)];
    assert_eq!(classes(document).await, expected);

    let zones = "[service.hello]\nzones = { mode = 'prefer' }\n[zones]\n'10.0.0.0/8' = 'a'\n";
    apply(&world, zones).await;
    let demand = Demand { zones: [("a".into(), 1_000), ("b".into(), 1_000)].into(), unknown: 0 };
    let name = ServiceName::new("hello").unwrap();
    world.inputs.send(Input::Demand(name, Arc::new(demand))).await.unwrap();
    settle(&world).await;
    // A client that says where it is stays there, whatever the table says of its address.
    let expected = [("zone a -> zone b".to_owned(), 2)];
    assert_eq!(classes(&zones.replace("'a'", "'b'")).await, expected);
    for (port, zone) in [(1, "a"), (2, "b"), (4, "a")] {
        let path = format!("/api/v1/explain?service=hello&client=10.0.0.9:{port}");
        assert_eq!(world.json(&path).await.1["zone"], zone, "{port}");
    }
}

/// A mark outlives a change of settings, but a change of zones moves clients out of its reach.
#[tokio::test]
async fn drops_that_begin_or_end_are_shown() {
    let world = World::with(hello()).await;
    *world.clients.lock().unwrap() = vec![client("hello", Some("hello"), ClientKind::Go, 1)];
    let key = MarkKey::parse("shed/hello/zone=a").unwrap();
    let value = Value { percent: Some(60), ..Value::default() };
    let marks = Arc::new(Marks::new([Arc::new(Mark { key, value })]));
    world.inputs.send(Input::Marks(marks.clone())).await.unwrap();
    while world.catalog.marks() != marks {
        tokio::task::yield_now().await;
    }
    let zones = "[service.hello]\nzones = { mode = 'prefer' }\n[zones]\n'10.0.0.0/8' = 'a'\n";
    let drops = async |document: &str| {
        let told = of(&compare(&world, document).await, "hello").clone();
        let drops = told.lists.into_iter().filter_map(|one| one.drops);
        drops.map(|drops| (drops.before, drops.after)).collect::<Vec<_>>()
    };
    assert_eq!(drops(zones).await, [(0, 60)]);
    apply(&world, zones).await;
    assert_eq!(drops(&zones.replace("'a'", "'c'")).await, [(60, 0)]);
    let guarded = zones.replace("[service.hello]\n", "[service.hello]\nguard = 3\n");
    assert!(drops(&guarded).await.is_empty());
}
