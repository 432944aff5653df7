//! Cases about lists: which backends answer which clients.
//!
//! In: a world and a driver. Out: a panic if shares, removals, tokens, reports or large
//! services are not as they must be.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lookaside::model::Weight;

use crate::support::backend::{Backend, HOLD};
use crate::support::client::{Calls, Driver, GRPCLB_PICK_FIRST, Options, Report};
use crate::support::etcd::Etcd;
use crate::support::language::Family;
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World, metric, reported, streams};
use crate::support::{WAIT_MAX, eventually};
use crate::{Skipped, skipped};

pub fn six_steps(world: &World, driver: &Driver) {
    take_six_steps(world, driver, Options::grpclb);
}

pub fn six_steps_by_txt(world: &World, driver: &Driver) {
    take_six_steps(world, driver, Options::txt);
}

/// Runs the six steps of the usual manual test of such a system.
fn take_six_steps(world: &World, driver: &Driver, options: impl Fn(String) -> Options) {
    let mut etcd = Etcd::start();
    let balancer = world.balancer(&["--etcd", &etcd.url()]);
    let open = || driver.open(&options(world.target(&balancer)));
    let start = |id, etcd: &Etcd| {
        let mut backend = Backend::start(id);
        world.register_at(etcd, &mut backend);
        backend
    };

    // 1. Three backends get equal shares.
    let (s1, s2, s3) = (start("s1", &etcd), start("s2", &etcd), start("s3", &etcd));
    let client = open();
    client.shares(&["s1", "s2", "s3"]);

    // 2. One stops, and no call fails.
    client.start(&Calls::new(1).every(Duration::from_millis(5)));
    let addr = s1.stop();
    eventually("s1 is listed no longer", || {
        let (_, service) = balancer.get(&format!("/api/v1/services/{SERVICE}"));
        (!service.contains("\"s1\"")).then_some(())
    });
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");
    client.shares(&["s2", "s3"]);

    // 3. It returns and shares again.
    let mut s1 = Backend::start_at("s1", addr);
    world.register_at(&etcd, &mut s1);
    client.shares(&["s1", "s2", "s3"]);

    // 4. etcd stops: calls go on, for new clients too.
    etcd.kill();
    eventually("the balancer notices", || {
        (metric(&balancer, "lookaside_registry_stale") == 1).then_some(())
    });
    client.shares(&["s1", "s2", "s3"]);
    open().shares(&["s1", "s2", "s3"]);

    // 5. etcd returns: backends come and go again.
    etcd.restart();
    let s4 = start("s4", &etcd);
    client.shares(&["s1", "s2", "s3", "s4"]);
    s4.stop();
    client.shares(&["s1", "s2", "s3"]);

    // 6. All stop: wait-for-ready calls wait, and succeed when a backend returns.
    for server in [s1, s2, s3] {
        server.stop();
    }
    client.is_unavailable();
    let s6 = start("s6", &etcd);
    client.shares(&["s6"]);
    s6.stop();
    client.is_unavailable();
    let waiting = client.begin(&Calls::waiting(1));
    let newcomer = open();
    let waiting_too = newcomer.begin(&Calls::waiting(1));
    let s5 = start("s5", &etcd);
    assert_eq!(waiting.wait().from("s5"), 1);
    assert_eq!(waiting_too.wait().from("s5"), 1);
    s5.stop();
}

pub fn client_first(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    let early = client.call(&Calls::new(3).timeout(WAIT_MAX));
    assert_eq!(early.failed(), 3, "{early:?}");
    assert!(early.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{early:?}");
    client.is_unavailable();
    let waiting = client.begin(&Calls::waiting(1));
    let _one = world.backend("1");
    assert_eq!(waiting.wait().from("1"), 1);
    let _two = world.backend("2");
    client.shares(&["1", "2"]);
    // One backend by its id.
    let only_two = format!("id--2.{SERVICE}.{}", world.zone());
    driver.open(&Options::grpclb(world.target_of(&balancer, &only_two))).shares(&["2"]);
    if driver.language().family == Family::Java {
        assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 2);
    }
}

pub fn weights(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let (mut heavy, mut light, mut none) =
        (Backend::start("heavy"), Backend::start("light"), Backend::start("none"));
    world.register_with(&mut heavy, Weight(30));
    world.register_with(&mut light, Weight(10));
    world.register_with(&mut none, Weight(0));
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    let report =
        client.until("both are in use", &Calls::waiting(400), |report| report.from("light") == 100);
    assert_eq!((report.from("heavy"), report.from("none")), (300, 0));
}

