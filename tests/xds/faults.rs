//! Cases of an etcd that is away, and of balancers that restart or come late.
//!
//! In: a scene. Out: a panic if a call fails that need not.

use std::time::Duration;

use super::cases::{client_of, is_used, refused};
use super::{Scene, connected, open};
use crate::support::backend::Backend;
use crate::support::client::Calls;
use crate::support::eventually;
use crate::support::world::{SERVICE, streams};

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

/// Clients keep calling while the balancer restarts, and follow the new one.
pub fn the_balancer_restarts(scene: &Scene) {
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
}

/// A balancer that has not read etcd answers no client, and its clients lose nothing.
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
    scene.world.etcd().thaw();
    balancer.wait_ready();
    let _two = scene.world.backend("two");
    is_used(&client_of(&open(&driver, SERVICE)), "two");
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
}
