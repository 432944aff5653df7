//! Leaves out registrations whose keys may not register their services. Pure.
//!
//! In: the newest value of a key, and changed rules. Out: the same value without what the
//! rules forbid. What was left out is kept beside the index, because other rules may allow
//! it.

use super::super::affected::Affected;
use super::super::departures::Departure;
use super::{Index, KeyContent};
use crate::registry::{Entry, Key, Reading, Registration};

impl Index {
    /// Returns the entry without the registrations that its key may not make. With none left,
    /// the key is rejected.
    pub(super) fn permitted(&mut self, entry: Entry) -> Entry {
        if self.settings.registrants().is_empty() && self.forbidden.is_empty() {
            return entry;
        }
        self.forbidden.remove(&entry.key);
        let Ok(reading) = &entry.decoded else { return entry };
        let Some(decoded) = self.settings.registrants().restrict(&entry.key.0, reading) else {
            return entry;
        };
        let Entry { key, decoded: whole, leased } = entry;
        if let Ok(reading) = whole {
            self.forbidden.insert(key.clone(), reading);
        }
        Entry { key, decoded, leased }
    }

    /// Returns the older registrations of a key that stay while its newest value is rejected.
    pub(super) fn still_permitted(&self, key: &Key, old: &KeyContent) -> Box<[Registration]> {
        let old = old.registrations.iter();
        old.filter(|one| self.forbids(key, one).is_none()).cloned().collect()
    }

