//! Who may ask for which service, and who may register it: real clients, a real etcd, real
//! certificates, and the program.

#![allow(unreachable_pub, missing_docs)]

#[path = "authorization/age.rs"]
mod age;
#[path = "authorization/audit.rs"]
mod audit;
#[path = "authorization/certificates.rs"]
mod certificates;
#[path = "authorization/clients.rs"]
mod clients;
#[path = "authorization/go.rs"]
mod go;
#[path = "authorization/go_grpclb.rs"]
mod go_grpclb;
#[path = "authorization/prefixes.rs"]
mod prefixes;
#[path = "authorization/revoked.rs"]
mod revoked;
#[path = "authorization/roles.rs"]
mod roles;

use serde_json::Value;

use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;

/// Puts a settings document for the balancers of a zone into etcd.
fn apply(etcd: &Etcd, zone: &str, document: &str) {
    etcd.ctl(&["put", &format!("/lookaside/settings/{zone}"), document]);
}

/// Returns the answer of an admin path.
#[track_caller]
fn json(balancer: &Balancer, path: &str) -> Value {
    let (code, text) = balancer.get(path);
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Returns how often clients were denied a service by this protocol.
#[track_caller]
fn denied(balancer: &Balancer, protocol: &str) -> f64 {
    let series = format!("lookaside_clients_denied_total{{protocol=\"{protocol}\"}}");
    balancer.metric(&series).unwrap_or(0.0)
}
