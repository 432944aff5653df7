//! Which prefixes of keys may register which services, in every format.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use lookaside::model::{HostPort, Meta, ServiceName};
use lookaside::registry::Registration;
use lookaside::registry::record::{Format, NAMED, write};
use serde_json::Value;

use super::{apply, json};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::lookaside::Balancer;
use crate::support::wire;

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

/// Returns the port of the first backend that a new stream for a name is sent.
fn first_port(balancer: &Balancer, name: &str) -> u16 {
    let mut stream = TcpStream::connect(balancer.grpclb()).expect("it listens");
    let mut bytes = Vec::new();
    wire::put_opening(&mut bytes);
    wire::put_call(&mut bytes, 1, "/grpc.lb.v1.LoadBalancer/BalanceLoad");
    wire::put_data(&mut bytes, 1, &wire::balance_request(name));
    stream.write_all(&bytes).expect("it is sent");
    let mut messages = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).expect("its payload");
        if head[3] != wire::DATA {
            continue;
        }
        messages.extend(payload);
        while let Some(length) = messages.get(1..5) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            let Some(message) = messages.get(5..5 + length) else { break };
            if let wire::Response::List(list) = wire::parse_response(message)
                && let Some(server) = wire::servers(list).next()
            {
                return server.port();
            }
            messages.drain(..5 + length);
        }
    }
}

/// A registered name wins over a selection. So a team that may not register a service may not
/// register a name either by which clients choose among the backends of that service.
#[test]
fn no_service_named_like_a_selection_takes_clients_of_another() {
    let etcd = Etcd::start();
    let formats = "/pay/=plain,/free/=plain,/team/=plain";
    etcd.ctl(&["put", "/pay/pay/7", "127.0.0.9:1"]);
    etcd.ctl(&["put", "/free/id--7.pay/1", "127.0.0.9:2"]);
    etcd.ctl(&["put", "/free/version--7.other/1", "127.0.0.9:3"]);
    etcd.ctl(&["put", "/team/pay/zone--a/1", "127.0.0.9:4"]);
    let rules = "[registrants]\n'/pay/' = ['pay']\n'/team/' = ['zone--*.p*']\n";
    apply(&etcd, ZONE, rules);
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--prefix", formats]);
    balancer.wait_ready();
    assert_eq!(first_port(&balancer, "id--7.pay"), 1);
    // Nobody owns what this one could select.
    assert_eq!(first_port(&balancer, "version--7.other"), 3);
    let rejected = json(&balancer, "/api/v1/rejected");
    assert_eq!(rejected["total"], 2, "{rejected}");
    for row in rejected["rejected"].as_array().expect("rows") {
        let reason = row["reason"].as_str().expect("text");
        assert!(reason.contains("may mean backends of \"pay\""), "{row}");
    }
    // A row that names it in full is the operator's word, and counts at once.
    apply(&etcd, ZONE, &format!("{rules}'/free/' = ['id--7.pay']\n"));
    eventually("the service", || (ports(&balancer, "id--7.pay") == [2]).then_some(()));
    assert_eq!(first_port(&balancer, "id--7.pay"), 2);
}