    /// Applies changed rules to all keys, and to held backends.
    pub(super) fn apply_registrants(&mut self, affected: &mut Affected) {
        let is_forbidden = |(key, content): &(&Key, &KeyContent)| {
            content.registrations.iter().any(|one| self.forbids(key, one).is_some())
        };
        let newly = self.entries.iter().filter(is_forbidden).map(|(key, _)| key);
        // Sorted, because maps have no order.
        let mut keys: Vec<Key> = newly.chain(self.forbidden.keys()).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let Some(content) = self.entries.get(&key) else { continue };
            let leased = content.leased;
            let decoded = match (self.forbidden.get(&key), content.rejected()) {
                (Some(whole), _) => Ok(whole.clone()),
                (None, Some(rejected)) => Err(rejected.clone()),
                (None, None) => Ok(Reading {
                    registrations: content.registrations.to_vec(),
                    remarks: content.remarks().to_vec(),
                }),
            };
            self.put(Entry { key, decoded, leased }, affected);
        }
        for (key, service) in self.guard.lost_keys() {
            if self.settings.registrants().problem(&key.0, &service).is_none() {
                continue;
            }
            for (service, listed) in self.guard.forget_key(&key) {
                if let Some(endpoint) = listed {
                    self.departures.add(&service, Departure::Deregistered, &endpoint.id);
                }
                affected.service(&service);
            }
        }
    }

    fn forbids(&self, key: &Key, one: &Registration) -> Option<String> {
        self.settings.registrants().problem(&key.0, &one.service)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::super::liveness::LossReason;
    use super::super::loss::LossBatch;
    use super::*;
    use crate::model::{HostPort, ServiceName, Weight};
    use crate::settings::{Document, ServiceSettings, Settings};

    fn rules(text: &str) -> Arc<Settings> {
        let document = Document::parse(&format!("[registrants]\n{text}")).unwrap();
        Arc::new(Settings::new(ServiceSettings::DEFAULT).with(None, Some(Arc::new(document))))
    }

    fn entry(key: &str, services: &[&str], port: u16) -> Entry {
        let registration = |(n, service): (usize, &&str)| Registration {
            service: ServiceName::new(service).unwrap(),
            id: key.into(),
            address: HostPort::parse(&format!("10.0.0.{n}:{port}")).unwrap(),
            weight: Weight::DEFAULT,
            meta: Arc::default(),
        };
        let all: Vec<_> = services.iter().enumerate().map(registration).collect();
        Entry { key: Key::new(key.as_bytes()), decoded: Ok(all.into()), leased: true }
    }

    fn ports(index: &mut Index, service: &str) -> Vec<u16> {
        let snapshot = index.snapshot(&ServiceName::new(service).unwrap(), 1);
        let ports = snapshot.iter().flat_map(|one| one.endpoints.iter().map(|e| e.addr.port()));
        let mut ports: Vec<u16> = ports.collect();
        ports.sort_unstable();
        ports
    }

    fn reason(index: &Index, key: &str) -> String {
        let rejected = index.rejection(&Key::new(key.as_bytes()));
        rejected.map(|rejected| rejected.reason.clone()).unwrap_or_default()
    }

    #[test]
    fn rules_apply_to_keys_that_come_and_to_keys_that_are_there() {
        let mut index = Index::new(rules("\"/a/\" = [\"a\"]\n\"/pay/\" = [\"pay\"]"));
        let mut affected = Affected::default();
        let affected = &mut affected;
        index.put(entry("/pay/1", &["pay"], 1), affected);
        index.put(entry("/a/1", &["Pay"], 2), affected);
        index.put(entry("/a/2", &["a", "pay"], 3), affected);
        index.put(entry("/other/1", &["pay"], 4), affected);
        index.put(entry("/other/2", &["b"], 5), affected);
        let all = |index: &mut Index| ["pay", "Pay", "a", "b"].map(|name| ports(index, name));
        assert_eq!(all(&mut index), [vec![1], vec![], vec![3], vec![5]]);
        assert!(reason(&index, "/a/1").contains("keys below \"/a/\" may register a"));
        assert!(reason(&index, "/other/1").contains("only keys below \"/pay/\""));
        let remarks = index.remarks(&Key::new(b"/a/2")).to_vec();
        assert!(remarks[0].0.starts_with("left out: keys below \"/a/\""), "{remarks:?}");
        // Without rules, everything is there.
        index.set_settings(Settings::new(ServiceSettings::DEFAULT).into(), affected);
        assert_eq!(all(&mut index), [vec![1, 3, 4], vec![2], vec![3], vec![5]]);
        assert!(reason(&index, "/a/1").is_empty() && index.forbidden.is_empty());
        // Other rules take away what is there, at once: it is deregistered, and not held.
        index.set_settings(rules("\"/pay/\" = [\"pay\"]\n\"/other/\" = []"), affected);
        assert_eq!(all(&mut index), [vec![1], vec![], vec![3], vec![]]);
        assert!(index.lost(&ServiceName::new("b").unwrap()).is_none());
        // A deleted key is forgotten.
        index.deregister(&Key::new(b"/other/2"), affected);
        index.set_settings(rules("\"/pay/\" = [\"pay\"]"), affected);
        assert_eq!(all(&mut index), [vec![1], vec![], vec![3], vec![]]);
    }

    #[test]
    fn a_key_that_turns_to_a_forbidden_service_keeps_its_own() {
        let mut index = Index::new(rules("\"/a/\" = [\"a\"]"));
        let mut affected = Affected::default();
        index.put(entry("/a/1", &["a"], 1), &mut affected);
        index.put(entry("/a/1", &["pay"], 2), &mut affected);
        assert_eq!((ports(&mut index, "a"), ports(&mut index, "pay")), (vec![1], vec![]));
        // Until rules take that away too.
        index.set_settings(rules("\"/a/\" = []"), &mut affected);
        assert!(ports(&mut index, "a").is_empty());
        index.set_settings(rules("\"/a/\" = [\"*\"]"), &mut affected);
        assert_eq!((ports(&mut index, "a"), ports(&mut index, "pay")), (vec![], vec![2]));
    }

    #[test]
    fn a_held_backend_leaves_when_its_key_loses_the_permission() {
        let mut index = Index::new(Settings::new(ServiceSettings::DEFAULT));
        let mut affected = Affected::default();
        let now = Instant::now();
        for (key, service) in [("/a/1", "pay"), ("/pay/1", "pay")] {
            index.put(entry(key, &[service], u16::from(key.as_bytes()[1])), &mut affected);
        }
        assert_eq!(ports(&mut index, "pay").len(), 2);
        let mut batch = LossBatch::new(now);
        for key in ["/a/1", "/pay/1"] {
            let key = Key::new(key.as_bytes());
            index.lose(&key, LossReason::LeaseLost, &mut batch, &mut affected);
        }
        index.hand_over(&mut batch, &mut affected);
        assert_eq!(ports(&mut index, "pay").len(), 2);
        index.set_settings(rules("\"/pay/\" = [\"pay\"]"), &mut affected);
        assert_eq!(ports(&mut index, "pay"), [u16::from(b'p')]);
    }
}
