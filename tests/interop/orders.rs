//! Cases about the marks by which operators tell clients to drop calls or to use DNS.
//!
//! In: a world and a driver. Out: a panic if clients do not obey, or do not return.

use std::time::Duration;

use crate::support::client::{Calls, Driver, Options};
use crate::support::eventually;
use crate::support::language::Family;
use crate::support::world::{SERVICE, World, metric, reported};

const OVER: &str = r#"{"until":"2001-01-01T00:00:00Z"}"#;

pub fn shed(world: &World, driver: &Driver) {
    let balancer = world.balancer(&["--report-interval", "1s"]);
    let _both = (world.backend("1"), world.backend("2"));
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.shares(&["1", "2"]);
    mark(world, "shed", r#"{"percent":20}"#);
    let until = |part: u64| {
        client.until("the part is dropped", &Calls::new(50), |report| report.failed() == part);
    };
    until(10);
    let report = client.call(&Calls::new(200));
    assert_eq!([report.failed(), report.from("1"), report.from("2")], [40, 80, 80], "{report:?}");
    assert!(report.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{report:?}");
    eventually("drops are reported", || {
        (reported(&balancer, SERVICE, "dropped") >= 50).then_some(())
    });
    // All calls, also of a client that connects now.
    mark(world, "shed", "");
    until(50);
    client.is_unavailable();
    let late = driver.open(&Options::grpclb(world.target(&balancer)));
    late.is_unavailable();
    mark(world, "shed", OVER);
    client.shares(&["1", "2"]);
    late.shares(&["1", "2"]);
}

pub fn fallback(world: &World, driver: &Driver) {
    let balancer = world.announced_balancer(&[]);
    let dns = world.dns(balancer.grpclb());
    let other = world.in_dns(&dns, "other");
    let mut options = world.falling_back_to(&dns, &other);
    if driver.language().family != Family::Go {
        // The balancer's message makes clients fall back, and no timer does.
        options = options.fallback_after(Duration::from_secs(600));
    }
    let client = driver.open(&options);
    let _listed = world.backend("listed");
    client.shares(&["listed"]);
    mark(world, "fallback", "");
    client.until("DNS's address is used", &Calls::new(4), |report| report.from("other") == 4);
    let report = client.call(&Calls::new(20));
    assert_eq!(report.from("other"), 20, "{report:?}");
    mark(world, "fallback", OVER);
    client.shares(&["listed"]);
    assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 1);
}

fn mark(world: &World, kind: &str, value: &str) {
    let key = format!("/lookaside/marks/{}/{kind}/{SERVICE}", world.zone());
    world.etcd().ctl(&["put", &key, value]);
}
