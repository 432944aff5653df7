//! Which hosts balancers may announce. Pure.
//!
//! In: rules of the operator, or the address that this balancer announces itself. Out: whether
//! an announced address counts. Whoever may write a balancer's key in etcd could otherwise send
//! clients anywhere: to any name, for which they may even have a certificate, or any address.

use crate::model::{Host, HostPort};
use crate::settings::Network;

/// The hosts that count in announcements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancerHosts(Vec<Rule>);

/// Hosts that count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// This name.
    Name(String),
    /// The names that end with this text, which begins with a dot.
    Below(String),
    /// The names of one label, which each host looks up in the domain of its own network.
    OneLabel,
    /// The addresses of this network.
    Network(Network),
    /// Every address: no operator says which ones balancers have.
    AnyAddress,
}

impl BalancerHosts {
    /// Reads rules: `NAME`, `*.DOMAIN` for all names below a domain, an address, or a network
    /// such as `10.1.0.0/16`. Adds the problems of those that are none of these.
    #[must_use]
    pub fn parse(texts: &[String], problems: &mut Vec<String>) -> Self {
        let mut rules = Vec::new();
        for text in texts {
            let below = text.strip_prefix("*.");
            match (below, Host::parse(below.unwrap_or(text))) {
                (Some(_), Some(Host::Name(name))) => rules.push(Rule::Below(format!(".{name}"))),
                (None, Some(host)) => rules.push(Rule::only(&host)),
                _ if text.contains('/') => match Network::parse(text) {
                    Ok(network) => rules.push(Rule::Network(network)),
                    Err(problem) => problems.push(problem),
                },
                _ => problems.push(format!(
                    "{text:?} is no host: write a name or an address without a port, such as \
                     lb1.example.com, *.lb.example.com for all below a domain, or 10.1.0.0/16 \
                     for the addresses of a network"
                )),
            }
        }
        Self(rules)
    }

    /// Returns the rules of a balancer whose operator gives none: every address, its own name
    /// and the other names of the domain in which it is. Directly below a top-level domain,
    /// anybody may have a name, so only its own counts there.
    #[must_use]
    pub fn beside(own: Option<&HostPort>) -> Self {
        let mut rules = vec![Rule::AnyAddress];
        if let Some(HostPort { host: Host::Name(name), .. }) = own {
            rules.extend(match name.split_once('.') {
                None => Some(Rule::OneLabel),
                Some((_, domain)) => {
                    domain.contains('.').then(|| Rule::Below(format!(".{domain}")))
                }
            });
        }
        Self(rules).with(own)
    }

    /// Returns these rules and one more: the host of this address.
    #[must_use]
    pub fn with(mut self, own: Option<&HostPort>) -> Self {
        self.0.extend(own.map(|own| Rule::only(&own.host)));
        self
    }

    /// Checks the address of an announcement.
    ///
    /// # Errors
    /// If no rule allows its host: the host and the remedy.
    pub fn check(&self, address: &HostPort) -> Result<(), String> {
        let host = &address.host;
        if self.0.iter().any(|rule| rule.allows(host)) {
            return Ok(());
        }
        let (what, text) = match host {
            Host::Name(name) => ("host name", name.clone()),
            Host::Ip(ip) => ("address", ip.to_string()),
        };
        Err(format!(
            "the {what} {text:?} is not allowed for balancers: give --balancer-hosts {text} if it \
             is one"
        ))
    }
}

impl Default for BalancerHosts {
    /// Returns the rules of a balancer that has no host name, and whose operator gives none.
    fn default() -> Self {
        Self::beside(None)
    }
}

impl Rule {
    /// Returns the rule that allows one host.
    fn only(host: &Host) -> Self {
        match host {
            Host::Name(name) => Self::Name(name.clone()),
            Host::Ip(ip) => Self::Network(Network::of(*ip)),
        }
    }

    fn allows(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Name(allowed), Host::Name(name)) => allowed == name,
            (Self::Below(domain), Host::Name(name)) => name.ends_with(domain.as_str()),
            (Self::OneLabel, Host::Name(name)) => !name.contains('.'),
            (Self::Network(network), Host::Ip(ip)) => network.has(*ip),
            (Self::AnyAddress, Host::Ip(_)) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> HostPort {
        HostPort::parse(text).unwrap()
    }

