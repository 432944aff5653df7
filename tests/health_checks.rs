//! Tests health checks from an operator's side.
//!
//! In: real backends that say whether they serve, an etcd, the program. Out: what its admin
//! address shows of their health, and which of them it lists.

#[path = "health_checks/core.rs"]
mod core;

use std::path::Path;

use serde_json::Value;
use tonic::transport::Identity;

use crate::support::backend::{Backend, HealthMethods, PREFIX};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;

/// A balancer whose services have the settings of a document.
struct World {
    etcd: Etcd,
    balancer: Balancer,
    dir: tempfile::TempDir,
}

impl World {
    fn new(document: &str) -> Self {
        Self::with(document, |_| {})
    }

    /// Makes a world. `prepare` gets the directory, which `DIR` in the document stands for.
    fn with(document: &str, prepare: impl Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        prepare(dir.path());
        let file = dir.path().join("lookaside.toml");
        let document = document.replace("DIR", dir.path().to_str().expect("a path"));
        std::fs::write(&file, document).expect("a file");
        let etcd = Etcd::start();
        let config = file.to_str().expect("a path");
        let balancer = Balancer::start(&["--etcd", &etcd.url(), "--config", config]);
        balancer.wait_ready();
        Self { etcd, balancer, dir }
    }

    /// Registers a backend without a lease, so that only its health can take it away.
    fn register(&self, service: &str, backend: &Backend) {
        let key = format!("{PREFIX}{service}/{}", backend.id());
        self.etcd.ctl(&["put", &key, &backend.addr().to_string()]);
    }

    /// Starts and registers backends `0`, `1`, ….
    fn backends<const N: usize>(&self, service: &str, methods: HealthMethods) -> [Backend; N] {
        std::array::from_fn(|n| {
            let backend = Backend::start_with(&n.to_string(), methods);
            self.register(service, &backend);
            backend
        })
    }

