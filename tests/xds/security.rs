//! Cases of TLS to balancers and backends, with right and with wrong names.
//!
//! In: a scene. Out: a panic if a client trusts a wrong name or refuses a right one.

use std::process::Command;

use super::Scene;
use super::policy::only;
use crate::support::backend::Backend;
use crate::support::client::{Driver, Options};
use crate::support::eventually;
use crate::support::lookaside::{Balancer, program};
use crate::support::world::{SERVICE, metric};
use crate::tls::{Authority, Certificate};

/// A balancer's certificate has the name in the bootstrap file, a backend's has the target's
/// name. A client calls no other backend, and sends nothing to another balancer.
pub fn names(scene: &Scene) {
    let authority = Authority::new(scene.world.directory.path());
    let balancer = balancer(scene, &authority.sign("127.0.0.1"));
    let wrong = backend(scene, "wrong", &authority.sign("other.internal"));
    balancer.wait_listed(SERVICE, "wrong");
    let driver = driver(scene, &balancer, &authority);
    let options = Options { ca: Some(authority.ca()), ..Options::xds(SERVICE) };
    let client = driver.open(&options);
    client.is_unavailable();
    let _right = backend(scene, "right", &authority.sign(SERVICE));
    only(&client, &["right"]);
    assert_eq!(wrong.tokens().len(), 0);
    assert_eq!(metric(&balancer, "lookaside_xds_streams_opened_total"), 1);

    let foreign = self::balancer(scene, &authority.sign("balancer.internal"));
    let other = self::driver(scene, &foreign, &authority);
    other.open(&options).is_unavailable();
    eventually("it has connected", || {
        (metric(&foreign, "lookaside_connections_total")
            + metric(&foreign, "lookaside_connections_failed_total")
            > 0)
        .then_some(())
    });
    assert_eq!(metric(&foreign, "lookaside_xds_streams_opened_total"), 0);
}

fn balancer(scene: &Scene, certificate: &Certificate) -> Balancer {
    scene.world.balancer(&["--tls-cert", &certificate.cert, "--tls-key", &certificate.key])
}

fn backend(scene: &Scene, id: &str, certificate: &Certificate) -> Backend {
    let mut backend = Backend::start_tls(id, certificate.identity.clone());
    scene.world.register(&mut backend);
    backend
}

/// Starts a client process with the bootstrap file that the program prints.
fn driver(scene: &Scene, balancer: &Balancer, authority: &Authority) -> Driver {
    let server = balancer.grpclb().to_string();
    let printed = Command::new(program())
        .args(["xds-bootstrap", "--server", &server, "--ca", &authority.ca()])
        .output()
        .expect("lookaside starts");
    assert!(printed.status.success(), "{printed:?}");
    let bootstrap = String::from_utf8(printed.stdout).expect("JSON is text");
    Driver::start_xds(&scene.language, &bootstrap)
}
