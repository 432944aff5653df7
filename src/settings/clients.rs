//! Which clients may ask for a service. Pure.
//!
//! In: the text of the rules, and a client's identity. Out: whether the client may ask.
//! A client may ask if one rule names it. A rule that names a certificate never matches a
//! client without one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Network;
use crate::model::ClientIdentity;

/// The clients that may ask for a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clients(Option<Arc<[Rule]>>);

/// One rule: the clients that it names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Rule {
    /// Clients whose certificate has this URI.
    Uri(Arc<str>),
    /// Clients whose certificate has a URI that begins with this text, which ends with a
    /// slash.
    UrisBelow(Arc<str>),
    /// Clients whose certificate has this DNS name.
    Dns(Arc<str>),
    /// Clients whose certificate has a DNS name that ends with this text, which begins with
    /// a dot.
    DnsBelow(Arc<str>),
    /// Clients with an address in this network.
    Network(Network),
}

/// The longest text of all rules, in bytes: about a hundred SPIFFE IDs.
pub(super) const CLIENTS_MAX: usize = 8 * 1024;
/// The most rules. Each may be compared with each name of a client that asks.
const RULES_MAX: usize = 128;
const ALL: &str = "all";
const NOBODY: &str = "nobody";
const DNS: &str = "dns:";

impl Clients {
    /// Every client may ask.
    pub const ALL: Self = Self(None);

