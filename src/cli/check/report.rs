//! Decodes keys with the prefixes and reports the result. Pure.
//!
//! In: prefixes, keys and values. Out: a [`Report`]: counts for each prefix, and the reason
//! and the remedy for each rejected key. Its JSON is for programs: fields are added and
//! never renamed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::registry::record::{self, Decoded, Format, NAMED, Prefix};
use crate::registry::{Registration, Rejected};
use crate::settings::Registrants;

/// The result of a dry run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// In the order of the settings.
    pub(super) prefixes: Vec<PrefixReport>,
    /// Sorted by name.
    pub(super) services: Vec<Service>,
    /// The number of rejected keys.
    pub(super) not_understood: usize,
    /// Sorted by key.
    pub(super) rejected: Vec<RejectedKey>,
    /// Keys that are read with remarks, sorted by key.
    pub(super) remarks: Vec<RemarkedKey>,
    /// Why the shared settings in etcd do not count.
    pub(super) settings_problem: Option<String>,
}

/// The keys below one prefix, counted.
#[derive(Debug, Default, Serialize)]
pub(super) struct PrefixReport {
    pub(super) prefix: String,
    pub(super) format: String,
    /// The number of keys that this prefix decides.
    pub(super) keys: usize,
    /// The number of keys below it, including those that a longer prefix decides.
    pub(super) keys_below: usize,
    /// The number of keys that register at least one backend.
    pub(super) understood: usize,
    /// Keys that register no backend by design, by reason.
    pub(super) nothing: Vec<Nothing>,
    /// The number of rejected keys.
    pub(super) not_understood: usize,
    /// The likely mistake in the prefix itself, with its remedy.
    pub(super) hint: Option<String>,
}

/// Keys that register no backend by design.
#[derive(Debug, Serialize)]
pub(super) struct Nothing {
    pub(super) reason: String,
    pub(super) keys: usize,
    /// The first such key.
    pub(super) example: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub(super) name: String,
    /// The name that clients dial, without the zone.
    pub(super) dns_name: String,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Endpoint {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) weight: u32,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) key: String,
}

/// A key that cannot be decoded.
#[derive(Debug, Serialize)]
pub(super) struct RejectedKey {
    pub(super) key: String,
    /// The beginning of the key's value.
    pub(super) value: String,
    pub(super) prefix: String,
    pub(super) reason: String,
    /// Formats that would read the key, the likeliest first.
    pub(super) formats: Vec<&'static str>,
}

/// A key that is read although something about it is odd.
#[derive(Debug, Serialize)]
pub(super) struct RemarkedKey {
    pub(super) key: String,
    pub(super) remarks: Vec<String>,
}

impl Report {
    /// Returns whether each prefix holds keys, no key is rejected and all settings count.
    pub(super) fn is_well(&self) -> bool {
        let keys = self.not_understood == 0;
        let prefixes = self.prefixes.iter().all(|found| found.keys_below > 0);
        keys && prefixes && self.settings_problem.is_none()
    }

