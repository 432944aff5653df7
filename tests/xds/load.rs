//! Cases of backends that are unhealthy, or have more calls than they can serve.
//!
//! In: a scene. Out: a panic if clients do not call the healthy backends, or do not drop what
//! the backends cannot serve.

use super::cases::refused;
use super::policy::{only, settle};
use super::{Scene, open};
use crate::support::backend::Backend;
use crate::support::client::Calls;
use crate::support::language::XDS_RUST;
use crate::support::world::{SERVICE, metric};

/// Unhealthy backends get no calls, unless too few are left. Then one backend remains, which
/// registers that it is full with two calls a second, so the client drops most of its calls.
pub fn unhealthy_and_overloaded(scene: &Scene) {
    let world = &scene.world;
    // grpc-java reports on connections that it opens once it is asked to.
    settle(scene, "health = { kind = 'grpc', interval = '1s' }\nxds-reports = 'on'", "");
    let balancer = scene.balancer(&[]);
    let ids = ["a", "b", "c"];
    let mut all = ids.map(|id| world.backend(id));
    ids.iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    only(&client, &ids);
    all[1].set_serving(false);
    only(&client, &["a", "c"]);
    // A third is less than half, so all are listed.
    all[0].set_serving(false);
    only(&client, &ids);
    assert_eq!(metric(&balancer, "lookaside_services_in_panic"), 1);
    all[0].set_serving(true);
    only(&client, &["a", "c"]);
    all[1].set_serving(true);
    only(&client, &ids);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
    if scene.language == XDS_RUST {
        return;
    }

    let full = Backend::start("full");
    let register = |rps: &str, utilization: &str| {
        let load = format!(r#"{{"rps":"{rps}","utilization":"{utilization}"}}"#);
        let value = format!(r#"{{"Op":0,"Addr":"{}","Metadata":{load}}}"#, full.addr());
        world.etcd().ctl(&["put", &world.key("full"), &value]);
    };
    register("2", "1.0");
    all.iter_mut().for_each(Backend::withdraw);
    settle(
        scene,
        "load = { kind = 'metadata', interval = '1s' }\n\
         shed = { mode = 'overload', most = 60 }\nxds-reports = 'on'",
        "",
    );
    client.until("many are dropped", &Calls::new(50), |report| report.failed() >= 20);
    // Each call is dropped by chance: five standard deviations around 240.
    let report = client.until("as many are dropped as may be", &Calls::new(400), |report| {
        (191..=289).contains(&report.failed()) && report.from("full") == report.succeeded()
    });
    assert!(report.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{report:?}");
    register("1000", "0.1");
    client.until("none is dropped", &Calls::new(50), |report| report.from("full") == 50);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}
