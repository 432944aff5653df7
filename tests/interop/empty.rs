//! Cases about services without reachable backends.
//!
//! In: a world and a driver. Out: a panic if calls do not wait, fail or fall back as
//! `--when-empty` says.

use std::time::Duration;

use lookaside::model::Weight;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options, Report};
use crate::support::language::Family;
use crate::support::{eventually, free_port};
use crate::world::{World, reported};

/// `--when-empty wait`, for the first list and a later list.
pub fn wait(world: &World, driver: &Driver) {
    let balancer = world.balancer(&["--when-empty", "wait"]);
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    let mut id = "first";
    for next in ["second", "third"] {
        client.is_unavailable();
        let waiting = client.begin(&Calls::waiting(1));
        // Calls that do not wait fail meanwhile.
        client.is_unavailable();
        let backend = world.backend(id);
        let report = waiting.wait();
        assert_eq!(report.from(id), 1, "{report:?}");
        client.shares(&[id]);
        backend.stop();
        id = next;
    }
}

/// `--when-empty drop`, for the first list and a later list. Drops are counted.
pub fn drop(world: &World, driver: &Driver) {
    let balancer = world.balancer(&["--when-empty", "drop"]);
    // The service is known, though its only backend has weight 0, so reports count.
    let mut none = Backend::start("none");
    world.register_with(&mut none, Weight(0));
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    for id in ["first", "second"] {
        client.is_unavailable();
        let before = reported(&balancer, "dropped");
        let report = client.call(&Calls::new(10));
        assert!(report.failed() == 10 && all(&report, "UNAVAILABLE"), "{report:?}");
        let waiting = client.call(&Calls::waiting(1).timeout(Duration::from_secs(1)));
        match driver.language().family {
            // Without backends grpc-go never applies drops: it fails calls that do
            // not wait as if all backends were unreachable, and counts no drops.
            Family::Go => assert!(all(&waiting, "DEADLINE_EXCEEDED"), "{waiting:?}"),
            Family::Core | Family::Java => {
                assert!(waiting.failed() == 1 && all(&waiting, "UNAVAILABLE"), "{waiting:?}");
                let dropped = |report: &Report| report.errors.keys().all(|error| is_drop(error));
                assert!(dropped(&report) && dropped(&waiting), "{report:?} {waiting:?}");
                eventually("drops are reported", || {
                    (reported(&balancer, "dropped") >= before + 11).then_some(())
                });
            }
        }
        let backend = world.backend(id);
        client.shares(&[id]);
        backend.stop();
    }
}

/// `--when-empty fallback`: when the balancer says so, clients use the addresses from
/// DNS, in place of the first list and of a later one, and then return to lists.
pub fn fallback(world: &World, driver: &Driver) {
    let balancer = world.announced_balancer(&["--when-empty", "fallback"]);
    let dns = world.dns(balancer.grpclb());
    let other = world.in_dns(&dns, "other");
    let target = format!("{}:{}", world.target(&dns), other.addr().port());
    let client = driver.open(&Options::grpclb(target));
    for id in ["first", "second"] {
        client.until("DNS's address is used", &Calls::waiting(4), |r| r.from("other") == 4);
        let report = client.call(&Calls::new(20));
        assert_eq!(report.from("other"), 20, "{report:?}");
        let backend = world.backend(id);
        client.shares(&[id]);
        backend.stop();
    }
    client.until("DNS's address is used", &Calls::new(4), |r| r.from("other") == 4);
    // A name without addresses has nothing to fall back on.
    let nobody = format!("nobody.{}", world.zone());
    driver.open(&Options::grpclb(world.target_of(&dns, &nobody))).is_unavailable();
}

/// A backend is listed and does not listen.
pub fn unreachable(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let address = format!("127.0.0.1:{}", free_port());
    world.etcd().ctl(&["put", &world.key("late"), &address]);
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    client.is_unavailable();
    let waiting = client.begin(&Calls::waiting(1));
    client.is_unavailable();
    let _late = Backend::start_at("late", address.parse().expect("an address"));
    let report = waiting.wait();
    assert_eq!(report.from("late"), 1, "{report:?}");
    client.shares(&["late"]);
}

fn all(report: &Report, code: &str) -> bool {
    report.succeeded() == 0 && report.errors.keys().all(|error| error.starts_with(code))
}

/// Returns whether an error is C-core's or Java's text for a dropped call.
fn is_drop(error: &str) -> bool {
    ["drop directed by grpclb balancer", "Dropped as requested by balancer"]
        .iter()
        .any(|text| error.contains(text))
}