pub fn slow_start(world: &World, driver: &Driver) {
    // Both are there before the balancer reads anything, so they do not start.
    let _old = (world.backend("a"), world.backend("b"));
    // A step of twelve minutes outlasts the case.
    let balancer = world.balancer(&["--slow-start", "1h"]);
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["a", "b"]);
    let _new = world.backend("new");
    client.until("all are in use", &Calls::waiting(21), |report| report.from("new") == 1);
    // Of 21 entries, the newcomer has one.
    let report = client.call(&Calls::waiting(210));
    let shares = ["a", "b", "new"].map(|id| report.from(id));
    assert_eq!(shares, [100, 100, 10]);
}

pub fn health(world: &World, driver: &Driver) {
    let [a, b, _c] = ["a", "b", "c"].map(|id| world.backend(id));
    let file = world.directory.path().join("health.toml");
    let document = "[service.'*']\nhealth = { kind = 'grpc', interval = '1s' }\n";
    std::fs::write(&file, document).expect("a file can be written");
    let balancer = world.balancer(&["--config", file.to_str().expect("a path")]);
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["a", "b", "c"]);
    b.set_serving(false);
    client.shares(&["a", "c"]);
    // A third is less than half, so all are listed.
    a.set_serving(false);
    client.shares(&["a", "b", "c"]);
    assert_eq!(metric(&balancer, "lookaside_services_in_panic"), 1);
    a.set_serving(true);
    client.shares(&["a", "c"]);
    b.set_serving(true);
    client.shares(&["a", "b", "c"]);
}

pub fn removal_in_flight(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let (mut goes, stays) = (world.backend("goes"), world.backend("stays"));
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["goes", "stays"]);
    // Two of four calls go to it, at whichever entry the client begins.
    let calls = Calls::new(1).name(HOLD).timeout(WAIT_MAX);
    let held: Vec<_> = (0..4).map(|_| client.begin(&calls)).collect();
    eventually("all four have arrived", || (goes.held() + stays.held() == 4).then_some(()));
    assert_eq!(goes.held(), 2);
    goes.withdraw();
    client.shares(&["stays"]);
    goes.release();
    stays.release();
    let answers = held.into_iter().map(|call| call.wait().from("goes")).sum::<u64>();
    assert_eq!(answers, 2, "calls under way are answered by whom they were sent to");
}

pub fn tokens(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let one = world.backend("one");
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    assert_eq!(client.call(&Calls::waiting(20)).from("one"), 20);
    let (_, service) = balancer.get(&format!("/api/v1/services/{SERVICE}"));
    assert_eq!(one.tokens().len(), 20);
    for token in one.tokens() {
        let token = token.expect("every call carries a token");
        let (backend, _) = token.split_once('~').unwrap_or((&token, ""));
        assert!(token.len() < 50 && service.contains(backend), "{token} {service}");
    }
    tokens_of_long_names(world, driver, &balancer);
    let agent = match driver.language().name {
        "python" => "grpc-python".to_owned(),
        "cpp" => "grpc-c++".to_owned(),
        "ruby" => "grpc-ruby".to_owned(),
        "java" => "grpc-java".to_owned(),
        // grpc-go's user agent contains its version.
        _ => driver.version().replace(' ', "/"),
    };
    let (_, clients) = balancer.get("/api/v1/clients");
    assert!(clients.contains(&agent), "{agent}: {clients}");
}

/// C-core leaves out tokens of more than 50 bytes, so names make no token longer.
fn tokens_of_long_names(world: &World, driver: &Driver, balancer: &Balancer) {
    let service = "long-service-name-of-somebody/".repeat(3) + "x";
    let key = format!("{}{service}/{}", world.prefix(), "instance".repeat(100));
    let long = Backend::start("long");
    world.etcd().ctl(&["put", &key, &long.addr().to_string()]);
    let name = service.split('/').rev().collect::<Vec<_>>().join(".");
    let target = world.target_of(balancer, &format!("{name}.{}", world.zone()));
    driver.open(&Options::grpclb(target)).shares(&["long"]);
    let short = |token: &Option<String>| {
        token.as_ref().is_some_and(|token| !token.is_empty() && token.len() < 50)
    };
    assert!(long.tokens().iter().all(short), "{:?}", long.tokens());
}

