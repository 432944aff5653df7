//! Which prefixes of keys may register which services. Pure.
//!
//! In: prefixes with patterns, from documents; a key and the service that it registers. Out:
//! whether it may, or why not. etcd's permissions bound keys and not names, so a registrant
//! that may write one prefix could otherwise take over any service.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Pattern;
use crate::model::ServiceName;

/// The services that each prefix may register.
///
/// The longest prefix that a key begins with decides. A service that a row names belongs to
/// the rows that name it, so keys below no row may register only the other services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registrants(BTreeMap<Arc<str>, Arc<[Pattern]>>);

impl Registrants {
    /// Makes a table of prefixes and patterns.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = (Arc<str>, Arc<[Pattern]>)>) -> Self {
        Self(rows.into_iter().collect())
    }

    /// Returns one table of several; a later one wins, prefix by prefix.
    #[must_use]
    pub fn merged<'a>(tables: impl IntoIterator<Item = &'a Self>) -> Self {
        let rows = tables.into_iter().flat_map(|table| table.0.iter());
        Self(rows.map(|(prefix, patterns)| (prefix.clone(), patterns.clone())).collect())
    }

    /// Returns whether every key may register every service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the prefixes, sorted, each with what it may register.
    pub fn rows(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<[Pattern]>)> {
        self.0.iter()
    }

    /// Returns why a key may not register a service; `None` if it may.
    #[must_use]
    pub fn problem(&self, key: &[u8], service: &ServiceName) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let canonical = service.canonical();
        let matches = |patterns: &[Pattern]| patterns.iter().any(|one| one.matches(&canonical));
        let below = self.0.iter().filter(|(prefix, _)| key.starts_with(prefix.as_bytes()));
        match below.max_by_key(|(prefix, _)| prefix.len()) {
            Some((_, patterns)) if matches(patterns) => None,
            Some((prefix, patterns)) => Some(format!(
                "keys below {prefix:?} may register {}, and not {service:?}: register it below \
                 its own prefix, or change [registrants] in the settings",
                listed(patterns),
                service = service.as_str()
            )),
            None => {
                let (owner, _) = self.0.iter().find(|(_, patterns)| matches(patterns))?;
                Some(format!(
                    "only keys below {owner:?} may register {service:?}: register it there, or \
                     change [registrants] in the settings",
                    service = service.as_str()
                ))
            }
        }
    }
}

/// Returns patterns as text for people.
fn listed(patterns: &[Pattern]) -> String {
    match patterns {
        [] => "nothing".to_owned(),
        some => some.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &[&str])]) -> Registrants {
        let patterns =
            |all: &[&str]| all.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Registrants::new(rows.iter().map(|(prefix, all)| (Arc::from(*prefix), patterns(all))))
    }

    #[test]
    fn a_prefix_registers_its_own_services_and_no_other_key_does() {
        let rows: [(&str, &[&str]); 4] = [
            ("/reg/a/", &["a/*", "shared"]),
            ("/reg/a/old/", &[]),
            ("/reg/b/", &["b*", "shared"]),
            ("/reg/pay/", &["pay"]),
        ];
        let table = table(&rows);
        for (key, service, expected) in [
            ("/reg/a/1", "a/x", ""),
            ("/reg/a/1", "x.a", ""),
            ("/reg/a/1", "shared", ""),
            ("/reg/b/1", "shared", ""),
            ("/reg/a/1", "pay", "may register a/*, shared, and not \"pay\""),
            // Another spelling of a name is the same service.
            ("/reg/a/1", "PAY", "and not \"PAY\""),
            ("/reg/c/1", "Pay", "only keys below \"/reg/pay/\" may register \"Pay\""),
            ("/reg/a/old/1", "a/x", "may register nothing"),
            ("/reg/b/1", "a/x", "may register b*, shared"),
            ("/reg/c/1", "c", ""),
            ("/reg/a", "c", ""),
            ("/reg/c/1", "a/x", "only keys below \"/reg/a/\""),
        ] {
            let name = ServiceName::new(service).unwrap();
            let problem = table.problem(key.as_bytes(), &name).unwrap_or_default();
            assert_eq!(problem.is_empty(), expected.is_empty(), "{key} {service}: {problem}");
            assert!(problem.contains(expected), "{key} {service}: {problem}");
        }
        assert_eq!(Registrants::default().problem(b"/x", &ServiceName::new("a").unwrap()), None);
    }

    #[test]
    fn a_later_table_wins_prefix_by_prefix() {
        let (file, store) = (table(&[("/a/", &["a"]), ("/b/", &["b"])]), table(&[("/a/", &["c"])]));
        assert_eq!(
            Registrants::merged([&file, &store]),
            table(&[("/a/", &["c"]), ("/b/", &["b"])])
        );
    }
}
