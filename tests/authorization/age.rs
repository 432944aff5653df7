//! Connections that end by age, and by the end of their client's certificate.

use std::sync::Arc;
use std::time::Duration;

use lookaside::balancer::ask::first_list;
use tokio::runtime::Runtime;

use super::certificates::{Authority, start, uri};
use crate::support::client::Calls;
use crate::support::etcd::Etcd;
use crate::support::language::{JAVA, Language, PYTHON};
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World, metric};
use crate::support::{eventually, free_port, skip};

const ENDED: &str = "lookaside_connections_ended_total";

#[test]
fn go_calls_on_while_its_connections_end_by_age() {
    calls_on(&Language::named("go"));
}

#[test]
fn python_calls_on_while_its_connections_end_by_age() {
    calls_on(&PYTHON);
}

#[test]
fn java_calls_on_while_its_connections_end_by_age() {
    calls_on(&JAVA);
}

/// No call fails, and none goes to a fallback address, while a client's connection to its
/// balancer ends again and again.
fn calls_on(language: &Language) {
    if let Some(obstacle) = language.obstacle() {
        return skip(&format!("connection age: {}", language.name), &obstacle);
    }
    let world = World::new(Arc::new(Etcd::start()), language);
    let own = format!("127.0.0.1:{}", free_port());
    let flags = ["--listen", &own, "--dns-listen", "127.0.0.1:0", "--max-connection-age", "2s"];
    let balancer = world.balancer(&flags);
    let dns = world.dns(&own);
    let _backends = ["one", "two"].map(|id| world.backend(id));
    ["one", "two"].iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let fallback = world.in_dns(&dns, "fallback");
    let driver = world.driver();
    let client = driver.open(&world.falling_back_to(&dns, &fallback));
    client.shares(&["one", "two"]);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    let ended = metric(&balancer, ENDED);
    eventually("connections end", || (metric(&balancer, ENDED) >= ended + 4).then_some(()));
    let report = client.stop();
    assert_eq!((report.failed(), report.from("fallback")), (0, 0), "{report:?}");
    assert!(report.from("one") > 0 && report.from("two") > 0, "{report:?}");
    // Each connection is followed by one stream, not by a loop of them.
    let opened = metric(&balancer, "lookaside_streams_opened_total");
    assert!(opened <= metric(&balancer, ENDED) + 3, "{opened}");
}

#[test]
fn a_connection_ends_with_its_clients_certificate() {
    let (authority, etcd) = (Authority::new(), Etcd::start());
    let balancer = start(&authority, &etcd, "version = 1", &[]);
    let runtime = Runtime::new().expect("a runtime");
    let ends = now() + Duration::from_secs(5);
    let short = authority.sign([uri("spiffe://prod/web")], |params| params.not_after = ends.into());
    let channel = {
        let _inside = runtime.enter();
        authority.channel(&balancer, &short)
    };
    let ask = || runtime.block_on(first_list(channel.clone(), "hello"));
    ask().expect("a list");
    eventually("the connection ends", || balancer.metric(ENDED).filter(|ended| *ended == 1.0));
    eventually("it cannot come back", || ask().is_err().then_some(()));
    let long = authority.sign([uri("spiffe://prod/web")], |_| ());
    assert!(is_let_in(&runtime, &authority, &balancer, &long));
}

#[expect(clippy::disallowed_types, reason = "certificates and lists have dates")]
pub fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Returns whether a new connection with this certificate gets a list.
pub fn is_let_in(
    runtime: &Runtime,
    authority: &Authority,
    balancer: &Balancer,
    identity: &(String, String),
) -> bool {
    runtime.block_on(async {
        first_list(authority.channel(balancer, identity), "hello").await.is_ok()
    })
}