pub fn reports(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let _one = world.backend("one");
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    assert_eq!(client.call(&Calls::waiting(50)).from("one"), 50);
    let counts = |service| {
        ["started", "finished", "known_received", "failed_to_send", "dropped"]
            .map(|what| reported(&balancer, service, what))
    };
    eventually("all calls are reported", || (counts(SERVICE)[1] >= 50).then_some(()));
    assert_eq!(counts(SERVICE), [50, 50, 50, 0, 0]);
    let reports = || metric(&balancer, "lookaside_reports_total");
    let before = reports();
    match driver.language().family {
        Family::Java => {
            // Java also sends empty reports. They change no sum.
            eventually("empty reports come", || (reports() >= before + 2).then_some(()));
            assert_eq!(counts(SERVICE), [50, 50, 50, 0, 0]);
        }
        Family::Core | Family::Go => {
            // Others leave out reports of zero after the first, which are due each second.
            let begun = Instant::now();
            let span = Duration::from_secs(3);
            eventually("the span is over", || (begun.elapsed() > span).then_some(()));
            assert!(reports() <= before + 1, "{before} reports, then {}", reports());
        }
    }
    // A backend's own error comes through and counts as received: this one has no greeter.
    let key = format!("{}other/one", world.prefix());
    world.etcd().ctl(&["put", &key, &balancer.grpclb().to_string()]);
    let other = world.target_of(&balancer, &format!("other.{}", world.zone()));
    let other = driver.open(&Options::grpclb(other));
    let unimplemented = |report: &Report| {
        report.failed() == 10 && report.errors.keys().all(|e| e.starts_with("UNIMPLEMENTED"))
    };
    other.until("calls fail with the backend's error", &Calls::new(10), unimplemented);
    eventually("they are reported", || (counts("other")[1] >= 10).then_some(()));
    let [started, finished, known_received, failed_to_send, dropped] = counts("other");
    assert_eq!((started, failed_to_send, dropped), (finished, 0, 0));
    // Java counts only answers with a head or a message, which an error may lack.
    let expected = if driver.language().family == Family::Java { 0 } else { finished };
    assert_eq!(known_received, expected);
    assert_eq!(metric(&balancer, "lookaside_reports_rejected_total"), 0);
}

pub fn ipv6(world: &World, driver: &Driver) {
    let loopback = "[::1]:0".parse().expect("an address");
    if std::net::TcpListener::bind(loopback).is_err() {
        skipped(Skipped("no IPv6 on this machine".to_owned()));
    }
    let balancer = world.balancer(&[]);
    let mut six = Backend::start_at("six", loopback);
    world.register(&mut six);
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["six"]);
    let _four = world.backend("four");
    client.shares(&["four", "six"]);
}

pub fn thousand(world: &World, driver: &Driver) {
    const ALL: usize = 1000;
    if !cfg!(target_os = "linux") {
        skipped(Skipped("one loopback address only on this machine".to_owned()));
    }
    let server = Backend::everywhere();
    let address = |n: usize| {
        let [.., high, low] = u32::try_from(n).expect("a small number").to_be_bytes();
        Ipv4Addr::new(127, 32, high, low)
    };
    let keys = (1..=ALL).map(|n| {
        let value = format!("{}:{}", address(n), server.addr().port());
        (world.key(&format!("{n}")), value)
    });
    world.put_all(&keys.collect::<Vec<_>>());
    let balancer = world.balancer(&[]);
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    let all: BTreeSet<String> =
        (1..=ALL).map(|n| format!("Hello test from {}", address(n))).collect();
    // Each backend is used exactly once in a cycle.
    client.until("all thousand answer", &Calls::waiting(ALL as u64), |report| {
        report.answers.len() == ALL && report.answers.keys().all(|answer| all.contains(answer))
    });
}

pub fn pick_first(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let ids = ["1", "2", "3"];
    let _backends = ids.map(|id| world.backend(id));
    let options = Options::grpclb(world.target(&balancer)).config(GRPCLB_PICK_FIRST);
    // That no client of 40 has one of the three first is less likely than 1 to 10^6.
    let clients: Vec<_> = (0..40).map(|_| driver.open(&options)).collect();
    let calls: Vec<_> = clients.iter().map(|client| client.begin(&Calls::waiting(20))).collect();
    let mut used = BTreeSet::new();
    for report in calls.into_iter().map(|calls| calls.wait()) {
        let by: Vec<_> = ids.into_iter().filter(|id| report.from(id) == 20).collect();
        assert_eq!(by.len(), 1, "a client uses one backend for all calls: {report:?}");
        used.extend(by);
    }
    assert_eq!(used, BTreeSet::from(ids));
}

pub fn idleness(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let _one = world.backend("one");
    let options = Options { idle_seconds: Some(1.0), ..Options::grpclb(world.target(&balancer)) };
    let client = driver.open(&options);
    assert_eq!(client.call(&Calls::waiting(3)).from("one"), 3);
    eventually("its stream has ended", || (streams(&balancer) == 0).then_some(()));
    // This backend registers while the channel is idle.
    let _two = world.backend("two");
    client.shares(&["one", "two"]);
}
