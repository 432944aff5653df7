//! Which prefixes of keys may register which services. Pure.
//!
//! In: prefixes with patterns, from documents; a key and the service that it registers. Out:
//! whether it may, or why not. etcd's permissions bound keys and not names, so a registrant
//! that may write one prefix could otherwise take over any service.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Pattern;
use super::pattern_index::PatternIndex;
use crate::model::ServiceName;
use crate::registry::{Reading, Registration, Rejected, Remark};

/// The services that each prefix may register.
///
/// The longest prefix that a key begins with decides. A service that a row names belongs to
/// the rows that name it, so keys below no row may register only the other services. A service
/// whose name would select backends of another one needs the right to that one too, or a row
/// that names it in full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registrants {
    rows: BTreeMap<Arc<str>, Arc<[Pattern]>>,
    owners: Arc<Owners>,
}

/// The patterns of all rows, in their order, so that a service of no row costs a few look-ups.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owners {
    patterns: Vec<(Pattern, Arc<str>)>,
    index: PatternIndex,
}

impl Registrants {
    /// Makes a table of prefixes and patterns.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = (Arc<str>, Arc<[Pattern]>)>) -> Self {
        let rows: BTreeMap<Arc<str>, Arc<[Pattern]>> = rows.into_iter().collect();
        let owned = |(prefix, patterns): (&Arc<str>, &Arc<[Pattern]>)| -> Vec<_> {
            patterns.iter().map(|pattern| (pattern.clone(), prefix.clone())).collect()
        };
        let patterns: Vec<(Pattern, Arc<str>)> = rows.iter().flat_map(owned).collect();
        let index = PatternIndex::new(patterns.iter().map(|one| &one.0));
        Self { rows, owners: Arc::new(Owners { patterns, index }) }
    }

    /// Returns one table of several; a later one wins, prefix by prefix.
    #[must_use]
    pub fn merged<'a>(tables: impl IntoIterator<Item = &'a Self>) -> Self {
        let rows = tables.into_iter().flat_map(|table| table.rows.iter());
        Self::new(rows.map(|(prefix, patterns)| (prefix.clone(), patterns.clone())))
    }

    /// Returns whether every key may register every service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the prefixes, sorted, each with what it may register.
    pub fn rows(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<[Pattern]>)> {
        self.rows.iter()
    }

    /// Returns why a key may not register a service; `None` if it may.
    #[must_use]
    pub fn problem(&self, key: &[u8], service: &ServiceName) -> Option<String> {
        if self.rows.is_empty() {
            return None;
        }
        let canonical = service.canonical();
        let row = self.row_of(key);
        let patterns = row.map_or(&[][..], |(_, patterns)| &**patterns);
        let may = |canonical: &str| patterns.iter().any(|one| one.matches(canonical));
        match row {
            Some(_) if may(&canonical) => {}
            Some((prefix, _)) => {
                return Some(format!(
                    "keys below {prefix:?} may register {}, and not {service:?}: register it below \
                     its own prefix, or change [registrants] in the settings",
                    listed(patterns),
                    service = service.as_str()
                ));
            }
            None => {
                if let Some(owner) = self.owners.of(&canonical) {
                    return Some(format!(
                        "only keys below {owner:?} may register {service:?}: register it there, or \
                         change [registrants] in the settings",
                        service = service.as_str()
                    ));
                }
            }
        }
        if patterns.iter().any(|one| !one.is_starred() && one.matches(&canonical)) {
            return None;
        }
        // A service wins over a selection of the same name, so it takes the clients that select.
        let mut selected = service.selections().into_iter().filter(|other| !may(other));
        selected.find_map(|other| {
            let owner = self.owners.of(&other)?;
            Some(format!(
                "clients that ask for {service:?} may mean backends of {other:?}, which only keys \
                 below {owner:?} may register: give the service another name, or name it in full \
                 for its own prefix in [registrants] of the settings",
                service = service.as_str()
            ))
        })
    }

    /// Returns what is left of a key's value without the registrations that the key may not
    /// make: the others and a remark, or why the key is rejected. Returns `None` if it may make
    /// all of them.
    #[must_use]
    pub fn restrict(&self, key: &[u8], reading: &Reading) -> Option<Result<Reading, Rejected>> {
        let problem = |one: &Registration| self.problem(key, &one.service);
        let all = &reading.registrations;
        let (one, reason) = all.iter().find_map(|one| Some((one, problem(one)?)))?;
        let registrations: Vec<_> =
            all.iter().filter(|one| problem(one).is_none()).cloned().collect();
        if registrations.is_empty() {
            return Some(Err(Rejected { reason, value: one.address.to_string() }));
        }
        let mut remarks = reading.remarks.clone();
        remarks.push(Remark(format!("left out: {reason}").into()));
        Some(Ok(Reading { registrations, remarks }))
    }

    /// Returns the row with the longest prefix that a key begins with.
    fn row_of(&self, key: &[u8]) -> Option<(&Arc<str>, &Arc<[Pattern]>)> {
        // A prefix is UTF-8, so it ends before anything of the key that is not.
        let mut rest = key.utf8_chunks().next()?.valid();
        loop {
            let below = (Bound::Unbounded, Bound::Included(rest));
            let (prefix, patterns) = self.rows.range::<str, _>(below).next_back()?;
            if rest.starts_with(&**prefix) {
                return Some((prefix, patterns));
            }
            // All prefixes of the key that sort before this one are prefixes of it too.
            let same = rest.chars().zip(prefix.chars()).take_while(|(one, other)| one == other);
            rest = &rest[..same.map(|(one, _)| one.len_utf8()).sum()];
        }
    }
}