    /// Parses `all`, `nobody`, or rules that are separated by commas.
    ///
    /// # Errors
    /// If a rule names no client: the rule and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            ALL => return Ok(Self::ALL),
            NOBODY => return Ok(Self(Some(Arc::default()))),
            "" => {
                return Err("it is empty: write \"all\", \"nobody\", or whom it is for".to_owned());
            }
            _ => {}
        }
        let rules: Vec<Rule> =
            text.split(',').map(|rule| Rule::parse(rule.trim())).collect::<Result<_, _>>()?;
        if rules.len() > RULES_MAX {
            let found = rules.len();
            return Err(format!(
                "there are {found} rules: at most {RULES_MAX} are allowed, so use * or wider networks"
            ));
        }
        Ok(Self(Some(rules.into())))
    }

    /// Returns whether a client may ask.
    #[must_use]
    pub fn may_ask(&self, client: &ClientIdentity) -> bool {
        match &self.0 {
            None => true,
            Some(rules) => rules.iter().any(|rule| rule.names(client)),
        }
    }

    /// Returns whether a client may ask of which nothing is known but its address, as in DNS.
    #[must_use]
    pub fn may_address_ask(&self, address: IpAddr) -> bool {
        self.may_ask(&ClientIdentity::from(SocketAddr::new(address, 0)))
    }

    /// Returns the first rule that names a certificate, which clients show only with mutual
    /// TLS.
    #[must_use]
    pub fn first_of_certificates(&self) -> Option<String> {
        let rules = self.0.iter().flat_map(|rules| rules.iter());
        let mut rules = rules.filter(|rule| !matches!(rule, Rule::Network(_)));
        rules.next().map(ToString::to_string)
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a rule is empty: leave it out".to_owned());
        }
        if text == ALL || text == NOBODY {
            return Err(format!("{text:?} stands alone: leave out the other rules"));
        }
        if let Some(odd) = text.chars().find(|odd| odd.is_control() || odd.is_whitespace()) {
            return Err(format!("{text:?} names no client: {odd:?} may not be in a rule"));
        }
        let star = |place: &str| format!("{text:?}: a star may only stand {place}");
        if let Some(name) = text.strip_prefix(DNS) {
            let name = name.to_ascii_lowercase();
            let (below, rest) = match name.strip_prefix('*') {
                Some(rest) => (true, rest),
                None => (false, &*name),
            };
            let labels = if below { rest.strip_prefix('.').unwrap_or_default() } else { rest };
            if labels.contains('*') {
                return Err(star("at the beginning, as in dns:*.web.example"));
            }
            if labels.split('.').any(str::is_empty) {
                return Err(format!("{text:?} is no DNS name: write one such as dns:web.example"));
            }
            return Ok(if below { Self::DnsBelow(rest.into()) } else { Self::Dns(rest.into()) });
        }
        if let Some((scheme, path)) = text.split_once("://") {
            let below = path.strip_suffix("/*");
            if scheme.contains('*') || below.unwrap_or(path).contains('*') {
                return Err(star("at the end, as in spiffe://prod/web/*"));
            }
            if scheme.is_empty() || below.unwrap_or(path).is_empty() {
                return Err(format!("{text:?} is no URI: write one such as spiffe://prod/web"));
            }
            return Ok(match below {
                Some(_) => Self::UrisBelow(text[..text.len() - 1].into()),
                None => Self::Uri(text.into()),
            });
        }
        Network::parse(text).map(Self::Network).map_err(|error| match text.contains('/') {
            true => error,
            false => format!(
                "{text:?} names no client: write a URI such as spiffe://prod/web, a DNS name \
                 such as dns:web.example, or a network such as 10.0.0.0/8"
            ),
        })
    }

    fn names(&self, client: &ClientIdentity) -> bool {
        let ClientIdentity { addr, certificate } = client;
        let uris = || certificate.iter().flat_map(|names| &names.uris);
        let dns = || certificate.iter().flat_map(|names| &names.dns);
        match self {
            Self::Uri(uri) => uris().any(|name| **name == **uri),
            Self::UrisBelow(start) => {
                uris().any(|name| name.len() > start.len() && name.starts_with(&**start))
            }
            Self::Dns(name) => dns().any(|own| **own == **name),
            // A certificate for `*.web.example` is for hosts, and names none of them.
            Self::DnsBelow(end) => dns()
                .any(|own| own.len() > end.len() && own.ends_with(&**end) && !own.contains('*')),
            Self::Network(network) => network.has(addr.ip()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::UrisBelow(start) => write!(f, "{start}*"),
            Self::Dns(name) => write!(f, "{DNS}{name}"),
            Self::DnsBelow(end) => write!(f, "{DNS}*{end}"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// The text that [`Clients::parse`] reads.
impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            None => f.write_str(ALL),
            Some([]) => f.write_str(NOBODY),
            Some([first, rest @ ..]) => {
                first.fmt(f)?;
                rest.iter().try_for_each(|rule| write!(f, ", {rule}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CertificateNames;

    fn client(addr: &str, uris: &[&str], dns: &[&str]) -> ClientIdentity {
        let boxed = |all: &[&str]| all.iter().map(|&one| one.into()).collect();
        let names = CertificateNames { uris: boxed(uris), dns: boxed(dns) };
        let certificate = Some(Arc::new(names));
        ClientIdentity { addr: format!("{addr}:1").parse().unwrap(), certificate }
    }

    #[test]
    fn a_client_may_ask_if_one_rule_names_it() {
        let web = client("10.1.2.3", &["spiffe://prod/web"], &["a.web.example"]);
        let bare = ClientIdentity::from("10.1.2.3:1".parse::<SocketAddr>().unwrap());
        for (rules, with, without) in [
            ("all", true, true),
            ("nobody", false, false),
            ("spiffe://prod/web", true, false),
            ("spiffe://prod/*", true, false),
            ("spiffe://prod/web/*", false, false),
            ("spiffe://prod/we", false, false),
            ("spiffe://prod/web2, spiffe://prod/w/*", false, false),
            ("spiffe://PROD/web", false, false),
            ("dns:a.web.example", true, false),
            ("dns:A.WEB.example", true, false),
            ("dns:*.web.example", true, false),
            ("dns:*.example", true, false),
            ("dns:web.example", false, false),
            ("dns:*.a.web.example", false, false),
            ("10.0.0.0/8", true, true),
            ("10.1.2.3", true, true),
            ("10.1.2.4, 192.0.2.0/24", false, false),
            ("::ffff:10.0.0.0/104", true, true),
            ("2001:db8::/32, spiffe://prod/web", true, false),
        ] {
            let parsed = Clients::parse(rules).unwrap();
            assert_eq!((parsed.may_ask(&web), parsed.may_ask(&bare)), (with, without), "{rules}");
            assert_eq!(Clients::parse(&parsed.to_string()), Ok(parsed), "{rules}");
        }
        let mapped = client("[::ffff:10.1.2.3]", &[], &["*.web.example"]);
        assert!(Clients::parse("10.0.0.0/8").unwrap().may_ask(&mapped));
        // A wildcard in a certificate is no name of a client.
        assert!(!Clients::parse("dns:*.web.example").unwrap().may_ask(&mapped));
        assert!(!Clients::parse("dns:*.example").unwrap().may_ask(&mapped));
    }

    #[test]
    fn what_names_no_client_is_refused_with_a_remedy() {
        for (text, expected) in [
            ("", "is empty"),
            ("10.0.0.0/8,", "a rule is empty"),
            ("all, 10.0.0.0/8", "stands alone"),
            ("10.1.2.3/8", "write that"),
            ("web", "names no client"),
            ("*", "names no client"),
            ("web example", "may not be in a rule"),
            ("spiffe://prod/*/web", "at the end"),
            ("spiffe://prod*", "at the end"),
            ("*://prod", "at the end"),
            ("spiffe://", "is no URI"),
            ("spiffe:///*", "is no URI"),
            ("dns:*web.example", "is no DNS name"),
            ("dns:a.*.example", "at the beginning"),
            ("dns:*.", "is no DNS name"),
            ("dns:", "is no DNS name"),
            ("dns:a..b", "is no DNS name"),
        ] {
            let error = Clients::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let many = vec!["10.0.0.1"; RULES_MAX + 1].join(",");
        assert!(Clients::parse(&many).unwrap_err().contains("129 rules"));
    }

    #[test]
    fn rules_of_certificates_are_found() {
        let first = |text: &str| Clients::parse(text).unwrap().first_of_certificates();
        assert_eq!(first("10.0.0.0/8, dns:*.b.c, spiffe://a/b").as_deref(), Some("dns:*.b.c"));
        assert_eq!((first("10.0.0.0/8"), first("all"), first("nobody")), (None, None, None));
    }
}
