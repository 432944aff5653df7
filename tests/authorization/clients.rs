//! Real clients of several languages that may not ask for a service, then may, then may not.

use std::sync::Arc;
use std::time::Duration;

use super::{apply, denied, json};
use crate::support::client::{Calls, Channel, Options};
use crate::support::etcd::Etcd;
use crate::support::language::{JAVA, Language, PYTHON};
use crate::support::world::{SERVICE, World, metric, streams};
use crate::support::{dns, eventually, skip};

/// Rules that name the address of no client of a test, and of every one.
const OTHERS: &str = "[service.hello]\nclients = ['10.0.0.0/8', 'spiffe://prod/web']\n";
const OURS: &str = "[service.hello]\nclients = ['10.0.0.0/8', '127.0.0.0/8']\n";

#[test]
fn go_is_denied_and_admitted() {
    run(&Language::named("go"));
}

#[test]
fn python_is_denied_and_admitted() {
    run(&PYTHON);
}

#[test]
fn java_is_denied_and_admitted() {
    run(&JAVA);
}

fn run(language: &Language) {
    if let Some(obstacle) = language.obstacle() {
        return skip(&format!("authorization: {}", language.name), &obstacle);
    }
    let world = World::new(Arc::new(Etcd::start()), language);
    let set = |document: &str| apply(world.etcd(), &world.zone(), document);
    set(OTHERS);
    let balancer = world.balancer(&[]);
    let _backends = ["one", "two"].map(|id| world.backend(id));
    ["one", "two"].iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let driver = world.driver();
    let client = driver.open(&Options::grpclb(world.target(&balancer)));

    // A client that may not ask fails its calls, and asks ever more rarely.
    fails(&client);
    assert!(denied(&balancer, "grpclb") >= 1.0);
    let asked = denied(&balancer, "grpclb");
    client.start(&Calls::new(0).every(Duration::from_millis(2)));
    eventually("it asks again", || (denied(&balancer, "grpclb") > asked).then_some(()));
    client.stop();
    assert!(denied(&balancer, "grpclb") < asked + 10.0, "{}", balancer.log());
    assert_eq!(streams(&balancer), 0);
    // DNS gives it no addresses of backends either.
    let name = format!("{SERVICE}.{}", world.zone());
    assert_eq!(dns::addresses(balancer.dns(), &name), Some(Vec::new()));
    // Operators see all of it.
    let rows = json(&balancer, "/api/v1/denied");
    assert_eq!(rows["denied"][0]["name"], SERVICE, "{rows}");
    assert_eq!(rows["denied"][0]["client"], "127.0.0.1", "{rows}");
    let path = format!("/api/v1/explain?service={SERVICE}&client=127.0.0.1");
    let why = json(&balancer, &path)["no_client"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("clients were denied this name"), "{why}");
    let lines = balancer.log().matches("client denied").count();
    assert_eq!(lines, 1, "{}", balancer.log());

    set(OURS);
    client.shares(&["one", "two"]);
    assert_eq!(dns::addresses(balancer.dns(), &name).map(|all| all.len()), Some(1));

    // What is taken away is taken from an open stream, which ends, and once.
    let opened = metric(&balancer, "lookaside_streams_opened_total");
    set(OTHERS);
    fails(&client);
    eventually("no stream is open", || (streams(&balancer) == 0).then_some(()));
    set(OURS);
    client.shares(&["one", "two"]);
    let reopened = metric(&balancer, "lookaside_streams_opened_total") - opened;
    assert_eq!(reopened, 1, "{}", balancer.log());
}

/// Waits until calls that do not wait fail before their deadlines.
#[track_caller]
fn fails(client: &Channel<'_>) {
    let calls = Calls::new(3).timeout(Duration::from_secs(20));
    client.until("calls fail at once", &calls, |report| {
        let late = report.errors.keys().any(|error| error.starts_with("DEADLINE_EXCEEDED"));
        report.failed() == 3 && !late
    });
}