    fn json(&self, path: &str) -> Value {
        let (_, text) = self.balancer.get(path);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Returns the names of listed backends, and what is wrong with each unhealthy one.
    fn shown(&self, service: &str) -> (String, Vec<String>) {
        let service = self.json(&format!("/api/v1/services/{service}"));
        let all = service["endpoints"].as_array().cloned().unwrap_or_default();
        let id = |one: &Value| one["id"].as_str().unwrap_or_default().to_owned();
        let listed = all.iter().filter(|one| one["turns"] != 0).map(id).collect();
        let why = |one: &Value| Some(format!("{}: {}", id(one), one["unhealthy"].as_str()?));
        (listed, all.iter().filter_map(why).collect())
    }

    #[track_caller]
    fn wait(&self, service: &str, listed: &str, unhealthy: &[&str]) {
        eventually(&format!("{service} lists {listed}, without {unhealthy:?}"), || {
            let (found, why) = self.shown(service);
            (found == listed && why == unhealthy).then_some(())
        });
    }

    /// Returns the finding of `explain` about the health of a backend.
    fn explained(&self, service: &str, backend: &str) -> String {
        let path = format!("/api/v1/explain?service={service}&backend={backend}");
        let found = self.json(&path);
        let passes = found["backends"][0]["passes"].as_array().cloned().unwrap_or_default();
        let pass = passes.iter().find(|pass| pass["pass"] == "healthy");
        pass.and_then(|pass| pass["why"].as_str()).unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn wait_checked(&self, result: &str, at_least: f64) {
        let series = format!("lookaside_health_checks_total{{result=\"{result}\"}}");
        eventually("checks are made", || {
            (self.balancer.metric(&series)? >= at_least).then_some(())
        });
    }
}

#[test]
fn a_watched_backend_pushes_its_health() {
    // Nobody waits for a check that comes once a minute.
    let world = World::new("[service.'*']\nhealth = { kind = 'grpc', interval = '1m' }\n");
    let backends: [_; 3] = world.backends("hello", HealthMethods::WatchAndCheck);
    world.wait("hello", "012", &[]);
    eventually("all are watched", || {
        (world.balancer.metric("lookaside_health_watches")? == 3.0).then_some(())
    });
    backends[1].set_serving(false);
    world.wait("hello", "02", &["1: it says that it is not serving"]);
    assert_eq!(world.explained("hello", "1"), "it says that it is not serving");
    assert_eq!(world.explained("hello", "0"), "no health check says otherwise");
    assert_eq!(world.json("/api/v1/services")["services"][0]["state"], "unhealthy");
    // Most are not serving: panic.
    backends[2].set_serving(false);
    eventually("panic begins", || (world.shown("hello").0 == "012").then_some(()));
    assert_eq!(world.json("/api/v1/services")["services"][0]["state"], "panic");
    assert_eq!(world.balancer.metric("lookaside_services_in_panic"), Some(1.0));
    assert_eq!(world.balancer.metric("lookaside_endpoints_unhealthy"), Some(2.0));
    let panic = "it says that it is not serving; but too little of the service is healthy \
                 (panic), so it stays listed";
    assert_eq!(world.explained("hello", "2"), panic);
    let log = world.balancer.log();
    assert!(log.contains("too little of a service is healthy: panic"), "{log}");
    // A backend that leaves and one that crashes are not watched any more.
    let [first, ..] = backends;
    world.etcd.ctl(&["del", &format!("{PREFIX}hello/0")]);
    eventually("it is not watched", || {
        (world.balancer.metric("lookaside_health_watches")? == 2.0).then_some(())
    });
    drop(first);
}

#[test]
fn a_backend_without_watch_is_asked_and_one_without_both_must_take_connections() {
    let world = World::new("[service.'*']\nhealth = { kind = 'grpc', interval = '1s' }\n");
    let asked: [_; 3] = world.backends("asked", HealthMethods::Check);
    let mute: [_; 3] = world.backends("mute", HealthMethods::Neither);
    asked[0].set_serving(false);
    world.wait("asked", "12", &["0: it says that it is not serving"]);
    asked[0].set_serving(true);
    world.wait("asked", "012", &[]);
    assert_eq!(world.balancer.metric("lookaside_health_watches"), Some(0.0));
    world.wait_checked("healthy", 12.0);
    world.wait("mute", "012", &[]);
    let [crashes, _stays, _too] = mute;
    drop(crashes);
    world.wait("mute", "12", &["0: it refuses connections"]);
}

#[test]
fn a_connection_suffices_by_tcp() {
    let health = "{ kind = 'tcp', interval = '1s', panic = 0 }";
    let world = World::new(&format!("[service.'*']\nhealth = {health}\n"));
    let [one, two]: [_; 2] = world.backends("hello", HealthMethods::WatchAndCheck);
    one.set_serving(false);
    world.wait_checked("healthy", 2.0);
    world.wait("hello", "01", &[]);
    let addr = one.addr();
    drop(one);
    world.wait("hello", "1", &["0: it refuses connections"]);
    // Health alone empties no list.
    drop(two);
    let both = ["0: it refuses connections", "1: it refuses connections"];
    world.wait("hello", "01", &both);
    let _back = Backend::start_at("0", addr);
    world.wait("hello", "0", &both[1..]);
}

#[test]
fn observed_health_changes_no_list() {
    let world = World::new("[service.'*']\nhealth = { kind = 'observe', interval = '1s' }\n");
    let [one, _two]: [_; 2] = world.backends("hello", HealthMethods::WatchAndCheck);
    one.set_serving(false);
    let says = "it says that it is not serving";
    world.wait("hello", "01", &[&format!("0: {says}")]);
    let stays = format!("{says}; health is only observed, so it stays listed");
    assert_eq!(world.explained("hello", "0"), stays);
    let service = &world.json("/api/v1/services")["services"][0];
    assert_eq!((&service["state"], &service["unhealthy"]), (&"ok".into(), &1.into()));
}

#[test]
fn a_backend_with_tls_is_asked_by_tls() {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["hello.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let identity = || Identity::from_pem(certificate.pem(), key.serialize_pem());
    let document = "[service.'*'.health]\nkind = 'grpc'\ninterval = '1s'\ntls = 'on'\n\
                    ca = 'DIR/ca.pem'\ntls-name = 'hello.test'\n\
                    [service.wrong.health]\ntls-name = 'other.test'\npanic = 0\n\
                    [service.unread.health]\nca = 'DIR/nothing.pem'\n";
    let world = World::with(document, |dir| {
        std::fs::write(dir.join("ca.pem"), ca.pem()).expect("a file");
    });
    assert!(!world.dir.path().join("nothing.pem").exists());
    let backends = ["0", "1"].map(|id| Backend::start_tls(id, identity()));
    for service in ["hello", "wrong", "unread"] {
        backends.iter().for_each(|backend| world.register(service, backend));
    }
    backends[0].set_serving(false);
    world.wait("hello", "1", &["0: it says that it is not serving"]);
    // Another name is a failure of both, and a file that is not there one of none.
    let fails = "it takes connections, and TLS or HTTP/2 fails";
    eventually("the wrong name is noticed", || {
        let (listed, why) = world.shown("wrong");
        let expected = [format!("0: {fails}"), format!("1: {fails}")];
        (listed == "01" && why == expected).then_some(())
    });
    world.wait_checked("not_made", 2.0);
    assert_eq!(world.shown("unread"), ("01".to_owned(), Vec::new()));
}
