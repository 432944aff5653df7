//! Real grpc-go clients with certificates of their own: the name in a certificate decides.

use serde_json::json;

use super::certificates::{Authority, start, uri};
use super::denied;
use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::XDS_GO;
use crate::support::lookaside::Balancer;
use crate::support::{eventually, skip};

const RULES: &str = "[service.hello]\nclients = ['spiffe://prod/web/*']\n";

/// Starts a client process that shows this certificate, which it reads from files whose names
/// begin with `file`.
pub fn driver(
    authority: &Authority,
    balancer: &Balancer,
    file: &str,
    (cert, key): &(String, String),
) -> Driver {
    let certificates = json!({
        "ca_certificate_file": authority.write("trusted", &authority.issuer().pem()),
        "certificate_file": authority.write(&format!("{file}.pem"), cert),
        "private_key_file": authority.write(&format!("{file}.key"), key),
    });
    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": balancer.grpclb(),
            "channel_creds": [{ "type": "tls", "config": certificates }],
            "server_features": ["xds_v3"],
        }],
        "node": { "id": "client" },
    });
    Driver::start_xds(&XDS_GO, &bootstrap.to_string())
}

#[test]
fn go_is_admitted_by_the_name_in_its_certificate_and_denied_by_another() {
    if let Some(obstacle) = XDS_GO.obstacle() {
        return skip("authorization: go with a certificate", &obstacle);
    }
    let (authority, etcd) = (Authority::new(), Etcd::start());
    let balancer = start(&authority, &etcd, RULES, &[]);
    let mut backend = Backend::start("one");
    backend.register(&etcd.url(), "hello");
    balancer.wait_listed("hello", "one");

    let shows = |file: &str, name: &str| {
        driver(&authority, &balancer, file, &authority.sign([uri(name)], |_| ()))
    };
    let process = shows("web", "spiffe://prod/web/7");
    let admitted = process.open(&Options::xds("hello"));
    admitted.shares(&["one"]);
    assert_eq!(denied(&balancer, "xds"), 0.0);
    let rows = super::json(&balancer, "/api/v1/clients");
    assert_eq!(rows["clients"][0]["certificate"][0], "spiffe://prod/web/7", "{rows}");

    // An authority vouches for this one too, and its name is another.
    let other = shows("webmail", "spiffe://prod/webmail");
    let refused = other.open(&Options::xds("hello"));
    refused.start(&Calls::new(0));
    eventually("it is denied", || (denied(&balancer, "xds") >= 1.0).then_some(()));
    assert_eq!(refused.stop().answers.len(), 0);
    let rows = super::json(&balancer, "/api/v1/denied");
    assert_eq!(rows["denied"][0]["certificate"][0], "spiffe://prod/webmail", "{rows}");
    admitted.shares(&["one"]);

    // The same client gets in once its name counts.
    super::apply(&etcd, "lookaside.internal", &RULES.replace("web/*", "webmail"));
    refused.shares(&["one"]);
}
