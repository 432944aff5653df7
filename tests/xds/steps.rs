//! The six steps of the usual manual test of such a system.
//!
//! In: a scene. Out: a panic if calls do not follow backends that come and go.

use std::time::Duration;

use super::cases::refused;
use super::policy::only;
use super::{Scene, open};
use crate::support::backend::Backend;
use crate::support::client::Calls;
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::world::{SERVICE, metric};

pub fn six_steps(scene: &Scene) {
    let mut etcd = Etcd::start();
    let balancer = scene.balancer(&["--etcd", &etcd.url()]);
    let register = |mut backend: Backend, etcd: &Etcd| {
        scene.world.register_at(etcd, &mut backend);
        backend
    };
    let start = |id, etcd: &Etcd| register(Backend::start(id), etcd);
    let stop = |mut backend: Backend| {
        backend.withdraw();
        balancer.wait_unlisted(SERVICE, backend.id());
        backend
    };

    // 1. Three backends get calls.
    let all = ["s1", "s2", "s3"];
    let [s1, s2, s3] = all.map(|id| start(id, &etcd));
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    only(&client, &all);

    // 2. One stops, and no call fails.
    client.start(&Calls::new(0).every(Duration::from_millis(5)));
    let s1 = stop(s1);
    only(&client, &["s2", "s3"]);
    let addr = s1.stop();
    let meanwhile = client.stop();
    assert_eq!(meanwhile.failed(), 0, "{meanwhile:?}");

    // 3. It returns and shares again.
    let s1 = register(Backend::start_at("s1", addr), &etcd);
    only(&client, &all);

    // 4. etcd stops: calls go on, for another name of the service too.
    etcd.kill();
    eventually("the balancer notices", || {
        (metric(&balancer, "lookaside_registry_stale") == 1).then_some(())
    });
    only(&client, &all);
    only(&open(&driver, &format!("{SERVICE}:80")), &all);

    // 5. etcd returns: backends come and go again.
    etcd.restart();
    let s4 = start("s4", &etcd);
    only(&client, &["s1", "s2", "s3", "s4"]);
    let _s4 = stop(s4);
    only(&client, &all);

    // 6. All stop: calls that wait do, and go through when a backend returns.
    let _stopped = [s1, s2, s3].map(stop);
    client.is_unavailable();
    let s5 = start("s5", &etcd);
    only(&client, &["s5"]);
    let _s5 = stop(s5);
    client.is_unavailable();
    let waiting = scene.waits().then(|| client.begin(&Calls::waiting(1)));
    let _s6 = start("s6", &etcd);
    if let Some(waiting) = waiting {
        assert_eq!(waiting.wait().from("s6"), 1);
    }
    only(&client, &["s6"]);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}
