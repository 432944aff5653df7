//! Cases about services without reachable backends.
//!
//! In: a world and a driver. Out: a panic if calls do not wait, fail or fall back as
//! `--when-empty` says.

use std::time::Duration;

use lookaside::model::Weight;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, GRPCLB, GRPCLB_PICK_FIRST, Options, Report};
use crate::support::language::Family;
use crate::support::world::{SERVICE, World, metric, reported};
use crate::support::{eventually, free_port};

/// `--when-empty wait`, for the first list and a later list.
pub fn wait(world: &World, driver: &Driver) {
    let balancer = world.balancer(&["--when-empty", "wait"]);
    let clients = of_both_policies(driver, &Options::grpclb(world.target(&balancer)));
    let unavailable = || clients.iter().for_each(Channel::is_unavailable);
    let mut id = "first";
    for next in ["second", "third"] {
        unavailable();
        let waiting = clients.each_ref().map(|client| client.begin(&Calls::waiting(1)));
        // Calls that do not wait fail meanwhile.
        unavailable();
        let backend = world.backend(id);
        for report in waiting.map(|calls| calls.wait()) {
            assert_eq!(report.from(id), 1, "{report:?}");
        }
        clients.iter().for_each(|client| client.shares(&[id]));
        backend.stop();
        id = next;
    }
    // Ruby's calls that wait have a channel of their own.
    if driver.language().name != "ruby" {
        assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 2);
    }
}

/// `--when-empty drop`, for the first list and a later list. Drops are counted.
pub fn drop(world: &World, driver: &Driver) {
    let balancer = world.balancer(&["--when-empty", "drop"]);
    // The service is known, though its only backend has weight 0, so reports count.
    let mut none = Backend::start("none");
    world.register_with(&mut none, Weight(0));
    balancer.wait_listed(SERVICE, "none");
    let drops = driver.language().family != Family::Go;
    let clients = of_both_policies(driver, &Options::grpclb(world.target(&balancer)));
    let counts = || {
        ["dropped", "started", "finished", "failed_to_send"]
            .map(|what| reported(&balancer, SERVICE, what))
    };
    for client in &clients {
        every_call_fails(client, drops, &Calls::new(7));
    }
    if drops {
        eventually("drops are reported", || (counts()[0] == 14).then_some(()));
        assert_eq!(counts(), [14, 14, 14, 0]);
    }
    for id in ["first", "second"] {
        for client in &clients {
            client.is_unavailable();
            every_call_fails(client, drops, &Calls::new(10));
            let waiting = client.call(&waiting_a_second());
            // Without backends grpc-go never applies drops: it fails calls that do not
            // wait as if all backends were unreachable, and counts no drops.
            let code = if drops { "UNAVAILABLE" } else { "DEADLINE_EXCEEDED" };
            assert!(all(&waiting, code), "{waiting:?}");
            assert!(!drops || all_dropped(&waiting), "{waiting:?}");
        }
        let backend = world.backend(id);
        clients.iter().for_each(|client| client.shares(&[id]));
        backend.stop();
    }
    // A service that was never registered.
    let nobody = world.target_of(&balancer, &format!("nobody.{}", world.zone()));
    every_call_fails(&driver.open(&Options::grpclb(nobody)), drops, &Calls::new(2));
}

/// `--when-empty fallback`: when the balancer says so, clients use the addresses from
/// DNS, in place of the first list and of a later one, and then return to lists.
pub fn fallback(world: &World, driver: &Driver) {
    let balancer = world.announced_balancer(&["--when-empty", "fallback"]);
    let dns = world.dns(balancer.grpclb());
    let other = world.in_dns(&dns, "other");
    let mut options = world.falling_back_to(&dns, &other);
    if driver.language().family != Family::Go {
        // The balancer's message makes clients fall back, and no timer does.
        options = options.fallback_after(Duration::from_secs(600));
    }
    let clients = of_both_policies(driver, &options);
    let fall_back = || {
        for client in &clients {
            client.until("DNS's address is used", &Calls::new(4), |r| r.from("other") == 4);
            let report = client.call(&Calls::new(20));
            assert_eq!(report.from("other"), 20, "{report:?}");
        }
    };
    for id in ["first", "second"] {
        fall_back();
        let backend = world.backend(id);
        clients.iter().for_each(|client| client.shares(&[id]));
        assert!(backend.tokens().iter().all(Option::is_some), "{:?}", backend.tokens());
        backend.stop();
    }
    fall_back();
    assert!(other.tokens().iter().all(Option::is_none), "{:?}", other.tokens());
    assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 2);
    without_addresses(world, driver, &world.target_of(&dns, &format!("nobody.{}", world.zone())));
}

/// A client whose name has no addresses has nothing to fall back on, and waits for a list.
fn without_addresses(world: &World, driver: &Driver, nobody: &str) {
    let client = driver.open(&Options::grpclb(nobody));
    client.is_unavailable();
    let mut late = Backend::start("late");
    let mut register = |weight| {
        late.register_below(&world.prefix(), &world.etcd().url(), "nobody", weight);
    };
    register(Weight(0));
    client.is_unavailable();
    register(Weight(1));
    client.shares(&["late"]);
}

/// Backends are listed and do not listen, at first and later.
pub fn unreachable(world: &World, driver: &Driver) {
    let balancer = world.balancer(&[]);
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let ids = ["late", "later"];
    for (id, address) in ids.iter().zip(&addresses) {
        world.etcd().ctl(&["put", &world.key(id), address]);
        balancer.wait_listed(SERVICE, id);
    }
    let start = || {
        let parsed = |n: usize| addresses[n].parse().expect("an address");
        [0, 1].map(|n| Backend::start_at(ids[n], parsed(n)))
    };
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    for _ in 0..2 {
        client.is_unavailable();
        let waiting = client.begin(&Calls::waiting(1));
        client.is_unavailable();
        if driver.language().name == "go" {
            let report = client.call(&Calls::new(1));
            let says = |error: &String| error.contains("connection refused");
            assert!(report.errors.keys().all(says), "the true reason: {report:?}");
        }
        let _both = start();
        let report = waiting.wait();
        assert_eq!(report.succeeded(), 1, "{report:?}");
        client.shares(&ids);
    }
    // The balancer works, so the client neither opens another stream nor falls back.
    if driver.language().name != "ruby" {
        assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 1);
    }
}

/// Opens a channel with each child policy of grpclb.
fn of_both_policies<'a>(driver: &'a Driver, options: &Options) -> [Channel<'a>; 2] {
    [GRPCLB, GRPCLB_PICK_FIRST].map(|config| driver.open(&options.clone().config(config)))
}

#[track_caller]
fn every_call_fails(client: &Channel<'_>, dropped: bool, calls: &Calls) {
    let report = client.call(calls);
    assert_eq!(report.failed(), calls.count, "{report:?}");
    assert!(all(&report, "UNAVAILABLE"), "{report:?}");
    assert!(!dropped || all_dropped(&report), "{report:?}");
}

fn waiting_a_second() -> Calls {
    Calls::waiting(1).timeout(Duration::from_secs(1))
}

fn all(report: &Report, code: &str) -> bool {
    report.succeeded() == 0 && report.errors.keys().all(|error| error.starts_with(code))
}

/// Returns whether all errors are C-core's or Java's text for a dropped call.
fn all_dropped(report: &Report) -> bool {
    report.errors.keys().all(|error| {
        ["drop directed by grpclb balancer", "Dropped as requested by balancer"]
            .iter()
            .any(|text| error.contains(text))
    })
}
