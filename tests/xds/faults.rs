//! Cases of an etcd that is away, and of balancers that restart or come late.
//!
//! In: a scene. Out: a panic if a call fails that need not.

use std::sync::Arc;
use std::time::Duration;

use super::cases::{client_of, is_used, refused};
use super::policy::settle;
use super::{Scene, connected, open};
use crate::support::backend::{Backend, FAIL_FIRST};
use crate::support::client::{Calls, Driver};
use crate::support::dns;
use crate::support::etcd::Etcd;
use crate::support::language::{Language, XDS_RUST};
use crate::support::world::{SERVICE, World, reported, streams};
use crate::support::{eventually, free_port};
use crate::{Skipped, skipped};

/// While etcd is away, clients call the backends that they know.
pub fn etcd_is_away(scene: &Scene) {
    let (balancer, _one, driver) = scene.with_one();
    let client = connected(&driver);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    scene.world.etcd().freeze();
    eventually("etcd is missed", || {
        (balancer.metric("lookaside_registry_stale") == Some(1.0)).then_some(())
    });
    // A client that starts meanwhile gets the last reading.
    let late = scene.driver(&balancer);
    is_used(&client_of(&open(&late, SERVICE)), "one");
    scene.world.etcd().thaw();
    let _two = scene.world.backend("two");
    is_used(&client_of(&open(&late, SERVICE)), "two");
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
}

/// Clients keep calling while the balancer restarts, and follow the new one. What they report
/// to it is right.
pub fn the_balancer_restarts(scene: &Scene) {
    settle(scene, "xds-reports = 'on'", "");
    let (mut balancer, _one, driver) = scene.with_one();
    let client = connected(&driver);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    for (id, killed) in [("two", false), ("three", true)] {
        if killed {
            balancer.kill()
        } else {
            assert!(balancer.terminate().success())
        }
        balancer = scene.balancer(&[]);
        eventually("the client is back", || (streams(&balancer) == 1).then_some(()));
        let backend = scene.world.backend(id);
        let other = open(&driver, SERVICE);
        is_used(&client_of(&other), id);
        drop(other);
        backend.stop();
    }
    let report = client.stop();
    // A call may be under way when a backend stops for good.
    assert!(report.failed() == 0, "{report:?}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
    if scene.language == XDS_RUST {
        return;
    }
    // All calls before were answered, and may be reported late.
    let report = client.call(&Calls::new(30).name(FAIL_FIRST));
    assert_eq!(report.failed(), 30, "{report:?}");
    eventually("all calls are reported", || {
        let [finished, answered] =
            ["finished", "known_received"].map(|what| reported(&balancer, SERVICE, what));
        (finished == answered + 30).then_some(())
    });
}

/// One name has the addresses of two balancers. The one in use is killed, and no call fails.
pub fn two_balancers(scene: &Scene) {
    // The client asks for the name at the machine's resolver, which is the world's own.
    let language = Language { asks_system: true, ..scene.language };
    if let Some(obstacle) = language.obstacle() {
        skipped(Skipped(obstacle));
    }
    let world = World::new(Arc::new(Etcd::start()), &language);
    let port = free_port();
    let mut balancers = ["127.0.0.1", "127.0.0.2"].map(|ip| {
        let own = format!("{ip}:{port}");
        let flags = ["--listen", &own, "--advertise", &own, "--dns-listen", "127.0.0.1:0"];
        world.balancer(&flags)
    });
    let names = world.dns(balancers[0].grpclb());
    let _one = world.backend("one");
    balancers.iter().for_each(|balancer| balancer.wait_listed(SERVICE, "one"));
    let name = format!("grpclb.{}", world.zone());
    eventually("DNS has both", || (dns::addresses(names.dns(), &name)?.len() == 2).then_some(()));
    let scheme = if scene.language == XDS_RUST { "http://" } else { "dns:///" };
    let path = format!("/api/v1/xds/bootstrap?server={scheme}{name}:{port}");
    let (_, bootstrap) = balancers[0].get(&path);
    let driver = Driver::start_xds_with(&language, &world.resolver(), &bootstrap);
    let client = connected(&driver);
    let used = usize::from(streams(&balancers[0]) == 0);
    assert_eq!([streams(&balancers[used]), streams(&balancers[1 - used])], [1, 0]);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    balancers[used].kill();
    eventually("it asks the other", || (streams(&balancers[1 - used]) == 1).then_some(()));
    let _two = world.backend("two");
    is_used(&client_of(&client), "two");
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(&balancers[1 - used]), 0, "{}", balancers[1 - used].log());
}

/// A balancer that has not read etcd answers no client, and its clients lose nothing: they
/// call the backends that they have, also when these restart.
///
/// The backend's key has no lease. A lease may end while etcd is frozen, and the new balancer
/// has never known the backend: only a saved state would keep it.
pub fn the_balancer_comes_later(scene: &Scene) {
    let (mut balancer, one) = (scene.balancer(&[]), Backend::start("one"));
    scene.world.etcd().ctl(&["put", &scene.world.key("one"), &one.addr().to_string()]);
    balancer.wait_listed(SERVICE, "one");
    let driver = scene.driver(&balancer);
    let client = connected(&driver);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    balancer.kill();
    scene.world.etcd().freeze();
    let unread = scene.world.balancer_unready(&["--listen", &scene.address]);
    let balancer = unread.unwrap_or_else(|log| panic!("{log}"));
    eventually("the client comes and is not answered", || {
        (balancer.metric("lookaside_connections_total") > Some(0.0)).then_some(())
    });
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    let addr = one.addr();
    drop(one);
    client.is_unavailable();
    let _one = Backend::start_at("one", addr);
    is_used(&client_of(&client), "one");
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    scene.world.etcd().thaw();
    balancer.wait_ready();
    let _two = scene.world.backend("two");
    is_used(&client_of(&open(&driver, SERVICE)), "two");
    is_used(&client_of(&open(&driver, SERVICE)), "one");
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}