    /// Returns which of these hosts count.
    fn allowed<'a>(hosts: &BalancerHosts, all: &[&'a str]) -> Vec<&'a str> {
        let counts = |host: &&&str| hosts.check(&address(&format!("{host}:443"))).is_ok();
        all.iter().filter(counts).copied().collect()
    }

    const ALL: [&str; 10] = [
        "10.0.0.1",
        "10.0.1.1",
        "[2001:db8::1]",
        "lb1",
        "lb2",
        "lb1.example",
        "evil.example",
        "LB2.lb.example",
        "a.b.lb.example",
        "xlb.example",
    ];

    #[test]
    fn hosts_count_that_a_rule_allows_and_no_others() {
        let parse = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            let mut problems = Vec::new();
            let hosts = BalancerHosts::parse(&texts, &mut problems);
            (hosts, problems)
        };
        for (rules, expected) in [
            (&[][..], &[][..]),
            (&["10.0.0.9"], &[]),
            (&["10.0.1.1", "2001:db8::1"], &["10.0.1.1", "[2001:db8::1]"]),
            (&["10.0.0.0/24"], &["10.0.0.1"]),
            (&["10.0.0.0/23", "2001:db8::/32"], &["10.0.0.1", "10.0.1.1", "[2001:db8::1]"]),
            (&["::ffff:10.0.0.0/120"], &["10.0.0.1"]),
            (&["Lb1.Example."], &["lb1.example"]),
            (&["*.lb.example", "lb2"], &["lb2", "LB2.lb.example", "a.b.lb.example"]),
        ] {
            let (hosts, problems) = parse(rules);
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(allowed(&hosts, &ALL), expected, "{rules:?}");
        }
        // Its own host counts too, whatever the rules are.
        for (own, expected) in
            [("lb1.example:1", ["lb2", "lb1.example"]), ("10.0.1.1:1", ["10.0.1.1", "lb2"])]
        {
            let (hosts, _) = parse(&["lb2"]);
            let hosts = hosts.with(Some(&address(own)));
            assert_eq!(allowed(&hosts, &ALL), expected);
        }
        for (wrong, says) in [
            ("", "is no host"),
            ("*", "is no host"),
            ("a b", "is no host"),
            ("*.10.0.0.1", "is no host"),
            ("lb.example:443", "is no host"),
            ("*.*.example", "is no host"),
            ("l*.example", "is no host"),
            ("lb.example/24", "is no network"),
            ("10.0.0.1/33", "is no network"),
            ("10.0.0.1/24", "an address in 10.0.0.0/24: write that"),
        ] {
            let (_, problems) = parse(&[wrong]);
            assert!(problems.len() == 1 && problems[0].contains(says), "{problems:?}");
        }
        let (hosts, _) = parse(&["lb2"]);
        for (foreign, what) in [("evil.example", "host name"), ("10.0.0.1", "address")] {
            let refused = hosts.check(&address(&format!("{foreign}:443"))).unwrap_err();
            assert!(refused.contains(&format!("{what} \"{foreign}\" is not allowed")), "{refused}");
            assert!(refused.contains(&format!("--balancer-hosts {foreign} ")), "{refused}");
        }
    }

    #[test]
    fn without_rules_the_names_of_its_own_domain_and_all_addresses_count() {
        let ip = &ALL[..3];
        for (own, expected) in [
            ("10.0.0.1:1", &[][..]),
            ("lb1:1", &["lb1", "lb2"]),
            // Anybody may have a name there.
            ("lb1.example:1", &["lb1.example"]),
            ("lb1.lb.example:1", &["LB2.lb.example", "a.b.lb.example"]),
        ] {
            let hosts = BalancerHosts::beside(Some(&address(own)));
            assert_eq!(allowed(&hosts, &ALL), [ip, expected].concat(), "{own}");
        }
        assert_eq!(allowed(&BalancerHosts::beside(None), &ALL), ip);
    }
}
