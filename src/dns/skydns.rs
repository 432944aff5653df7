//! The zone's records as keys in etcd, in the form of SkyDNS, which CoreDNS reads.
//!
//! In: the services with their addresses, and the address of one balancer. Out: keys and
//! values, which differ from those of other balancers by their last segment, so each holds its
//! own with its own lease. Records that several balancers write alike are one record in an
//! answer.
//!
//! | key: the name's labels reversed, and | value | is |
//! |---|---|---|
//! | `…/_tcp/_grpclb/ID` | the balancers' host name, the port | SRV |
//! | `…/_grpc_config/ID` | the service config | TXT |
//! | `…/ID-N` | an address of a backend | A, AAAA |
//! | `…/ID` | the name itself, which no answer shows | see below |
//!
//! A question for a name's addresses reads all keys below it, also those of `_tcp`. SkyDNS
//! leaves out those of another group than the shortest keys have. The name itself is such a
//! key, so that it is so for a service without an address too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::named_services::Named;
use super::zone::{self, LOCATOR, SERVICE_CONFIG, SETTINGS, TTL};
use crate::model::{Host, HostPort, Zone};

/// Keys and values in etcd.
pub type Keys = BTreeMap<String, String>;

/// A record, as SkyDNS writes it.
#[derive(Serialize)]
struct Value<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    ttl: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
}

/// The most addresses of one service. They serve only clients that reach no balancer, or
/// have no grpclb.
const ADDRESSES_MAX: usize = 32;
/// The most keys of one balancer. etcd holds several times as many, but each costs it a write
/// when a balancer starts.
const KEYS_MAX: usize = 20_000;

/// Returns the keys of one balancer below `prefix`, and how many services have none because
/// there are too many.
#[must_use]
pub fn keys(prefix: &str, zone: &Zone, own: &HostPort, services: &Named) -> (Keys, usize) {
    let id = id(own);
    let path = |name: &str| {
        let labels: Vec<_> = name.rsplit('.').collect();
        format!("{}/{}", prefix.trim_end_matches('/'), labels.join("/"))
    };
    let mut keys = Keys::new();
    let host = match &own.host {
        Host::Name(name) => name.clone(),
        Host::Ip(ip) => {
            // A name for each port, whatever ports others have.
            let of_port = zone::port_name(own.port(), zone);
            for name in [&of_port, &zone::balancer_name(zone)] {
                add(&mut keys, format!("{}/{id}", path(name)), &Value::host(&ip.to_string()));
            }
            of_port
        }
    };
    let mut left_out = 0;
    for (name, addresses) in services {
        if keys.len() + ADDRESSES_MAX + 3 > KEYS_MAX {
            left_out += 1;
            continue;
        }
        let name = format!("{name}.{zone}");
        let below = path(&name);
        let [locator, settings] = ["SRV", "TXT"].map(|kind| format!("{kind} {name}"));
        let located = Value { port: Some(own.port()), group: Some(&locator), ..Value::host(&host) };
        add(&mut keys, format!("{below}/{}/{}/{id}", LOCATOR[1], LOCATOR[0]), &located);
        let config = Value {
            host: None,
            text: SERVICE_CONFIG.into(),
            group: Some(&settings),
            ..Value::host("")
        };
        add(&mut keys, format!("{below}/{SETTINGS}/{id}"), &config);
        let group = Some(&*name);
        add(&mut keys, format!("{below}/{id}"), &Value { group, ..Value::host(&name) });
        let v4 = addresses.v4.iter().map(|ip| IpAddr::V4(*ip));
        let all = v4.chain(addresses.v6.iter().map(|ip| IpAddr::V6(*ip)));
        for (number, ip) in all.take(ADDRESSES_MAX).enumerate() {
            let (key, ip) = (format!("{below}/{id}-{number}"), ip.to_string());
            add(&mut keys, key, &Value { group, ..Value::host(&ip) });
        }
    }
    (keys, left_out)
}

impl<'a> Value<'a> {
    fn host(host: &'a str) -> Self {
        Self { host: Some(host), port: None, text: None, ttl: TTL, group: None }
    }
}

fn add(keys: &mut Keys, key: String, value: &Value<'_>) {
    if let Ok(value) = serde_json::to_string(value) {
        keys.insert(key, value);
    }
}

/// Returns a label that no other balancer has.
fn id(own: &HostPort) -> String {
    let text = own.to_string().to_ascii_lowercase();
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::Addresses;

    fn services(names: &[&str], addresses: usize) -> Named {
        let v4 = (0..addresses).map(|n| [10, 0, 1, n as u8].into()).collect();
        let addresses = Arc::new(Addresses { v4, v6: vec![] });
        names.iter().map(|name| ((*name).to_owned(), addresses.clone())).collect()
    }

    fn keys(own: &str, services: &Named) -> Vec<String> {
        let zone = Zone::new("lookaside.internal").unwrap();
        let (keys, left_out) =
            super::keys("/skydns/", &zone, &HostPort::parse(own).unwrap(), services);
        assert_eq!(left_out, 0);
        keys.iter().map(|(key, value)| format!("{key} {value}")).collect()
    }

    #[test]
    fn each_record_is_a_key_below_its_reversed_name() {
        let below = "/skydns/internal/lookaside";
        let config = SERVICE_CONFIG.replace('"', r#"\""#);
        let host = "grpclb-12000.lookaside.internal";
        assert_eq!(
            keys("10.0.0.5:12000", &services(&["game.dev"], 1)),
            [
                format!(
                    r#"{below}/dev/game/10-0-0-5-12000 {{"host":"game.dev.lookaside.internal","ttl":5,"group":"game.dev.lookaside.internal"}}"#
                ),
                format!(
                    r#"{below}/dev/game/10-0-0-5-12000-0 {{"host":"10.0.1.0","ttl":5,"group":"game.dev.lookaside.internal"}}"#
                ),
                format!(
                    r#"{below}/dev/game/_grpc_config/10-0-0-5-12000 {{"text":"{config}","ttl":5,"group":"TXT game.dev.lookaside.internal"}}"#
                ),
                format!(
                    r#"{below}/dev/game/_tcp/_grpclb/10-0-0-5-12000 {{"host":"{host}","port":12000,"ttl":5,"group":"SRV game.dev.lookaside.internal"}}"#
                ),
                format!(r#"{below}/grpclb-12000/10-0-0-5-12000 {{"host":"10.0.0.5","ttl":5}}"#),
                format!(r#"{below}/grpclb/10-0-0-5-12000 {{"host":"10.0.0.5","ttl":5}}"#),
            ]
        );
    }

    #[test]
    fn a_balancer_with_a_name_of_its_own_needs_no_other() {
        let all = keys("lb.example.com:1", &services(&["hello"], 0));
        assert_eq!(all.len(), 3);
        assert!(
            all.iter().any(|one| one.contains(r#""host":"lb.example.com","port":1"#)),
            "{all:?}"
        );
    }

    #[test]
    fn no_balancer_writes_more_keys_than_etcd_can_bear() {
        let zone = Zone::new("z").unwrap();
        let own = HostPort::parse("[2001:db8::1]:1").unwrap();
        let names: Vec<_> = (0..7_000).map(|n| format!("s{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let (keys, left_out) = super::keys("/skydns", &zone, &own, &services(&names, 0));
        assert!(keys.len() <= KEYS_MAX && left_out > 0, "{} {left_out}", keys.len());
        let addresses = super::keys("/skydns", &zone, &own, &services(&["hello"], 200)).0;
        assert_eq!(addresses.len(), 2 + 3 + ADDRESSES_MAX);
    }
}
