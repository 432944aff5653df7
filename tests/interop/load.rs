//! Cases about services with more backends than a client needs, or with more calls than the
//! backends can serve.
//!
//! In: a world and a driver. Out: a panic if clients do not obey their lists.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::world::{SERVICE, World};
use crate::{Skipped, skipped};

/// Of 32 backends in four cells, each of 20 clients calls one cell or two. Together they call
/// all.
pub fn subsets(world: &World, driver: &Driver) {
    const ALL: u8 = 32;
    if !cfg!(target_os = "linux") {
        skipped(Skipped("one loopback address only on this machine".to_owned()));
    }
    let server = Backend::everywhere();
    let port = server.addr().port();
    let value = |n: u8| format!("{}:{port}", Ipv4Addr::new(127, 33, 0, n));
    let keys: Vec<_> = (1..=ALL).map(|n| (world.key(&n.to_string()), value(n))).collect();
    world.put_all(&keys);
    settings(world, "subset = { mode = 'cells', least = 8 }");
    let balancer = world.balancer(&[]);
    let open = |_| driver.open(&Options::grpclb(world.target(&balancer)));
    let clients: Vec<_> = (0..20).map(open).collect();
    // All connect together: a service with few clients gives each of them several cells.
    let pending: Vec<_> = clients.iter().map(|one| one.begin(&Calls::waiting(60))).collect();
    let called: Vec<BTreeSet<String>> =
        pending.into_iter().map(|one| one.wait().answers.into_keys().collect()).collect();
    assert!(called.iter().all(|one| (4..=24).contains(&one.len())), "{called:?}");
    let together: BTreeSet<_> = called.iter().flatten().collect();
    assert_eq!(together.len(), usize::from(ALL), "{together:?}");
    // Without the setting, each client calls all.
    settings(world, "guard = 50");
    clients[0].until("it calls all", &Calls::waiting(2 * u64::from(ALL)), |report| {
        report.answers.len() == usize::from(ALL)
    });
}

/// The backend registers that it is full with two calls a second, so the client drops most of
/// its calls. Then the backend can serve more.
pub fn overload(world: &World, driver: &Driver) {
    settings(
        world,
        "load = { kind = 'metadata', interval = '1s' }\nshed = { mode = 'overload', most = 60 }",
    );
    let balancer = world.balancer(&["--report-interval", "1s"]);
    let backend = Backend::start("1");
    let addr = backend.addr();
    let register = |rps: &str, utilization: &str| {
        let load = format!(r#"{{"rps":"{rps}","utilization":"{utilization}"}}"#);
        let value = format!(r#"{{"Op":0,"Addr":"{addr}","Metadata":{load}}}"#);
        world.etcd().ctl(&["put", &world.key("1"), &value]);
    };
    register("2", "1.0");
    let client = driver.open(&Options::grpclb(world.target(&balancer)));
    let report = client.until("as many are dropped as may be", &Calls::new(50), |report| {
        report.failed() == 30 && report.from("1") == 20
    });
    assert!(report.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{report:?}");
    register("1000", "0.1");
    client.until("none is dropped", &Calls::new(50), |report| report.from("1") == 50);
}

fn settings(world: &World, keys: &str) {
    let document = format!("[service.{SERVICE}]\n{keys}\n");
    let key = format!("/lookaside/settings/{}", world.zone());
    world.etcd().ctl(&["put", "--", &key, &document]);
}
