//! Cases of backends, weights, marks and names.
//!
//! In: a scene. Out: a panic if a client does not call the backends that it must.

use std::time::{Duration, Instant};

use super::policy::{only, register, settle, start};
use super::{Scene, connected, names, open};
use crate::support::backend::{Backend, FAIL_FIRST, HOLD};
use crate::support::client::{Calls, Channel, Options, Report};
use crate::support::language::{Family, XDS_NODE, XDS_RUST};
use crate::support::world::{SERVICE, metric, streams};
use crate::support::{eventually, free_port};
use crate::{Skipped, skipped};

/// The value of a mark that is over.
pub const OVER: &str = r#"{"until":"2001-01-01T00:00:00Z"}"#;

/// Shares follow weights, a newcomer begins with a tenth of its own, and neither costs a call
/// or a connection to another backend. tonic-xds ignores weights.
pub fn weights(scene: &Scene) {
    // A step of twelve minutes outlasts the case. Those that are there first do not start.
    settle(scene, "slow-start = '1h'", "");
    let weight = |weight: u32| format!(r#""weight":{weight}"#);
    let all = [("1", 1), ("2", 2), ("3", 3)].map(|(id, own)| start(scene, id, &weight(own)));
    let balancer = scene.balancer(&[]);
    all.iter().for_each(|backend| balancer.wait_listed(SERVICE, backend.id()));
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    let has_shares = |weights: &[(&'static str, u64)]| {
        let even: Vec<_> = weights.iter().map(|&(id, _)| (id, 1)).collect();
        has_shares(&client, if scene.language == XDS_RUST { &even } else { weights });
    };
    has_shares(&[("1", 1), ("2", 2), ("3", 3)]);
    assert_eq!(connections(&all), [1, 1, 1]);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    register(scene, &all[0], &weight(6));
    has_shares(&[("1", 6), ("2", 2), ("3", 3)]);
    let cost = scene.cost_of_a_change();
    assert_eq!(connections(&all), [1 + cost; 3]);
    let newcomer = start(scene, "new", &weight(10));
    has_shares(&[("1", 6), ("2", 2), ("3", 3), ("new", 1)]);
    assert_eq!((connections(&all), newcomer.connections()), ([1 + 2 * cost; 3], 1));
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// No call fails while backends come and go, calls in flight are spared, and registrations
/// that clients would refuse reach none.
pub fn a_backend_comes_and_goes(scene: &Scene) {
    let world = &scene.world;
    let balancer = scene.balancer(&[]);
    let one = world.backend("one");
    one.release();
    balancer.wait_listed(SERVICE, "one");
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    client.until("one answers", &Calls::new(4), |report| report.from("one") == 4);
    client.start(&Calls::new(0).every(Duration::from_millis(2)));
    let other = open(&driver, SERVICE);
    for id in ["two", "three"] {
        let mut backend = world.backend(id);
        is_used(&client_of(&other), id);
        let held = other.begin(&Calls::new(8).name(HOLD).timeout(Duration::from_secs(60)));
        eventually("calls are held", || (backend.held() > 0).then_some(()));
        backend.withdraw();
        balancer.wait_unlisted(SERVICE, id);
        backend.release();
        let report = held.wait();
        assert_eq!(report.succeeded(), 8, "{report:?}");
        // Each channel of tonic-xds has a stream of its own.
        [&client, &other].iter().for_each(|client| is_unused(&client_of(client), id));
        backend.stop();
    }
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert!(report.from("two") > 0 && report.from("three") > 0, "{report:?}");
    names::odd_registrations(scene, &balancer, &one, &client);
}

/// A client may start before its backends: calls that wait go through when they come. So do
/// they where backends are listed that do not listen yet.
pub fn client_first(scene: &Scene) {
    let balancer = scene.balancer(&[]);
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    client.is_unavailable();
    let waiting = scene.waits().then(|| client.begin(&Calls::waiting(1)));
    let mut one = scene.world.backend("one");
    if let Some(waiting) = waiting {
        assert_eq!(waiting.wait().from("one"), 1);
    }
    client.until("one answers", &Calls::new(4), |report| report.from("one") == 4);
    one.withdraw();
    client.is_unavailable();

    let ids = ["late", "later"];
    let addresses = ids.map(|id| {
        let address = format!("127.0.0.1:{}", free_port());
        scene.world.etcd().ctl(&["put", &scene.world.key(id), &address]);
        balancer.wait_listed(SERVICE, id);
        address.parse().expect("an address")
    });
    for _ in 0..2 {
        client.is_unavailable();
        let waiting = scene.waits().then(|| client.begin(&Calls::waiting(1)));
        client.is_unavailable();
        let _both = [0, 1].map(|n| Backend::start_at(ids[n], addresses[n]));
        if let Some(waiting) = waiting {
            let report = waiting.wait();
            assert_eq!(report.succeeded(), 1, "{report:?}");
        }
        only(&client, &ids);
    }

    let loopback = "[::1]:0".parse().expect("an address");
    if std::net::TcpListener::bind(loopback).is_err() {
        skipped(Skipped("no IPv6 on this machine".to_owned()));
    }
    let mut six = Backend::start_at("six", loopback);
    scene.world.register(&mut six);
    ids.iter().for_each(|id| drop(scene.world.etcd().ctl(&["del", &scene.world.key(id)])));
    only(&client, &["six"]);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// A service that loses its last backend fails calls that do not wait, and holds the
/// others until a backend comes.
pub fn going_empty_and_returning(scene: &Scene) {
    let balancer = scene.balancer(&["--when-empty", "wait"]);
    let mut first = scene.world.backend("first");
    balancer.wait_listed(SERVICE, "first");
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    client.until("first answers", &Calls::new(4), |report| report.from("first") == 4);
    // It goes on serving, so only what the client is told keeps calls from it.
    first.withdraw();
    client.is_unavailable();
    let waiting = scene.waits().then(|| client.begin(&Calls::waiting(1)));
    client.is_unavailable();
    let _second = scene.world.backend("second");
    if let Some(waiting) = waiting {
        assert_eq!(waiting.wait().from("second"), 1);
    }
    client.until("second answers", &Calls::new(4), |report| report.from("second") == 4);
}

/// `--when-empty drop`: calls that wait fail too, but for grpc-go.
pub fn when_empty_drop(scene: &Scene) {
    let balancer = scene.balancer(&["--when-empty", "drop"]);
    let mut first = scene.world.backend("first");
    balancer.wait_listed(SERVICE, "first");
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    client.until("first answers", &Calls::new(4), |report| report.from("first") == 4);
    first.withdraw();
    client.is_unavailable();
    let report = client.call(&scene.waiting(1).timeout(Duration::from_secs(1)));
    let code = match scene.language.family {
        Family::Go => "DEADLINE_EXCEEDED",
        Family::Core | Family::Java => "UNAVAILABLE",
    };
    assert!(report.errors.keys().all(|error| error.starts_with(code)), "{report:?}");
    let _second = scene.world.backend("second");
    client.until("second answers", &Calls::new(4), |report| report.from("second") == 4);
}

/// A client that asks for a name that nobody registered need not wait for a timer.
pub fn unknown_names_fail_at_once(scene: &Scene) {
    let balancer = scene.balancer(&[]);
    let driver = scene.driver(&balancer);
    // Java's first call takes seconds on a busy machine.
    let _one = scene.world.backend("one");
    is_used(&client_of(&open(&driver, SERVICE)), "one");
    let client = open(&driver, "nobody");
    let began = Instant::now();
    let report = client.call(&Calls::new(1).timeout(Duration::from_secs(20)));
    // After 15 seconds clients take a name for one that does not exist.
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    assert!(report.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{report:?}");
    assert_eq!(report.failed(), 1);
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: serde_json::Value = serde_json::from_str(&clients).expect("JSON");
    let rows = clients["clients"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["name"] == "nobody").expect("the name is shown");
    assert_eq!((&row["protocol"], &row["service"]), (&"xds".into(), &serde_json::Value::Null));
}

pub fn drained_by_a_mark(scene: &Scene) {
    let balancer = scene.balancer(&[]);
    let (_one, two) = (scene.world.backend("one"), scene.world.backend("two"));
    ["one", "two"].iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    is_used(&client_of(&client), "two");
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    let probe = open(&driver, SERVICE);
    mark(scene, "drain", &format!("/{}", two.addr()), "{}");
    is_unused(&client_of(&probe), "two");
    mark(scene, "drain", &format!("/{}", two.addr()), OVER);
    is_used(&client_of(&probe), "two");
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
}

pub fn shed_by_a_mark(scene: &Scene) {
    let (_balancer, _one, driver) = scene.with_one();
    let client = connected(&driver);
    mark(scene, "shed", "", r#"{"percent":30}"#);
    // tonic-xds drops no part of its calls.
    if scene.language != XDS_RUST {
        client.until("a part is dropped", &Calls::new(50), |report| report.failed() > 0);
        // Each call is dropped by chance: five standard deviations around 300.
        let report = client.call(&Calls::new(1_000));
        assert!((228..372).contains(&report.failed()), "{report:?}");
    }
    mark(scene, "shed", "", "");
    client.is_unavailable();
    mark(scene, "shed", "", OVER);
    client.until("nothing is dropped", &Calls::new(50), |report| report.failed() == 0);
}

/// A client that may not ask for a name fails its calls at once, and is let in, and out, on the
/// stream that it has.
pub fn denied_and_admitted(scene: &Scene) {
    const OTHERS: &str = "[service.hello]\nclients = '10.0.0.0/8'";
    let key = format!("/lookaside/settings/{}", scene.world.zone());
    let set = |document: &str| scene.world.etcd().ctl(&["put", &key, document]);
    set(OTHERS);
    let (balancer, _one, driver) = scene.with_one();
    let client = open(&driver, SERVICE);
    client.is_unavailable();
    // A name that nobody registered gets the same answer.
    let (_, shown) = balancer.get("/api/v1/clients");
    assert!(shown.contains(r#""told":"denied""#) && shown.contains(r#""service":null"#), "{shown}");
    set("version = 1");
    is_used(&client_of(&client), "one");
    set(OTHERS);
    client.is_unavailable();
    set("version = 1");
    is_used(&client_of(&client), "one");
    // Counted once for each time that it was denied, and never refused by the client.
    assert_eq!(metric(&balancer, r#"lookaside_clients_denied_total{protocol="xds"}"#), 2);
    assert_eq!(metric(&balancer, "lookaside_xds_streams_opened_total"), 1);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// A name means what it means in grpclb.
pub fn names_have_all_spellings(scene: &Scene) {
    let balancer = scene.balancer(&[]);
    let (_one, _two) = (scene.world.backend("one"), scene.world.backend("two"));
    ["one", "two"].iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let driver = scene.driver(&balancer);
    let zone = scene.world.zone();
    for name in ["hello:50051", "Hello", &format!("hello.{zone}"), &format!("HELLO.{zone}:80")] {
        let client = open(&driver, name);
        is_used(&client_of(&client), "one");
        is_used(&client_of(&client), "two");
    }
    let chosen = open(&driver, &format!("id--two.hello.{zone}"));
    is_used(&client_of(&chosen), "two");
    let report = chosen.call(&Calls::new(20));
    assert_eq!(report.from("two"), 20, "{report:?}");
    names::chosen(scene, &driver);
    names::key(scene, &balancer, &driver);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// A name with an authority means what it means without, and so do its settings.
pub fn names_with_an_authority(scene: &Scene) {
    settle(scene, "xds-reports = 'on'", "");
    let balancer = scene.balancer(&[]);
    let _one = scene.world.backend("one");
    balancer.wait_listed(SERVICE, "one");
    let driver = scene.driver_with_authority(&balancer);
    let options = Options { target: format!("xds://lookaside/{SERVICE}"), ..Options::xds("") };
    let client = driver.open(&options);
    is_used(&client_of(&client), "one");
    let (_, clients) = balancer.get("/api/v1/clients");
    let name = "xdstp://lookaside/envoy.config.endpoint.v3.ClusterLoadAssignment/hello";
    assert!(clients.contains(name), "{clients}");
    let calls = Calls::new(10).name(FAIL_FIRST);
    assert_eq!(client.call(&calls).failed(), 10);
    settle(scene, "retry.on = 'unavailable'\nxds-reports = 'on'", "");
    client.until("calls are tried again", &calls, |report| report.failed() == 0);
    eventually("calls are reported", || {
        (balancer.metric(r#"lookaside_client_calls_known_received_total{service="hello"}"#)
            >= Some(10.0))
        .then_some(())
    });
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// A process may put the streams of all its targets on one connection, as C-core does, and
/// then waits for ever for those beyond the number that the connection may have. Node puts the
/// names of all its targets on one stream, and names them all again for each further one.
pub fn many_targets(scene: &Scene) {
    let (balancer, _one, driver) = scene.with_one();
    let is_one_stream = scene.language == XDS_NODE;
    let targets = if is_one_stream { 1_500 } else { 120 };
    let names = (1..=targets).map(|port| format!("{SERVICE}:{port}"));
    let clients: Vec<_> = names.map(|name| open(&driver, &name)).collect();
    // Node itself takes a minute for so many, and more where other processes have the cores.
    let call = scene.waiting(1).timeout(Duration::from_secs(240));
    let calls: Vec<_> = clients.iter().map(|client| client.begin(&call)).collect();
    for call in calls {
        let report = call.wait();
        assert_eq!((report.failed(), report.from("one")), (0, 1), "{report:?}");
    }
    if is_one_stream {
        assert_eq!(metric(&balancer, "lookaside_xds_streams_opened_total"), 1);
    }
    let _two = scene.world.backend("two");
    is_used(&client_of(clients.last().expect("clients")), "two");
    assert_eq!(metric(&balancer, "lookaside_xds_names_refused_total"), 0);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// An idle channel lets go of the stream, and gets everything again when it returns.
pub fn idle_and_back(scene: &Scene) {
    let (balancer, _one, driver) = scene.with_one();
    let options = Options { idle_seconds: Some(1.0), ..Options::xds(SERVICE) };
    let client = driver.open(&options);
    client.until("one answers", &Calls::new(4), |report| report.from("one") == 4);
    // C-core becomes idle only once.
    eventually("the name is let go", || (streams(&balancer) == 0).then_some(()));
    let report = client.call(&Calls::new(4));
    assert_eq!(report.from("one"), 4, "{report:?}");
}

/// Waits until calls are spread by weights: by chance, so within five standard deviations.
#[track_caller]
pub fn has_shares(client: &Channel<'_>, weights: &[(&str, u64)]) {
    let sum: u64 = weights.iter().map(|(_, weight)| weight).sum();
    // The few notice when it is so, and the many are exact.
    for count in [120, 1_200] {
        client.until("calls are spread by weights", &Calls::new(count), |report| {
            weights.iter().all(|&(id, weight)| {
                let share = weight as f64 / sum as f64;
                let off = report.from(id) as f64 - share * count as f64;
                off.abs() < 5.0 * (count as f64 * share * (1.0 - share)).sqrt()
            }) && report.failed() == 0
        });
    }
}

/// Returns how many connections each backend has taken.
pub fn connections<const N: usize>(backends: &[Backend; N]) -> [usize; N] {
    backends.each_ref().map(Backend::connections)
}

/// A function that makes calls of a client.
pub fn client_of<'a>(client: &'a Channel<'_>) -> impl Fn(&Calls) -> Report + 'a {
    |calls| client.call(calls)
}

/// Waits until a backend gets calls.
#[track_caller]
pub fn is_used(call: &impl Fn(&Calls) -> Report, id: &str) {
    eventually("the backend gets calls", || (call(&Calls::new(20)).from(id) > 0).then_some(()));
}

/// Waits until a backend gets no call of fifty, and then checks fifty more.
#[track_caller]
pub fn is_unused(call: &impl Fn(&Calls) -> Report, id: &str) {
    eventually("the backend gets no calls", || (call(&Calls::new(50)).from(id) == 0).then_some(()));
    let report = call(&Calls::new(50));
    assert_eq!((report.from(id), report.failed()), (0, 0), "{report:?}");
}

/// Returns how many responses clients have refused.
#[track_caller]
pub fn refused(balancer: &crate::support::lookaside::Balancer) -> u64 {
    ["listener", "cluster", "endpoints"]
        .map(|kind| {
            metric(balancer, &format!("lookaside_xds_responses_refused_total{{type=\"{kind}\"}}"))
        })
        .iter()
        .sum()
}

pub fn mark(scene: &Scene, kind: &str, of: &str, value: &str) {
    let key = format!("/lookaside/marks/{}/{kind}/{SERVICE}{of}", scene.world.zone());
    scene.world.etcd().ctl(&["put", &key, value]);
}