    /// Makes the report of keys. `registrants` has the rules about who registers what.
    pub(super) fn new(
        prefixes: &[Prefix],
        registrants: &Registrants,
        keys: &[(Vec<u8>, Vec<u8>)],
    ) -> Self {
        let counted = |prefix: &Prefix| PrefixReport {
            prefix: prefix.path.clone(),
            format: prefix.format.to_string(),
            ..PrefixReport::default()
        };
        let mut report =
            Self { prefixes: prefixes.iter().map(counted).collect(), ..Self::default() };
        let mut sorted = prefixes.to_vec();
        record::sort(&mut sorted);
        let mut services: BTreeMap<String, Service> = BTreeMap::new();
        // By prefix: the formats that would find a backend in keys that register none, with
        // the number of such keys.
        let mut missed: BTreeMap<String, BTreeMap<&'static str, usize>> = BTreeMap::new();
        for (key, value) in keys {
            for found in &mut report.prefixes {
                found.keys_below += usize::from(key.starts_with(found.prefix.as_bytes()));
            }
            let Some((prefix, reading)) = record::decode_by_prefixes(&sorted, key, value) else {
                continue;
            };
            let found = report.prefixes.iter_mut().find(|found| found.prefix == prefix.path);
            let Some(found) = found else { continue };
            found.keys += 1;
            let key_text = String::from_utf8_lossy(key).into_owned();
            let restricted = match &reading {
                Ok(Decoded::Registers(all)) => registrants.restrict(key, all),
                _ => None,
            };
            // Another format is no remedy for a forbidden key.
            let forbidden = matches!(restricted, Some(Err(_)));
            let reading = restricted.map_or(reading, |rest| rest.map(Decoded::Registers));
            match reading {
                Ok(Decoded::Registers(all)) => {
                    found.understood += 1;
                    if !all.remarks.is_empty() {
                        let remarks = all.remarks.iter().map(ToString::to_string).collect();
                        report.remarks.push(RemarkedKey { key: key_text.clone(), remarks });
                    }
                    all.registrations
                        .iter()
                        .for_each(|one| register(&mut services, one, &key_text));
                }
                Ok(Decoded::Nothing(reason)) => {
                    for name in read_by(prefix, key, value) {
                        *missed.entry(prefix.path.clone()).or_default().entry(name).or_default() +=
                            1;
                    }
                    match found.nothing.iter_mut().find(|known| known.reason == reason) {
                        Some(known) => known.keys += 1,
                        None => found.nothing.push(Nothing { reason, keys: 1, example: key_text }),
                    }
                }
                Err(Rejected { reason, value: shown }) => {
                    found.not_understood += 1;
                    report.not_understood += 1;
                    report.rejected.push(RejectedKey {
                        formats: if forbidden { Vec::new() } else { read_by(prefix, key, value) },
                        key: key_text,
                        value: shown,
                        prefix: prefix.path.clone(),
                        reason,
                    });
                }
            }
        }
        for found in report.prefixes.iter_mut().filter(|found| found.understood == 0) {
            let by_name = missed.get(&found.prefix).into_iter().flatten();
            // The format that reads most keys; of several, the likeliest.
            let order = |name: &str| NAMED.iter().position(|(named, _)| *named == name);
            let best = by_name.max_by_key(|(name, keys)| (**keys, std::cmp::Reverse(order(name))));
            found.hint = best.map(|(name, keys)| {
                format!("{name} would read {keys} of them: --prefix {}={name}", found.prefix)
            });
        }
        report.rejected.sort_by(|a, b| a.key.cmp(&b.key));
        report.remarks.sort_by(|a, b| a.key.cmp(&b.key));
        report.services = services.into_values().collect();
        report.services.iter_mut().for_each(|service| service.endpoints.sort_unstable());
        report
    }
}

fn register(services: &mut BTreeMap<String, Service>, one: &Registration, key: &str) {
    let new = || Service {
        name: one.service.to_string(),
        dns_name: one.service.dns_name(),
        endpoints: Vec::new(),
    };
    let service = services.entry(one.service.to_string()).or_insert_with(new);
    service.endpoints.push(Endpoint {
        id: one.id.to_string(),
        address: one.address.to_string(),
        weight: one.weight.0,
        meta: (*one.meta).clone(),
        key: key.to_owned(),
    });
}

