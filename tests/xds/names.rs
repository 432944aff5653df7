//! Cases of names that choose among backends, and of what keys in etcd may hold.
//!
//! In: a scene, and what runs in it. Out: a panic if a name leads to wrong backends, or a
//! client refuses what it is sent.

use std::time::Duration;

use super::cases::{client_of, is_used, refused};
use super::policy::{only, start};
use super::{Scene, open};
use crate::cases::names::{bad_addresses, bad_ports, odd_text};
use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver};
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, metric};

/// Selectors choose one backend or some by their metadata, before and after these register.
pub fn chosen(scene: &Scene, driver: &Driver) {
    let world = &scene.world;
    let open = |labels: &str| open(driver, &format!("{labels}.{SERVICE}.{}", world.zone()));
    let _six = start(scene, "6", r#""zone":"a","version":"v1""#);
    let _seven = start(scene, "7", r#""zone":"a","version":"v2""#);
    let only_seven = open("id--7");
    only(&only_seven, &["7"]);
    only(&open("zone--a"), &["6", "7"]);
    only(&open("version--v1.zone--a"), &["6"]);
    let nobody = open("version--v3");
    nobody.is_unavailable();
    world.etcd().ctl(&["del", &world.key("7")]);
    only_seven.is_unavailable();
    // It returns at another address, with the version that no backend had.
    let _again = start(scene, "7", r#""zone":"b","version":"v3""#);
    only(&only_seven, &["7"]);
    only(&nobody, &["7"]);
}

/// A key has one backend, also for another name of it, and another one once that has left.
pub fn key(scene: &Scene, balancer: &Balancer, driver: &Driver) {
    let ids = ["key1", "key2", "key3"];
    let mut backends = ids.map(|id| scene.backend_of("keyed", id));
    ids.iter().for_each(|id| balancer.wait_listed("keyed", id));
    let client = open(driver, "hash--user42.keyed");
    let report = client.until("one backend has all calls", &scene.waiting(30), |report| {
        ids.iter().any(|id| report.from(id) == 30)
    });
    let owner = ids.iter().position(|id| report.from(id) == 30).expect("one has all");
    let [next, last] = [1, 2].map(|by| (owner + by) % 3);
    only(&open(driver, "hash--user42.keyed:80"), &ids[owner..=owner]);
    // A backend without the key leaves: nothing changes.
    backends[next].withdraw();
    only(&client, &ids[owner..=owner]);
    backends[owner].withdraw();
    only(&client, &ids[last..=last]);
    let (prefix, etcd) = (scene.world.prefix(), scene.world.etcd().url());
    let weight = lookaside::model::Weight::DEFAULT;
    backends[owner].register_below(&prefix, &etcd, "keyed", weight);
    only(&client, &ids[owner..=owner]);
}

/// Registrations with ports, addresses and texts that break clients reach none, and neither
/// does one address of several registrations twice, which clients refuse.
pub fn odd_registrations(scene: &Scene, balancer: &Balancer, one: &Backend, client: &Channel<'_>) {
    let world = &scene.world;
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    let rejected = || metric(balancer, "lookaside_registry_rejected_keys");
    let odd = [bad_ports(world), bad_addresses(world)].concat();
    world.put_all(&odd);
    let mapped = Backend::start("mapped");
    let value = format!("[::ffff:127.0.0.1]:{}", mapped.addr().port());
    world.etcd().ctl(&["put", &world.key("mapped"), &value]);
    // This registration arrives, so the odd ones before it have arrived too.
    is_used(&client_of(client), "mapped");
    assert_eq!(rejected(), odd.len() as u64);
    world.put_all(&odd_text(world, &one.addr().to_string()));
    eventually("what cannot be read is counted", || {
        (rejected() >= odd.len() as u64 + 5).then_some(())
    });
    let _last = world.backend("last");
    is_used(&client_of(client), "last");
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(balancer), 0, "{}", balancer.log());
}
