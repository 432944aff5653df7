//! Cases of TLS to balancers and backends, with right and with wrong names.
//!
//! In: a world and a driver. Out: a panic if a client trusts a wrong name or refuses a
//! right one.

use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::eventually;
use crate::support::language::Family;
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World, metric};
use crate::tls::{Authority, Certificate};

/// A balancer's certificate has the name in its SRV record, a backend's has the target's
/// name.
pub fn right_names(world: &World, driver: &Driver) {
    let authority = Authority::new(world.directory.path());
    let balancer = balancer(world, &authority.sign(&format!("grpclb.{}", world.zone())));
    let _one = backend(world, "one", &authority.sign(&service(world)));
    let _two = backend(world, "two", &authority.sign(&service(world)));
    let client = driver.open(&options(world, &balancer, &authority));
    client.shares(&["one", "two"]);
    assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 1);
}

/// A client sends nothing to a balancer whose certificate lacks the SRV target's name. It
/// uses the addresses from DNS.
pub fn wrong_balancer(world: &World, driver: &Driver) {
    let authority = Authority::new(world.directory.path());
    let Certificate { cert, key, .. } = authority.sign(&service(world));
    let balancer = world.announced_balancer(&["--tls-cert", &cert, "--tls-key", &key]);
    let dns = world.dns(balancer.grpclb());
    let mut other = start("other", &authority.sign(&service(world)));
    world.put_in_dns(&dns, &mut other);
    let one = backend(world, "one", &authority.sign(&service(world)));
    let options = Options { ca: Some(authority.ca()), ..world.falling_back_to(&dns, &other) };
    let client = driver.open(&match driver.language().family {
        Family::Core | Family::Go => options,
        Family::Java => options.fallback_after(Duration::from_millis(500)),
    });
    client.until("DNS's address is used", &Calls::new(4), |report| report.from("other") == 4);
    eventually("it has connected", || {
        (metric(&balancer, "lookaside_connections_total")
            + metric(&balancer, "lookaside_connections_failed_total")
            > 0)
        .then_some(())
    });
    assert_eq!(metric(&balancer, "lookaside_streams_opened_total"), 0);
    assert_eq!(one.tokens().len(), 0);
}

/// A backend whose certificate lacks the target's name gets no calls.
pub fn wrong_backend(world: &World, driver: &Driver) {
    let authority = Authority::new(world.directory.path());
    let balancer = balancer(world, &authority.sign(&format!("grpclb.{}", world.zone())));
    let wrong = backend(world, "wrong", &authority.sign("other.internal"));
    let client = driver.open(&options(world, &balancer, &authority));
    client.is_unavailable();
    let _right = backend(world, "right", &authority.sign(&service(world)));
    client.shares(&["right"]);
    assert_eq!(wrong.tokens().len(), 0);
}

fn balancer(world: &World, certificate: &Certificate) -> Balancer {
    world.balancer(&["--tls-cert", &certificate.cert, "--tls-key", &certificate.key])
}

fn backend(world: &World, id: &str, certificate: &Certificate) -> Backend {
    let mut backend = start(id, certificate);
    world.register(&mut backend);
    backend
}

fn start(id: &str, certificate: &Certificate) -> Backend {
    Backend::start_tls(id, certificate.identity.clone())
}

fn options(world: &World, balancer: &Balancer, authority: &Authority) -> Options {
    Options { ca: Some(authority.ca()), ..Options::grpclb(world.target(balancer)) }
}

fn service(world: &World) -> String {
    format!("{SERVICE}.{}", world.zone())
}
