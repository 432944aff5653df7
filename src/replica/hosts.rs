//! Which host names balancers may announce. Pure.
//!
//! In: rules of the operator, or the name that this balancer announces itself. Out: whether an
//! announced address counts. Whoever may write a balancer's key in etcd could otherwise send
//! clients to any name, for which they may even have a certificate.

use crate::model::{Host, HostPort};

/// The host names that count in announcements. IP addresses always count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BalancerHosts(Vec<Rule>);

/// Host names that count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// This name.
    Name(String),
    /// The names that end with this text, which begins with a dot.
    Below(String),
    /// The names of one label, which each host looks up in the domain of its own network.
    OneLabel,
}

impl BalancerHosts {
    /// Reads rules: `NAME`, or `*.DOMAIN` for all names below a domain. Adds the problems of
    /// those that are neither.
    #[must_use]
    pub fn parse(texts: &[String], problems: &mut Vec<String>) -> Self {
        let mut rules = Vec::new();
        for text in texts {
            let below = text.strip_prefix("*.");
            match (below, Host::parse(below.unwrap_or(text))) {
                (Some(_), Some(Host::Name(name))) => rules.push(Rule::Below(format!(".{name}"))),
                (None, Some(Host::Name(name))) => rules.push(Rule::Name(name)),
                (None, Some(Host::Ip(_))) => {}
                _ => problems.push(format!(
                    "{text:?} is no host name: write one without a port, such as lb1.example.com, \
                     or *.lb.example.com for all below a domain"
                )),
            }
        }
        Self(rules)
    }

    /// Returns the rules of a balancer whose operator gives none: its own name and the other
    /// names of the domain in which it is, and for an IP address no name. Directly below a
    /// top-level domain, anybody may have a name, so only its own counts there.
    #[must_use]
    pub fn beside(own: Option<&HostPort>) -> Self {
        let Some(HostPort { host: Host::Name(name), .. }) = own else { return Self::default() };
        let others = match name.split_once('.') {
            None => Some(Rule::OneLabel),
            Some((_, domain)) => domain.contains('.').then(|| Rule::Below(format!(".{domain}"))),
        };
        Self(others.into_iter().collect()).with(own)
    }

    /// Returns these rules and one more: the host of this address.
    #[must_use]
    pub fn with(mut self, own: Option<&HostPort>) -> Self {
        if let Some(HostPort { host: Host::Name(name), .. }) = own {
            self.0.push(Rule::Name(name.clone()));
        }
        self
    }

    /// Checks the address of an announcement.
    ///
    /// # Errors
    /// If its host is a name that no rule allows: the name and the remedy.
    pub fn check(&self, address: &HostPort) -> Result<(), String> {
        match &address.host {
            Host::Name(name) if !self.0.iter().any(|rule| rule.allows(name)) => Err(format!(
                "the host name {name:?} is not allowed for balancers: give --balancer-hosts \
                 {name} if it is one"
            )),
            _ => Ok(()),
        }
    }
}

impl Rule {
    fn allows(&self, name: &str) -> bool {
        match self {
            Self::Name(allowed) => allowed == name,
            Self::Below(domain) => name.ends_with(domain.as_str()),
            Self::OneLabel => !name.contains('.'),
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

    const ALL: [&str; 9] = [
        "10.0.0.1",
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
    fn names_count_that_a_rule_allows_and_addresses_always() {
        let parse = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            let mut problems = Vec::new();
            let hosts = BalancerHosts::parse(&texts, &mut problems);
            (hosts, problems)
        };
        let ip = &ALL[..2];
        for (rules, expected) in [
            (&[][..], &[][..]),
            (&["10.0.0.9"], &[]),
            (&["Lb1.Example."], &["lb1.example"]),
            (&["*.lb.example", "lb2"], &["lb2", "LB2.lb.example", "a.b.lb.example"]),
        ] {
            let (hosts, problems) = parse(rules);
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(allowed(&hosts, &ALL), [ip, expected].concat(), "{rules:?}");
        }
        // Its own name counts too, whatever the rules are.
        let (hosts, _) = parse(&["lb2"]);
        let hosts = hosts.with(Some(&address("lb1.example:1")));
        assert_eq!(allowed(&hosts, &ALL), [ip, &["lb2", "lb1.example"]].concat());
        for wrong in ["", "*", "a b", "*.10.0.0.1", "lb.example:443", "*.*.example", "l*.example"] {
            let (_, problems) = parse(&[wrong]);
            assert!(problems.len() == 1 && problems[0].contains("is no host name"), "{problems:?}");
        }
        let refused = hosts.check(&address("evil.example:443")).unwrap_err();
        assert!(refused.contains("\"evil.example\" is not allowed"), "{refused}");
        assert!(refused.contains("--balancer-hosts evil.example"), "{refused}");
    }

    #[test]
    fn without_rules_the_names_of_its_own_domain_count() {
        let ip = &ALL[..2];
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
