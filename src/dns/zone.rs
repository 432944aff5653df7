//! The names of the balancers in the zone, and the constants of all records.
//!
//! In: the balancers' addresses. Out: SRV targets.
//! Pure. The name server and the zone file printer share it, so both say the same.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::model::{Host, HostPort, ServiceName, Zone};

/// How long an answer may be remembered, in seconds; negative answers too. Clients ask
/// at most every 30 s, so a longer TTL would save them nothing, and a shared resolver
/// still turns a burst of starting clients into one question per name. A client that
/// starts before its backend, or asks while the last balancer is away, does not wait
/// long for a cache.
pub const TTL: u32 = 5;

/// The value of `TXT _grpc_config.NAME`: gRFC A2's list of choices, with one choice for
/// all clients.
pub const SERVICE_CONFIG: &str =
    r#"grpc_config=[{"serviceConfig":{"loadBalancingConfig":[{"grpclb":{}}]}}]"#;

// A string of a TXT record has at most 255 bytes (RFC 1035, 3.3).
const _: () = assert!(SERVICE_CONFIG.len() <= 255);

/// The label of the balancers' own name, below the zone.
pub const BALANCER_LABEL: &str = "grpclb";
/// The labels before a service's name in a question for its balancers.
pub const LOCATOR: [&str; 2] = ["_grpclb", "_tcp"];
/// The label before a service's name in a question for its service config.
pub const SETTINGS: &str = "_grpc_config";

/// The target of one SRV record, with its addresses where the zone has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvTarget {
    /// In lower case, without a trailing dot.
    pub name: String,
    /// The port of the balancers with that name.
    pub port: u16,
    /// The addresses of all balancers with that name, in their order, without duplicates.
    /// Empty for a name outside the zone.
    pub addresses: Vec<IpAddr>,
}

/// The longest DNS name as text, in bytes (RFC 1035, section 2.3.4).
pub const NAME_MAX: usize = 253;

/// Returns the name below the zone under which clients ask for a service; `None` if they
/// cannot, because a label is too long, or has other characters than letters, digits, `-` and
/// `_`, or the name is too long.
#[must_use]
pub fn name_of(service: &ServiceName, zone: &Zone) -> Option<String> {
    let mut name = service.dns_name().to_ascii_lowercase();
    let inner = name.strip_suffix(zone.as_str()).and_then(|front| front.strip_suffix('.'));
    if let Some(length) = inner.map(str::len) {
        name.truncate(length);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('_')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let longest = LOCATOR.join(".").len() + name.len() + zone.as_str().len() + 2;
    (name.split('.').all(label) && longest <= NAME_MAX).then_some(name)
}

/// Returns the SRV targets of these balancers. All balancers with one port share one
/// name: C-core looks up targets in parallel and keeps them in the order of arrival of
/// the answers, so it spreads over the addresses of one name but crowds on one of many
/// names.
#[must_use]
pub fn srv_targets(balancers: &[HostPort], zone: &Zone) -> Vec<SrvTarget> {
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    let mut elsewhere = Vec::new();
    let mut seen = HashSet::new();
    for balancer in balancers.iter().filter(|balancer| seen.insert(*balancer)) {
        let port = balancer.port();
        match &balancer.host {
            Host::Ip(ip) => by_port.entry(port).or_default().push(*ip),
            Host::Name(name) => {
                elsewhere.push(SrvTarget { name: name.clone(), port, addresses: Vec::new() });
            }
        }
    }
    let alone = by_port.len() == 1;
    let of_port = |(port, addresses): (u16, Vec<IpAddr>)| {
        let name = if alone { balancer_name(zone) } else { port_name(port, zone) };
        SrvTarget { name, port, addresses }
    };
    elsewhere.sort_unstable_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
    by_port.into_iter().map(of_port).chain(elsewhere).collect()
}

/// Returns the name servers of the zone: the balancers, under a name in the zone,
/// unless all of them are known only by names outside it.
#[must_use]
pub fn name_servers(targets: &[SrvTarget], zone: &Zone) -> Vec<String> {
    if targets.is_empty() || targets.iter().any(|target| !target.addresses.is_empty()) {
        return vec![balancer_name(zone)];
    }
    let mut names: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
    names.dedup();
    names
}

/// Returns whether a label below the zone names balancers, all or those with one port.
#[must_use]
pub fn is_balancer_label(label: &[u8]) -> bool {
    let label = label.to_ascii_lowercase();
    let rest = label.strip_prefix(BALANCER_LABEL.as_bytes());
    let port = |rest: &[u8]| rest.len() > 1 && rest[1..].iter().all(u8::is_ascii_digit);
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'-' && port(rest))
}

/// Returns the name that has the addresses of all balancers.
#[must_use]
pub fn balancer_name(zone: &Zone) -> String {
    format!("{BALANCER_LABEL}.{zone}")
}

/// Returns the name that has the addresses of the balancers with this port.
#[must_use]
pub fn port_name(port: u16, zone: &Zone) -> String {
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
    fn a_service_has_a_name_if_clients_can_ask_for_it() {
        let zone = Zone::new("z").unwrap();
        let name = |service: &str| name_of(&ServiceName::new(service).unwrap(), &zone);
        assert_eq!(name("dev/Game").as_deref(), Some("game.dev"));
        assert_eq!(name("hello.z").as_deref(), Some("hello"));
        for service in ["_hidden", "h\u{fc}llo", "a:1", &"x".repeat(64), &["abcdefg"; 31].join("/")]
        {
            assert_eq!(name(service), None, "{service}");
        }
    }

    #[test]
    fn balancers_that_agree_on_a_port_share_one_name() {
        check(&[], &[], &["grpclb.z"]);
        check(
            &["10.0.0.2:1", "10.0.0.1:1", "[2001:db8::1]:1", "10.0.0.1:1"],
            &["grpclb.z:1 10.0.0.2 10.0.0.1 2001:db8::1"],
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
