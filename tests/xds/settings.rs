//! Cases of settings that only xDS carries to clients.
//!
//! In: a scene. Out: a panic if a client does not do what the settings say, once they are in
//! force.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::cases::{client_of, has_shares, is_used, refused};
use super::policy::settle;
use super::{Scene, connected, open};
use crate::support::backend::{Backend, FAIL_FIRST, HOLD};
use crate::support::client::{Calls, Report};
use crate::support::eventually;
use crate::support::language::{XDS_JAVA, XDS_RUST};
use crate::support::lookaside::Balancer;
use crate::support::world::SERVICE;

/// Clients report their calls, which the service's sums and the client's row have.
pub fn reports(scene: &Scene) {
    settle(scene, "xds-reports = 'on'", "");
    let balancer = scene.balancer(&[]);
    let [one, two] = ["one", "two"].map(|id| scene.world.backend(id));
    ["one", "two"].iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let driver = scene.driver(&balancer);
    let client = connected(&driver);
    let made = || (one.tokens().len() + two.tokens().len()) as u64;
    client.call(&Calls::new(200));
    let report = client.call(&Calls::new(30).name(FAIL_FIRST));
    assert_eq!(report.failed(), 30, "{report:?}");
    eventually("all calls are reported", || {
        let calls = calls(&balancer);
        (calls == [made(), made(), made() - 30]).then_some(())
    });
    // A service that is told to drop calls has them reported too.
    scene.world.etcd().ctl(&["put", &shed(scene), r#"{"percent":100}"#]);
    client.is_unavailable();
    let before = made();
    eventually("dropped calls are reported", || {
        let [started, ended, answered] = calls(&balancer);
        (started == ended && started > before && answered == before - 30).then_some(())
    });
    let (_, clients) = balancer.get("/api/v1/clients");
    let clients: Value = serde_json::from_str(&clients).expect("JSON");
    let started = clients["clients"][0]["calls"]["started"].as_u64();
    assert!(started >= Some(before), "{clients}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
    // Nobody is asked to report any more.
    settle(scene, "xds-reports = 'off'", "");
    scene.world.etcd().ctl(&["put", &shed(scene), r#"{"until":"2001-01-01T00:00:00Z"}"#]);
    is_used(&client_of(&client), "one");
}

/// A call that fails is tried again, once settings say so.
pub fn retries(scene: &Scene) {
    let (balancer, _one, driver) = scene.with_one();
    let client = connected(&driver);
    let calls = Calls::new(20).name(FAIL_FIRST);
    let report = client.call(&calls);
    assert_eq!(report.failed(), 20, "{report:?}");
    settle(scene, "retry = { on = 'internal, unavailable', times = 2, backoff = '5ms' }", "");
    client.until("calls are tried again", &calls, |report| report.failed() == 0);
    settle(scene, "", "");
    client.until("calls fail again", &calls, |report| report.failed() == 20);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// A call ends before its own deadline.
pub fn timeouts(scene: &Scene) {
    settle(scene, "timeout = '500ms'", "");
    let (balancer, one, driver) = scene.with_one();
    let client = connected(&driver);
    let (began, deadline) = (Instant::now(), Duration::from_secs(120));
    let report = client.call(&Calls::new(1).name(HOLD).timeout(deadline));
    // A client tells its server of the deadline too, whose answer may come before its own timer.
    let codes = ["CANCELLED", "DEADLINE_EXCEEDED"];
    let is_known = |error: &String| codes.iter().any(|code| error.starts_with(code));
    assert!(report.errors.keys().all(is_known), "{report:?}");
    assert_eq!(report.failed(), 1, "{report:?}");
    assert!(began.elapsed() < deadline / 2, "{:?}", began.elapsed());
    one.release();
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// Calls beyond those that may be under way fail at once.
pub fn circuits(scene: &Scene) {
    settle(scene, "circuit-breaking.requests = 2", "");
    let (balancer, one, driver) = scene.with_one();
    let client = connected(&driver);
    let calls = Calls::new(1).name(HOLD).timeout(Duration::from_secs(120));
    let held = [client.begin(&calls), client.begin(&calls)];
    eventually("two calls are under way", || (one.held() == 2).then_some(()));
    let report = client.call(&Calls::new(3));
    assert!(report.errors.keys().all(|error| error.starts_with("UNAVAILABLE")), "{report:?}");
    assert_eq!(report.failed(), 3, "{report:?}");
    one.release();
    for report in held.map(|held| held.wait()) {
        assert_eq!(report.succeeded(), 1, "{report:?}");
    }
    client.until("calls go through again", &Calls::new(4), |report| report.failed() == 0);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// A backend whose calls fail gets none for a while.
pub fn outliers(scene: &Scene) {
    let ids = ["a", "b", "c", "bad"];
    settle(
        scene,
        "outlier-detection = { kind = 'failure-percentage', interval = '1s', ejection = '1h', \
         threshold = 50, backends = 4, requests = 5 }",
        "",
    );
    let balancer = scene.balancer(&[]);
    let all = ids.map(|id| scene.world.backend(id));
    ids.iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    ids.iter().for_each(|id| is_used(&client_of(&client), id));
    all[3].set_failing(true);
    client.until("calls fail", &Calls::new(50), |report| report.failed() > 0);
    client.until("the backend is left out", &Calls::new(100), |report| {
        report.failed() == 0 && ids[..3].iter().all(|id| report.from(id) > 0)
    });
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// Calls with the same header go to the same backend, and all backends are used.
pub fn hashes(scene: &Scene) {
    settle(scene, "lb-policy = { kind = 'ring-hash', header = 'User-ID' }", "");
    let balancer = scene.balancer(&[]);
    let ids = ["one", "two", "three"];
    let _all = ids.map(|id| scene.world.backend(id));
    ids.iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    let driver = scene.driver(&balancer);
    let clients = [open(&driver, SERVICE), open(&driver, SERVICE)];
    let user = |user: u32| Calls::new(5).header("user-id", &format!("user {user}"));
    let only = |report: &Report| ids.iter().position(|id| report.from(id) == 5);
    let mut used = [false; 3];
    for number in 0..40 {
        let of = |client: usize| {
            let found = clients[client]
                .until("one backend", &user(number), |report| only(report).is_some());
            only(&found).expect("one")
        };
        // Two channels of a process agree, because the ring follows from the backends.
        assert_eq!(of(0), of(1), "{number}");
        used[of(0)] = true;
    }
    assert_eq!(used, [true; 3]);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// Clients weigh backends by the load that these report.
pub fn client_weights(scene: &Scene) {
    settle(scene, "lb-policy = { kind = 'weighted', interval = '1s' }", "");
    let balancer = scene.balancer(&[]);
    let all: [Backend; 2] = ["busy", "idle"].map(|id| scene.world.backend(id));
    ["busy", "idle"].iter().for_each(|id| balancer.wait_listed(SERVICE, id));
    all[0].set_load(100.0, 0.9);
    all[1].set_load(100.0, 0.3);
    let driver = scene.driver(&balancer);
    let client = open(&driver, SERVICE);
    has_shares(&client, &[("busy", 1), ("idle", 3)]);
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// All settings together: a client that does not obey one goes on with its calls, and refuses
/// nothing. One that refuses a cluster or a listener would get no further change of it.
pub fn not_obeyed(scene: &Scene) {
    // In grpc-java 1.85.1 all calls wait for ever if outlier detection ends together with another
    // policy: docs/xds.md says how to change both.
    let outliers = match scene.language == XDS_JAVA {
        true => "",
        false => "outlier-detection.kind = 'success-rate'\n",
    };
    let all = format!(
        "timeout = '500ms'\nxds-reports = 'on'\ncircuit-breaking.requests = 1\n{outliers}\
         lb-policy = {{ kind = 'ring-hash', header = 'user-id' }}"
    );
    settle(scene, &all, "");
    let (balancer, _one, driver) = scene.with_one();
    let client = connected(&driver);
    if scene.language == XDS_RUST {
        // It drops no part of its calls.
        scene.world.etcd().ctl(&["put", &shed(scene), r#"{"percent":50}"#]);
    }
    let _two = scene.world.backend("two");
    is_used(&client_of(&client), "two");
    settle(scene, "lb-policy = { kind = 'weighted', interval = '1s' }", "");
    let _three = scene.world.backend("three");
    is_used(&client_of(&client), "three");
    let report = client.call(&Calls::new(60));
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(refused(&balancer), 0, "{}", balancer.log());
}

/// Returns the calls of the service that clients say have begun, have ended, and have been
/// answered.
fn calls(balancer: &Balancer) -> [u64; 3] {
    let (_, service) = balancer.get(&format!("/api/v1/services/{SERVICE}"));
    let service: Value = serde_json::from_str(&service).expect("JSON");
    let calls = &service["calls"];
    ["started", "finished", "known_received"].map(|key| calls[key].as_u64().unwrap_or(0))
}

/// Returns the key of the mark that sheds calls of the service.
fn shed(scene: &Scene) -> String {
    format!("/lookaside/marks/{}/shed/{SERVICE}", scene.world.zone())
}