/// Returns the formats that would find a backend in this key and whose registrants write
/// such keys; the likeliest first.
fn read_by(prefix: &Prefix, key: &[u8], value: &[u8]) -> Vec<&'static str> {
    let shape = String::from_utf8_lossy(key);
    let reads = |format: &Format| {
        let prefix = Prefix { path: prefix.path.clone(), format: format.clone() };
        matches!(prefix.read(key, value), Ok(Decoded::Registers(_)))
    };
    let others = NAMED.iter().filter(|(_, format)| *format != Format::Auto);
    let others = others.filter(|(_, format)| format.writes_keys_like(&shape));
    others.filter(|(_, format)| reads(format)).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(prefixes: &[&str], keys: &[(&str, &str)]) -> Report {
        let prefixes: Vec<_> =
            prefixes.iter().map(|prefix| Prefix::parse(prefix).unwrap()).collect();
        let bytes = |text: &str| text.as_bytes().to_vec();
        let keys: Vec<_> = keys.iter().map(|(key, value)| (bytes(key), bytes(value))).collect();
        Report::new(&prefixes, &Registrants::default(), &keys)
    }

    #[test]
    fn every_key_is_counted_once_and_explained() {
        let keys = [
            ("/a/hello/1", "10.0.0.1:1"),
            ("/a/hello/2", "10.0.0.2:1"),
            ("/a/hello/", ""),
            ("/a/b/Arith/tcp@10.0.0.1:1", "weight=3"),
            ("/a/x/1", "weight=7"),
            ("/a/Arith/tcp@10.0.0.9:1", "weight=7"),
        ];
        let report = report(&["/a", "/a/b=rpcx"], &keys);
        let counts: Vec<_> = report
            .prefixes
            .iter()
            .map(|found| {
                (found.prefix.as_str(), found.keys, found.understood, found.not_understood)
            })
            .collect();
        assert_eq!(counts, [("/a/", 5, 2, 2), ("/a/b/", 1, 1, 0)]);
        assert_eq!(report.prefixes[0].nothing[0].reason, "a directory");
        let names: Vec<_> = report.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["Arith", "hello"]);
        assert_eq!(report.not_understood, 2);
        let by: Vec<_> =
            report.rejected.iter().map(|found| (found.key.as_str(), &*found.formats)).collect();
        let none: &[&str] = &[];
        assert_eq!(by, [("/a/Arith/tcp@10.0.0.9:1", &["rpcx"][..]), ("/a/x/1", none)]);
    }

    #[test]
    fn only_formats_that_write_such_keys_are_suggested() {
        let by = |key: &str, value: &str| {
            let report = report(&["/skydns=kratos"], &[(key, value)]);
            report.rejected[0].formats.clone()
        };
        let record = r#"{"host":"10.0.0.1","port":80,"weight":-1}"#;
        assert_eq!(by("/skydns/local/skydns/a/x1", record), ["skydns"]);
        let addr = r#"{"Addr":"10.0.0.1:1"}"#;
        assert_eq!(by("/skydns/local/skydns/a/x1", addr), ["etcd-naming", "qsf"]);
        let plain = by("/skydns/a/i-1", "10.0.0.1:1");
        assert_eq!(plain, ["plain", "go-kit"]);
    }

    #[test]
    fn a_prefix_without_keys_is_not_well() {
        let key = ("/a/b/hello/1", "10.0.0.1:1");
        assert!(report(&["/a", "/a/b"], &[key]).is_well());
        assert!(!report(&["/a", "a"], &[key]).is_well());
        assert!(!report(&["/a"], &[]).is_well());
        assert!(!report(&["/a"], &[key, ("/a/x/1", "?")]).is_well());
    }

    #[test]
    fn remarks_are_reported() {
        let value = r#"{"addr":"10.0.0.1:1","metadata":{"weight":"high"}}"#;
        let report = report(&["/a"], &[("/a/s/1", value)]);
        assert!(report.is_well());
        assert_eq!(report.remarks[0].key, "/a/s/1");
        assert_eq!(report.remarks[0].remarks, ["the weight \"high\" is no number: 1 counts"]);
    }

    #[test]
    fn a_format_that_finds_nothing_is_told_which_would() {
        let key = "/dubbo/x.Svc/providers/tri%3A%2F%2F10.0.0.1%3A1";
        let found = report(&["/dubbo=rpcx"], &[(key, "")]);
        let hint = "dubbo would read 1 of them: --prefix /dubbo/=dubbo";
        assert_eq!(found.prefixes[0].hint.as_deref(), Some(hint));
    }
}
