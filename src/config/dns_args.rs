//! Flags of the DNS server.
//!
//! In: text from flags, environment and file. Out: a [`DnsConfig`], or the problems.

use std::net::{IpAddr, SocketAddr};

use super::{listen, take};

/// Flags of the DNS server.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DnsServerArgs {
    /// Address of the DNS server for the zone, by UDP and TCP [default: no DNS server]
    #[arg(long, value_name = "IP:PORT", env = "LOOKASIDE_DNS_LISTEN")]
    pub dns_listen: Option<String>,
    /// A DNS server that keeps a copy of the zone: it may have the whole zone (AXFR) from its IP
    /// address, and is told of changes (NOTIFY) at its port; repeatable [default port: 53]
    #[arg(long, value_name = "IP[:PORT]", value_delimiter = ',', env = "LOOKASIDE_DNS_SECONDARY")]
    pub dns_secondary: Vec<String>,
    /// Where in etcd to keep the zone's records for CoreDNS's plugin etcd, in the form of SkyDNS
    /// [default: nowhere]
    #[arg(long, value_name = "PREFIX", env = "LOOKASIDE_SKYDNS_PREFIX")]
    pub skydns_prefix: Option<String>,
}

/// The DNS server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Its address; `None`: no DNS server.
    pub listen: Option<SocketAddr>,
    /// The servers that keep a copy of the zone.
    pub secondaries: Vec<SocketAddr>,
    /// The prefix of the zone's records in etcd; `None`: no records.
    pub skydns_prefix: Option<String>,
}

/// The port of DNS servers.
const PORT: u16 = 53;

impl DnsServerArgs {
    /// Checks the flags. `etcd` tells whether there is an etcd of the operator's.
    pub(super) fn validate(&self, etcd: bool, problems: &mut Vec<String>) -> Option<DnsConfig> {
        let before = problems.len();
        let address = self.dns_listen.as_deref();
        let address = address.map(|text| listen("--dns-listen", text, problems));
        let known = self.dns_secondary.iter();
        let secondaries = known
            .filter_map(|text| take("--dns-secondary", secondary(text), problems))
            .collect::<Vec<_>>();
        if self.dns_listen.is_none() && !self.dns_secondary.is_empty() {
            problems.push(
                "--dns-secondary: there is no zone to copy: --dns-listen turns the DNS server on"
                    .to_owned(),
            );
        }
        if let Some(prefix) = &self.skydns_prefix {
            let valid = prefix.starts_with('/') && !prefix.trim_matches('/').is_empty();
            if !valid {
                problems.push(format!(
                    "--skydns-prefix: {prefix:?} is no prefix of keys: give the one that CoreDNS \
                     reads, such as /skydns"
                ));
            } else if !etcd {
                problems.push(
                    "--skydns-prefix: the embedded registry is not for CoreDNS: --etcd names an etcd"
                        .to_owned(),
                );
            }
        }
        let skydns_prefix = self.skydns_prefix.clone();
        let config = DnsConfig { listen: address.flatten(), secondaries, skydns_prefix };
        (problems.len() == before).then_some(config)
    }
}

fn secondary(text: &str) -> Result<SocketAddr, String> {
    let alone = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, PORT));
    let address = text.parse().ok().or_else(alone);
    let address = address.filter(|address| !address.ip().is_unspecified() && address.port() > 0);
    address.ok_or_else(|| {
        format!("{text:?} is no IP[:PORT] of a DNS server, such as 10.0.0.53 or 10.0.0.53:5353")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secondary_is_an_address() {
        for (text, expected) in [
            ("10.0.0.53", "10.0.0.53:53"),
            ("10.0.0.53:5353", "10.0.0.53:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(secondary(text), Ok(expected.parse().unwrap()));
        }
        for text in ["", "ns.example.com", "0.0.0.0", "10.0.0.53:0", "10.0.0.53:x"] {
            assert!(secondary(text).unwrap_err().contains(&format!("{text:?}")));
        }
    }

    #[test]
    fn there_is_no_copy_without_a_zone() {
        let mut problems = Vec::new();
        let secondary = vec!["10.0.0.53".to_owned()];
        let args = DnsServerArgs { dns_secondary: secondary, ..DnsServerArgs::default() };
        assert_eq!(args.validate(true, &mut problems), None);
        assert!(matches!(&problems[..], [one] if one.contains("--dns-listen")), "{problems:?}");
    }

    #[test]
    fn records_need_an_etcd_and_a_prefix() {
        for (prefix, etcd, expected) in
            [("/skydns", false, "--etcd"), ("skydns", true, "\"skydns\""), ("//", true, "/skydns")]
        {
            let args = DnsServerArgs {
                skydns_prefix: Some(prefix.to_owned()),
                ..DnsServerArgs::default()
            };
            let mut problems = Vec::new();
            assert_eq!(args.validate(etcd, &mut problems), None);
            assert!(matches!(&problems[..], [one] if one.contains(expected)), "{problems:?}");
        }
    }
}
