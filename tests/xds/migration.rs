//! Clients move from grpclb to xDS one by one, and back.
//!
//! In: a language with both. Out: a panic if a call fails, or a client of either protocol
//! does not obey weights or marks while the others use the other one.

use std::sync::Arc;
use std::time::Duration;

use lookaside::model::Weight;

use super::Scene;
use super::cases::{client_of, has_shares, is_unused, is_used, refused};
use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::{JAVA, Language, XDS_GO, XDS_JAVA};
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World};
use crate::support::{eventually, free_port};
use crate::{Skipped, skipped};

/// How many clients move.
const CLIENTS: usize = 4;

pub fn moves(scene: &Scene) {
    let xds = scene.language;
    let grpclb = match xds {
        XDS_GO => Language::named("go"),
        XDS_JAVA => JAVA,
        // The same process can do both.
        _ => xds,
    };
    if let Some(obstacle) = grpclb.obstacle() {
        skipped(Skipped(obstacle));
    }
    let world = World::new(Arc::new(Etcd::start()), &grpclb);
    let address = format!("127.0.0.1:{}", free_port());
    let balancer = world.balancer(&["--listen", &address]);
    let mut backends = ["light", "heavy"].map(Backend::start);
    for (backend, weight) in backends.iter_mut().zip([1, 3]) {
        world.register_with(backend, Weight(weight));
        balancer.wait_listed(SERVICE, backend.id());
    }
    let old = world.driver();
    let (_, bootstrap) = balancer.get(&format!("/api/v1/xds/bootstrap?server={address}"));
    let new = Driver::start_xds(&xds, &bootstrap);
    let by_grpclb = || start(&old, &Options::grpclb(world.target(&balancer)));
    let by_xds = || start(&new, &Options::xds(SERVICE));

    let mut all: Vec<Channel<'_>> = (0..CLIENTS).map(|_| by_grpclb()).collect();
    // Until half of them have moved.
    for client in &mut all[..CLIENTS / 2] {
        replace(client, by_xds());
    }
    // The channels of one process share a stream of xDS, because they have one target.
    eventually("each protocol has half of the clients", || {
        (protocols(&balancer) == [CLIENTS / 2, 1]).then_some(())
    });
    let (first, last) = (&all[0], &all[CLIENTS - 1]);
    for client in [first, last] {
        has_shares(client, &[("light", 1), ("heavy", 3)]);
    }
    world.register_with(&mut backends[0], Weight(9));
    for client in [first, last] {
        has_shares(client, &[("light", 9), ("heavy", 3)]);
    }
    let drain = |value: &str| {
        let mark = format!("/{}", backends[1].addr());
        let key = format!("/lookaside/marks/{}/drain/{SERVICE}{mark}", world.zone());
        world.etcd().ctl(&["put", &key, value]);
    };
    drain("{}");
    for client in [first, last] {
        is_unused(&client_of(client), "heavy");
    }
    drain(r#"{"until":"2001-01-01T00:00:00Z"}"#);
    for client in [first, last] {
        is_used(&client_of(client), "heavy");
    }
    for client in &mut all[CLIENTS / 2..] {
        replace(client, by_xds());
    }
    eventually("all have moved", || (protocols(&balancer) == [0, 1]).then_some(()));
    // By this number, new clients choose among balancers.
    eventually("streams of xDS count", || (announced_streams(&balancer) > 0).then_some(()));
    for client in &mut all {
        replace(client, by_grpclb());
    }
    eventually("all are back", || (protocols(&balancer) == [CLIENTS, 0]).then_some(()));
    for client in all {
        let report = client.stop();
        assert_eq!(report.failed(), 0, "{report:?}");
    }
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// Opens a client that makes calls until it is replaced.
fn start<'a>(driver: &'a Driver, options: &Options) -> Channel<'a> {
    let client = driver.open(options);
    client.until("it is connected", &Calls::waiting(1), |report| report.failed() == 0);
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    client
}

/// Puts a client in the place of another, which ends. No call of that one has failed.
fn replace<'a>(client: &mut Channel<'a>, by: Channel<'a>) {
    let report = std::mem::replace(client, by).stop();
    assert!(report.succeeded() > 0 && report.failed() == 0, "{report:?}");
}

/// Returns how many open streams are of grpclb, and how many of xDS.
fn protocols(balancer: &Balancer) -> [usize; 2] {
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: serde_json::Value = serde_json::from_str(&clients).expect("JSON");
    let rows = clients["clients"].as_array().expect("a list");
    ["grpclb", "xds"].map(|name| rows.iter().filter(|row| row["protocol"] == name).count())
}

/// Returns how many open streams the balancer says that it has.
fn announced_streams(balancer: &Balancer) -> u64 {
    let (_, balancers) = balancer.get("/api/v1/balancers");
    let balancers: serde_json::Value = serde_json::from_str(&balancers).expect("JSON");
    let rows = balancers["balancers"].as_array().expect("a list");
    rows.iter().filter_map(|row| row["streams"].as_u64()).sum()
}
