//! Cases of zones and splits.
//!
//! In: a scene. Out: a panic if a client calls other backends than its zone or a split gives
//! it, or loses a call by a change of its share.

use std::time::Duration;

use super::cases::{connections, refused};
use super::{Scene, open};
use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Report};
use crate::support::language::XDS_RUST;
use crate::support::lookaside::Balancer;
use crate::support::world::SERVICE;

/// Clients stay in the zone that their bootstrap file states, until the zone is lost.
pub fn zones(scene: &Scene) {
    let world = &scene.world;
    settle(scene, "zones.mode = 'prefer'", "[zones.alias]\neu-1b = 'b'\n");
    // xDS clients do not report their calls, so the clients count.
    let balancer = scene.balancer(&[]);
    let (here, there) = (["a1", "a2", "a3"], ["b1", "b2", "b3"]);
    let _here = here.map(|id| start(scene, id, r#""zone":"a""#));
    let _there = there.map(|id| start(scene, id, r#""zone":"b""#));
    here.iter().chain(&there).for_each(|id| balancer.wait_listed(SERVICE, id));
    let (near, far) =
        (scene.driver_in_zone(&balancer, "a"), scene.driver_in_zone(&balancer, "eu-1b"));
    let (near, far) = (open(&near, SERVICE), open(&far, SERVICE));
    // A zone without clients would take calls of the other.
    for client in [&near, &far] {
        client.until("it is connected", &scene.waiting(1), |report| report.failed() == 0);
    }
    only(&near, &here);
    only(&far, &there);
    let (_, clients) = balancer.get("/api/v1/clients");
    assert!(clients.contains(r#""zone":"a""#) && clients.contains(r#""zone":"b""#), "{clients}");
    far.start(&Calls::new(0).every(Duration::from_millis(5)));
    here.iter().for_each(|id| drop(world.etcd().ctl(&["del", &world.key(id)])));
    only(&near, &there);
    let report = far.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// The canaries get their share, which changes without a failed call, and without a connection:
/// it is one of weights of localities.
pub fn splits(scene: &Scene) {
    split(scene, "percent = 10");
    let balancer = scene.balancer(&[]);
    let all = backends_and_canary(scene, &balancer);
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    super::cases::has_shares(&client, &[("a", 45), ("b", 45), ("canary", 10)]);
    let before = connections(&all);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    split(scene, "percent = 60");
    super::cases::has_shares(&client, &[("a", 20), ("b", 20), ("canary", 60)]);
    let cost = scene.cost_of_a_change();
    assert_eq!(connections(&all), before.map(|before| before + cost));
    split(scene, "percent = 0");
    only(&client, &["a", "b"]);
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// A client uses the canaries or the others, and never both. So does one that ignores weights
/// where calls are split.
pub fn splits_by_client(scene: &Scene) {
    let by = if scene.language == XDS_RUST { "calls" } else { "clients" };
    let split = |percent: u32| split(scene, &format!("by = '{by}', percent = {percent}"));
    split(50);
    let balancer = scene.balancer(&[]);
    let _all = backends_and_canary(scene, &balancer);
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    let own = |report: &Report| [report.from("canary"), report.from("a") + report.from("b")];
    client.until("one group gets all calls", &Calls::new(80), |report| own(report).contains(&80));
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    for (percent, ids) in [(100, &["canary"][..]), (0, &["a", "b"]), (100, &["canary"])] {
        split(percent);
        only(&client, ids);
    }
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

fn split(scene: &Scene, keys: &str) {
    settle(scene, &format!("split = {{ select = 'version=v2', {keys} }}"), "");
}

/// Starts two backends and a canary, and waits until all are listed.
pub fn backends_and_canary(scene: &Scene, balancer: &Balancer) -> [Backend; 3] {
    let all = [("a", "v1"), ("b", "v1"), ("canary", "v2")];
    all.map(|(id, version)| {
        let backend = start(scene, id, &format!(r#""version":"{version}""#));
        balancer.wait_listed(SERVICE, id);
        backend
    })
}

/// Waits until these backends get all calls.
#[track_caller]
pub fn only(client: &Channel<'_>, ids: &[&str]) {
    client.until("these backends get all calls", &Calls::new(80), |report| {
        let all = ids.iter().map(|id| report.from(id));
        all.clone().all(|calls| calls > 0) && all.sum::<u64>() == 80
    });
}

/// Starts a backend and registers it with these metadata.
pub fn start(scene: &Scene, id: &'static str, metadata: &str) -> Backend {
    let backend = Backend::start(id);
    register(scene, &backend, metadata);
    backend
}

/// Registers a backend with these metadata, in place of its former registration.
pub fn register(scene: &Scene, backend: &Backend, metadata: &str) {
    let (id, addr) = (backend.id(), backend.addr());
    let metadata = format!(r#"{{"id":"{id}",{metadata}}}"#);
    let value = format!(r#"{{"Op":0,"Addr":"{addr}","Metadata":{metadata}}}"#);
    scene.world.etcd().ctl(&["put", "--", &scene.world.key(id), &value]);
}

/// Writes the settings of the service, and further tables, into etcd.
pub fn settle(scene: &Scene, settings: &str, further: &str) {
    let document = format!("[service.{SERVICE}]\n{settings}\n{further}");
    let key = format!("/lookaside/settings/{}", scene.world.zone());
    scene.world.etcd().ctl(&["put", "--", &key, &document]);
}