impl Owners {
    /// Returns the first prefix whose row names a service.
    fn of(&self, canonical: &str) -> Option<&Arc<str>> {
        let candidates = self.index.candidates(canonical);
        let mut patterns = candidates.into_iter().map(|place| &self.patterns[place]);
        patterns.find(|(pattern, _)| pattern.matches(canonical)).map(|(_, prefix)| prefix)
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
    use proptest::prelude::*;

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
    fn a_service_named_like_a_selection_needs_the_right_to_the_service_that_it_selects() {
        let rows: [(&str, &[&str]); 4] = [
            ("/reg/a/", &["id--*", "a"]),
            ("/reg/canary/", &["id--7.pay"]),
            ("/reg/both/", &["id--8.*", "pay"]),
            ("/reg/pay/", &["pay", "dev/pay"]),
        ];
        let table = table(&rows);
        let taken = "may mean backends of \"pay\", which only keys below";
        for (key, service, expected) in [
            ("/reg/none/1", "zone--a.pay", taken),
            ("/reg/none/1", "Zone--A.Pay", taken),
            ("/reg/none/1", "pay/zone--a", taken),
            ("/reg/none/1", "zone--a.version--2.pay", taken),
            ("/reg/none/1", "zone--a.dev/pay", "may mean backends of \"pay.dev\""),
            ("/reg/a/1", "id--8.pay", taken),
            ("/reg/a/1", "id--8.a", ""),
            ("/reg/pay/1", "id--8.pay", "may register pay, dev/pay, and not"),
            // A row that names it in full, and one that may register what it selects.
            ("/reg/canary/1", "id--7.pay", ""),
            ("/reg/both/1", "id--8.pay", ""),
        ] {
            let name = ServiceName::new(service).unwrap();
            let problem = table.problem(key.as_bytes(), &name).unwrap_or_default();
            assert_eq!(problem.is_empty(), expected.is_empty(), "{key} {service}: {problem}");
            assert!(problem.contains(expected), "{key} {service}: {problem}");
        }
        // Nobody owns what it selects.
        let free = ServiceName::new("album-api--first.env1").unwrap();
        let rows: [(&str, &[&str]); 1] = [("/reg/pay/", &["pay"])];
        assert_eq!(self::table(&rows).problem(b"/reg/x/1", &free), None);
    }

    #[test]
    fn a_later_table_wins_prefix_by_prefix() {
        let (file, store) = (table(&[("/a/", &["a"]), ("/b/", &["b"])]), table(&[("/a/", &["c"])]));
        assert_eq!(
            Registrants::merged([&file, &store]),
            table(&[("/a/", &["c"]), ("/b/", &["b"])])
        );
    }

    proptest! {
        /// The look-ups find what a look at every row finds.
        #[test]
        fn the_longest_prefix_and_the_first_owner_count(
            rows in proptest::collection::btree_map(
                "/[ab/é]{1,4}",
                proptest::collection::vec("[abc*]{1,3}", 0..3),
                0..8,
            ),
            key in "/[ab/éü]{0,6}",
            service in "[abc]{1,3}",
            broken in any::<bool>(),
        ) {
            let parsed = |all: &Vec<String>| -> Arc<[Pattern]> {
                all.iter().filter_map(|text| Pattern::parse(text).ok()).collect()
            };
            let rows: Vec<(Arc<str>, Arc<[Pattern]>)> =
                rows.iter().map(|(prefix, all)| (prefix.as_str().into(), parsed(all))).collect();
            let table = Registrants::new(rows.iter().cloned());
            let mut key = key.into_bytes();
            if broken {
                key.insert(key.len() / 2, 0xff);
            }
            let longest = rows
                .iter()
                .filter(|(prefix, _)| key.starts_with(prefix.as_bytes()))
                .max_by_key(|(prefix, _)| prefix.len());
            prop_assert_eq!(table.row_of(&key).map(|one| one.0), longest.map(|one| &one.0));
            let names = |one: &&(Arc<str>, Arc<[Pattern]>)| {
                one.1.iter().any(|pattern| pattern.matches(&service))
            };
            let owner = rows.iter().find(names).map(|one| &one.0);
            prop_assert_eq!(table.owners.of(&service), owner);
        }
    }
}
