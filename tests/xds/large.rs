//! Cases of services with more backends than a client needs.
//!
//! In: a scene. Out: a panic if clients do not call a part where they must, and all else.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::cases::refused;
use super::policy::settle;
use super::{Scene, open};
use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel};
use crate::support::eventually;
use crate::support::world::SERVICE;
use crate::{Skipped, skipped};

/// Of 32 backends in four cells, each of 20 clients calls a part. Together they call all, and
/// without the setting each does, also when the service has a thousand more.
pub fn a_part_and_all(scene: &Scene) {
    const PART: u32 = 32;
    if !cfg!(target_os = "linux") {
        skipped(Skipped("one loopback address only on this machine".to_owned()));
    }
    let server = Backend::everywhere();
    let register = |first: u32, last: u32| {
        let key = |n: u32| {
            let [.., high, low] = n.to_be_bytes();
            let address = Ipv4Addr::new(127, 34, high, low);
            (scene.world.key(&n.to_string()), format!("{address}:{}", server.addr().port()))
        };
        scene.world.put_all(&(first..=last).map(key).collect::<Vec<_>>());
    };
    register(1, PART);
    settle(scene, "subset = { mode = 'cells', least = 8 }", "");
    let balancer = scene.balancer(&[]);
    let driver = scene.driver(&balancer);
    // A process has one stream for all channels of one name, so each client has its own.
    let clients: Vec<_> = (1..=20).map(|n| open(&driver, &format!("{SERVICE}:{n}"))).collect();
    let pending: Vec<_> = clients.iter().map(|one| one.begin(&scene.waiting(1))).collect();
    pending.into_iter().for_each(|one| assert_eq!(one.wait().failed(), 0));
    let mut together = BTreeSet::new();
    for client in &clients {
        let report = client.until("it calls a part", &Calls::new(120), |report| {
            report.failed() == 0 && (4..=24).contains(&report.answers.len())
        });
        together.extend(report.answers.into_keys());
    }
    assert_eq!(together.len(), PART as usize, "{together:?}");
    settle(scene, "guard = 50", "");
    let mut clients = clients.into_iter();
    let client = clients.next().expect("there are twenty");
    calls_all(&client, PART as usize);
    drop(clients);
    register(PART + 1, 1_000 + PART);
    calls_all(&client, 1_000 + PART as usize);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// Waits until calls have gone to so many backends.
#[track_caller]
fn calls_all(client: &Channel<'_>, backends: usize) {
    let mut called = BTreeSet::new();
    eventually("it calls all", || {
        let report = client.call(&Calls::new(2 * backends as u64));
        assert_eq!(report.failed(), 0, "{report:?}");
        called.extend(report.answers.into_keys());
        (called.len() == backends).then_some(())
    });
}
