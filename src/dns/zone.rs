//! What the zone says of the balancers, in text: under which names they stand,
//! and the constants of every record.
//!
//! In: the balancers' addresses. Out: SRV targets. Pure; shared by those who
//! answer and by those who print a zone file, so that both say the same.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{Host, HostPort, Zone};

/// How long any answer, negative ones included, may be remembered, in seconds.
/// Clients ask at most every 30 s, so a longer life would spare them nothing; a
/// shared resolver still turns a burst of starting clients into one question
/// per name. And a client that started before its server, or looked while the
/// last balancer was down, is not kept waiting behind a cache.
pub const TTL: u32 = 5;

/// What `TXT _grpc_config.NAME` says: gRFC A2's list of choices with one choice
/// for everybody.
pub const SERVICE_CONFIG: &str =
    r#"grpc_config=[{"serviceConfig":{"loadBalancingConfig":[{"grpclb":{}}]}}]"#;

// One string of a TXT record holds no more (RFC 1035, 3.3).
const _: () = assert!(SERVICE_CONFIG.len() <= 255);

/// The name of the balancers themselves, below the zone.
pub const BALANCER_LABEL: &str = "grpclb";
/// The labels in front of a service's name where its balancers are asked for.
pub const LOCATOR: [&str; 2] = ["_grpclb", "_tcp"];
/// The label in front of a service's name where its service config is.
pub const SETTINGS: &str = "_grpc_config";

/// One SRV record's target, and its addresses where they are ours to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvTarget {
    /// Lower case, without a trailing dot.
    pub name: String,
    /// Where the balancers of that name listen.
    pub port: u16,
    /// Every balancer's of that name, each once; none for a name outside the
    /// zone.
    pub addresses: Vec<IpAddr>,
}

/// The SRV targets under which these balancers are found. All that agree on a
/// port share one name: C-core looks the targets up in parallel and keeps them
/// in the order in which the answers arrive, so it spreads over the addresses
/// of one name and crowds on one of many.
#[must_use]
pub fn srv_targets(balancers: &[HostPort], zone: &Zone) -> Vec<SrvTarget> {
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    let mut elsewhere = Vec::new();
    for balancer in balancers {
        let port = balancer.port();
        match &balancer.host {
            Host::Ip(ip) => by_port.entry(port).or_default().push(*ip),
            Host::Name(name) => {
                elsewhere.push(SrvTarget { name: name.clone(), port, addresses: Vec::new() });
            }
        }
    }
    let alone = by_port.len() == 1;
    let of_port = |(port, mut addresses): (u16, Vec<IpAddr>)| {
        addresses.sort_unstable();
        addresses.dedup();
        let name = if alone { balancer_name(zone) } else { port_name(port, zone) };
        SrvTarget { name, port, addresses }
    };
    elsewhere.sort_unstable_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
    elsewhere.dedup();
    by_port.into_iter().map(of_port).chain(elsewhere).collect()
}

/// The name servers of the zone: the balancers, under a name of the zone's own
/// unless they are all known by names from elsewhere.
#[must_use]
pub fn name_servers(targets: &[SrvTarget], zone: &Zone) -> Vec<String> {
    if targets.is_empty() || targets.iter().any(|target| !target.addresses.is_empty()) {
        return vec![balancer_name(zone)];
    }
    let mut names: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
    names.dedup();
    names
}

/// The name that carries the address of every balancer.
#[must_use]
pub fn balancer_name(zone: &Zone) -> String {
    format!("{BALANCER_LABEL}.{zone}")
}

fn port_name(port: u16, zone: &Zone) -> String {
    format!("{BALANCER_LABEL}-{port}.{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(balancers: &[&str], expected: &[&str], servers: &[&str]) {
        let zone = Zone::new("z").unwrap();
        let balancers: Vec<_> = balancers.iter().map(|b| HostPort::parse(b).unwrap()).collect();
        let targets = srv_targets(&balancers, &zone);
        let show = |t: &SrvTarget| {
            let addresses: Vec<_> = t.addresses.iter().map(ToString::to_string).collect();
            format!("{}:{} {}", t.name, t.port, addresses.join(" "))
        };
        assert_eq!(targets.iter().map(show).collect::<Vec<_>>(), expected, "{balancers:?}");
        assert_eq!(name_servers(&targets, &zone), servers, "{balancers:?}");
    }

    #[test]
    fn balancers_that_agree_on_a_port_share_one_name() {
        check(&[], &[], &["grpclb.z"]);
        check(
            &["10.0.0.2:1", "10.0.0.1:1", "[2001:db8::1]:1", "10.0.0.1:1"],
            &["grpclb.z:1 10.0.0.1 10.0.0.2 2001:db8::1"],
            &["grpclb.z"],
        );
        check(
            &["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:1"],
            &["grpclb-1.z:1 10.0.0.1 10.0.0.3", "grpclb-2.z:2 10.0.0.2"],
            &["grpclb.z"],
        );
        check(
            &["b.example:1", "a.example:2", "b.example:1"],
            &["a.example:2 ", "b.example:1 "],
            &["a.example", "b.example"],
        );
        check(
            &["b.example:1", "10.0.0.1:1"],
            &["grpclb.z:1 10.0.0.1", "b.example:1 "],
            &["grpclb.z"],
        );
    }
}
