//! Which prefixes of keys may register which services, in every format.

use std::sync::Arc;

use lookaside::model::{HostPort, Meta, ServiceName};
use lookaside::registry::Registration;
use lookaside::registry::record::{Format, NAMED, write};
use serde_json::Value;

use super::{apply, json};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;

const ZONE: &str = "lookaside.internal";

/// Returns key and value of a registration in a format; `None` if it cannot be written.
fn written(format: &Format, prefix: &str, service: &str, port: u16) -> Option<(String, String)> {
    if *format == Format::Apisix {
        // One key has all nodes, and its value names the service.
        let nodes = serde_json::json!({ format!("127.0.0.9:{port}"): 1 });
        let value = serde_json::json!({ "name": service, "scheme": "grpc", "nodes": nodes });
        return Some((format!("{prefix}upstreams/{port}"), value.to_string()));
    }
    // Formats differ in what an id may be.
    let ids = [format!("{port}"), format!("127.0.0.9:{port}"), format!("host:{service}:{port}")];
    ids.into_iter().find_map(|id| {
        let registration = Registration {
            service: ServiceName::new(service).expect("a name"),
            id: id.into(),
            address: HostPort::parse(&format!("127.0.0.9:{port}")).expect("an address"),
            weight: format.default_weight(),
            meta: Arc::new(Meta::new()),
        };
        write(format, prefix, &registration).ok()
    })
}

/// Returns the ports that a service lists.
fn ports(balancer: &Balancer, service: &str) -> Vec<u64> {
    let (code, text) = balancer.get(&format!("/api/v1/services/{service}"));
    if code == 404 {
        return Vec::new();
    }
    let detail: Value = serde_json::from_str(&text).expect("JSON");
    let all = detail["endpoints"].as_array().expect("endpoints");
    let port = |one: &Value| one["address"].as_str()?.rsplit_once(':')?.1.parse().ok();
    let mut ports: Vec<u64> = all.iter().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

/// A team that can write below its own prefix, in whatever format, cannot take over another
/// team's service, nor cost it a backend. Rules that change count at once.
#[test]
fn no_prefix_takes_over_another_service_in_any_format() {
    let etcd = Etcd::start();
    let named: Vec<_> = NAMED.iter().filter(|(name, _)| *name != "auto").collect();
    let mut prefixes = vec!["/pay/=plain".to_owned()];
    let mut rules = "[registrants]\n'/pay/' = ['pay', 'Pay']\n".to_owned();
    let mut own = Vec::new();
    let mut foreign = Vec::new();
    etcd.ctl(&["put", "/pay/pay/1", "127.0.0.9:1"]);
    for (n, (name, format)) in named.iter().enumerate() {
        let n = u16::try_from(n).expect("few");
        let path = match format {
            // Its keys begin with the protocol.
            Format::Jupiter => "grpc:".to_owned(),
            _ => format!("/team-{name}/"),
        };
        let mine = format!("own-{n}");
        let (key, value) = written(format, &path, &mine, 1_000 + n).expect(name);
        etcd.ctl(&["put", &key, &value]);
        let (key, value) = written(format, &path, "pay", 2_000 + n).expect(name);
        etcd.ctl(&["put", &key, &value]);
        prefixes.push(format!("{path}={name}"));
        rules += &format!("'{path}' = ['own-*']\n");
        own.push((mine, u64::from(1_000 + n)));
        foreign.push((key, u64::from(2_000 + n)));
    }
    assert_eq!(own.len(), 19, "{own:?}");
    apply(&etcd, ZONE, &rules);
    let prefixes = prefixes.join(",");
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--prefix", &prefixes]);
    balancer.wait_ready();
    for (service, port) in &own {
        eventually("its own service", || (ports(&balancer, service) == [*port]).then_some(()));
    }
    assert_eq!(ports(&balancer, "pay"), [1]);
    let rejected = json(&balancer, "/api/v1/rejected");
    assert_eq!(rejected["total"], foreign.len(), "{rejected}");
    for row in rejected["rejected"].as_array().expect("rows") {
        assert!(foreign.iter().any(|(key, _)| row["key"] == **key), "{row}");
        let reason = row["reason"].as_str().expect("text");
        assert!(reason.contains("may register") && reason.contains("\"pay\""), "{row}");
    }
    assert!(balancer.log().contains("keys rejected"), "{}", balancer.log());

    // Without rules, everybody registers everything. With rules again, what was taken is
    // gone at once, and not held.
    let mut all: Vec<_> = foreign.iter().map(|(_, port)| *port).chain([1]).collect();
    all.sort_unstable();
    apply(&etcd, ZONE, "version = 1");
    eventually("no rules", || (ports(&balancer, "pay") == all).then_some(()));
    assert_eq!(json(&balancer, "/api/v1/rejected")["total"], 0);
    apply(&etcd, ZONE, &rules);
    eventually("rules", || (ports(&balancer, "pay") == [1]).then_some(()));
    assert_eq!(balancer.metric("lookaside_endpoints_held"), Some(0.0));
}
