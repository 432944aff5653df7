//! Tests the index through its events and snapshots, with one line per endpoint.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::Resolved;
use super::super::unresolved::Unresolved;
use super::*;
use crate::model::{HostPort, Weight};

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes())
}

fn entry(at: &str, service: &str, id: &str, address: &str) -> Entry {
    let registration = Registration {
        service: name(service),
        id: id.into(),
        address: HostPort::parse(address).unwrap(),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    };
    Entry { key: key(at), decoded: Ok(vec![registration].into()), leased: true }
}

fn bad(at: &str) -> Entry {
    let rejected = Rejected { reason: "bad".into(), value: "?".into() };
    Entry { key: key(at), decoded: Err(rejected), leased: true }
}

fn put(index: &mut Index, entry: Entry) -> Affected {
    let mut affected = Affected::default();
    let event = Event::Apply { revision: 1, changes: vec![Change::Put(entry)] };
    index.apply(event, Instant::now(), &mut affected);
    affected
}

fn delete(index: &mut Index, at: &str) -> Affected {
    let mut affected = Affected::default();
    let event =
        Event::Apply { revision: 1, changes: vec![Change::Delete(key(at), Cause::Deregistered)] };
    index.apply(event, Instant::now(), &mut affected);
    affected
}

fn reset(index: &mut Index, all: Vec<Entry>) -> Affected {
    let mut affected = Affected::default();
    index.apply(Event::Reset { revision: 1, all, went_back: false }, Instant::now(), &mut affected);
    affected
}

fn resolve(index: &mut Index, host: &str, addresses: &[&str]) -> Affected {
    let mut affected = Affected::default();
    let addresses = addresses.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect();
    index.resolved(Resolved { host: host.into(), addresses, trouble: None }, &mut affected);
    affected
}

fn services(affected: &Affected) -> Vec<&str> {
    affected.services.iter().map(ServiceName::as_str).collect()
}

#[track_caller]
fn check(index: &mut Index, service: &str, expected: &[&str]) {
    let snapshot = index.snapshot(&name(service), 1);
    let endpoints = snapshot.map_or_else(Vec::new, |snapshot| snapshot.endpoints);
    let found: Vec<_> = endpoints.iter().map(|e| format!("{} {}", e.id, e.addr)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_registers_is_there_and_what_goes_is_gone() {
    let mut index = Index::new(Rules::OFF);
    let affected = put(&mut index, entry("k2", "hello", "b", "10.0.0.2:80"));
    assert_eq!(services(&affected), ["hello"]);
    put(&mut index, entry("k1", "hello", "a", "10.0.0.1:80"));
    put(&mut index, entry("k3", "other", "c", "10.0.0.3:80"));
    check(&mut index, "hello", &["a 10.0.0.1:80", "b 10.0.0.2:80"]);
    assert_eq!(services(&delete(&mut index, "k1")), ["hello"]);
    check(&mut index, "hello", &["b 10.0.0.2:80"]);
    delete(&mut index, "k2");
    check(&mut index, "hello", &[]);
    assert_eq!(delete(&mut index, "k2"), Affected::default());
}

#[test]
fn writing_the_same_again_changes_nothing() {
    let mut index = Index::new(Rules::OFF);
    put(&mut index, entry("k", "hello", "a", "10.0.0.1:80"));
    assert_eq!(put(&mut index, entry("k", "hello", "a", "10.0.0.1:80")), Affected::default());
    let same = vec![entry("k", "hello", "a", "10.0.0.1:80")];
    assert_eq!(reset(&mut index, same), Affected::default());
}

#[test]
fn a_key_may_change_its_service() {
    let mut index = Index::new(Rules::OFF);
    put(&mut index, entry("k", "hello", "a", "10.0.0.1:80"));
    let affected = put(&mut index, entry("k", "world", "a", "10.0.0.1:80"));
    assert_eq!(services(&affected), ["hello", "world"]);
    check(&mut index, "hello", &[]);
    check(&mut index, "world", &["a 10.0.0.1:80"]);
}

#[test]
fn a_new_list_is_a_difference() {
    let mut index = Index::new(Rules::OFF);
    let a = || entry("a", "a", "a", "10.0.0.1:80");
    reset(&mut index, vec![a(), entry("b", "b", "b", "10.0.0.2:80")]);
    let affected = reset(&mut index, vec![a(), entry("c", "c", "c", "10.0.0.3:80")]);
    assert_eq!(services(&affected), ["b", "c"]);
    check(&mut index, "b", &[]);
    assert_eq!(index.keys(), 2);
}

#[test]
fn one_address_under_two_keys_is_one_backend() {
    let mut index = Index::new(Rules::OFF);
    put(&mut index, entry("k1", "hello", "1", "10.0.0.1:80"));
    put(&mut index, entry("k2", "hello", "2", "10.0.0.1:80"));
    check(&mut index, "hello", &["1 10.0.0.1:80"]);
    delete(&mut index, "k1");
    check(&mut index, "hello", &["2 10.0.0.1:80"]);
}

#[test]
fn a_bad_value_costs_nobody_anything() {
    let mut index = Index::new(Rules::OFF);
    put(&mut index, entry("good", "hello", "a", "10.0.0.1:80"));
    let affected = put(&mut index, bad("bad"));
    assert_eq!((services(&affected).len(), affected.rejections.len()), (0, 1));
    assert!(index.rejection(&key("bad")).is_some());
    // The older registration of the same key stays.
    let affected = put(&mut index, bad("good"));
    assert_eq!((services(&affected).len(), affected.rejections.len()), (0, 1));
    check(&mut index, "hello", &["a 10.0.0.1:80"]);
    let affected = put(&mut index, entry("good", "hello", "a", "10.0.0.1:80"));
    assert_eq!((services(&affected).len(), affected.rejections.len()), (0, 1));
    assert!(index.rejection(&key("good")).is_none());
    delete(&mut index, "bad");
    assert!(index.rejection(&key("bad")).is_none());
}

#[test]
fn host_names_count_once_resolved() {
    let mut index = Index::new(Rules::OFF);
    let affected = put(&mut index, entry("k", "hello", "a", "backend.local:80"));
    assert!(affected.hosts);
    check(&mut index, "hello", &[]);
    assert_eq!(index.host_names(), BTreeSet::from(["backend.local".to_owned()]));
    let affected = resolve(&mut index, "backend.local", &["10.0.0.2", "10.0.0.1"]);
    assert_eq!(services(&affected), ["hello"]);
    check(&mut index, "hello", &["a 10.0.0.1:80", "a 10.0.0.2:80"]);
    let again = resolve(&mut index, "backend.local", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(again, Affected::default());
    assert_eq!(resolve(&mut index, "unknown.local", &["10.0.0.1"]), Affected::default());
    assert!(delete(&mut index, "k").hosts);
    assert!(index.host_names().is_empty());
}

#[test]
fn host_names_that_do_not_resolve_are_named_with_key_and_service() {
    let mut index = Index::new(Rules::OFF);
    put(&mut index, entry("k1", "hello", "a", "gone.local:80"));
    put(&mut index, entry("k2", "hello", "b", "there.local:80"));
    resolve(&mut index, "there.local", &["10.0.0.1"]);
    assert_eq!(index.unresolved(), []);
    let fail = |index: &mut Index, host: &str, kept: &[&str]| {
        let addresses = kept.iter().map(|ip| ip.parse().unwrap()).collect();
        let trouble = Some("no such host".to_owned());
        let mut affected = Affected::default();
        index.resolved(Resolved { host: host.to_owned(), addresses, trouble }, &mut affected);
        affected
    };
    let affected = fail(&mut index, "gone.local", &[]);
    assert!(affected.unresolved && affected.services.is_empty());
    let show = |index: &Index| {
        let one =
            |one: &Unresolved| format!("{} {} {} {}", one.service, one.key, one.host, one.kept);
        index.unresolved().iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(show(&index), ["hello k1 gone.local 0"]);
    check(&mut index, "hello", &["b 10.0.0.1:80"]);
    // A name that resolved once keeps its addresses.
    assert!(fail(&mut index, "there.local", &["10.0.0.1"]).unresolved);
    assert_eq!(show(&index), ["hello k1 gone.local 0", "hello k2 there.local 1"]);
    check(&mut index, "hello", &["b 10.0.0.1:80"]);
    // Another key uses a name that is known not to resolve.
    assert!(put(&mut index, entry("k3", "other", "c", "gone.local:81")).unresolved);
    assert_eq!(show(&index).len(), 3);
    assert!(delete(&mut index, "k1").unresolved);
    assert!(resolve(&mut index, "there.local", &["10.0.0.1"]).unresolved);
    assert_eq!(show(&index), ["other k3 gone.local 0"]);
    // An address that no client can use counts as none.
    assert!(resolve(&mut index, "gone.local", &["0.0.0.0"]).unresolved);
    assert!(index.unresolved()[0].error.contains("0.0.0.0 is the unspecified address"));
    check(&mut index, "other", &[]);
}

#[test]
fn a_host_name_keeps_its_addresses_while_its_registration_changes() {
    let mut index = Index::new(Rules::OFF);
    put(&mut index, entry("k", "hello", "a", "backend.local:80"));
    resolve(&mut index, "backend.local", &["10.0.0.1"]);
    let affected = put(&mut index, entry("k", "hello", "b", "backend.local:81"));
    assert!(!affected.hosts);
    check(&mut index, "hello", &["b 10.0.0.1:81"]);
    put(&mut index, entry("k", "world", "b", "backend.local:81"));
    check(&mut index, "hello", &[]);
    check(&mut index, "world", &["b 10.0.0.1:81"]);
    assert!(delete(&mut index, "k").hosts);
}

#[test]
fn losing_the_store_changes_nothing() {
    let mut index = Index::new(Rules::OFF);
    put(&mut index, entry("k", "hello", "a", "10.0.0.1:80"));
    let mut affected = Affected::default();
    let since = std::time::Instant::now();
    index.apply(Event::Stale { since, reason: "gone".into() }, since, &mut affected);
    assert_eq!(affected, Affected::default());
    check(&mut index, "hello", &["a 10.0.0.1:80"]);
}

/// Makes one step of a random history over a small space of keys and services.
fn step() -> impl Strategy<Value = (u8, u8, u8, u8)> {
    (0..4_u8, 0..3_u8, 1..4_u8, 0..4_u8)
}

proptest! {
    /// Whatever its history, the index equals a fresh one that read the same content at
    /// once; and no service changes that was not affected.
    #[test]
    fn the_path_does_not_matter(steps in proptest::collection::vec(step(), 1..40)) {
        let mut index = Index::new(Rules::OFF);
        let mut model: BTreeMap<u8, Entry> = BTreeMap::new();
        for (at, service, ip, what) in steps {
            let before: Vec<_> = (0..3).map(|s| index.snapshot(&name(&format!("s{s}")), 0)).collect();
            let make = || {
                let host = if ip == 3 { "h.local:80".to_owned() } else { format!("10.0.0.{ip}:80") };
                entry(&at.to_string(), &format!("s{service}"), &at.to_string(), &host)
            };
            let affected = if what == 0 {
                model.remove(&at);
                delete(&mut index, &at.to_string())
            } else {
                model.insert(at, make());
                put(&mut index, make())
            };
            for (s, before) in before.iter().enumerate() {
                let service = name(&format!("s{s}"));
                if !affected.services.contains(&service) {
                    prop_assert_eq!(&index.snapshot(&service, 0), before);
                }
            }
        }
        let mut fresh = Index::new(Rules::OFF);
        reset(&mut fresh, model.into_values().collect());
        resolve(&mut index, "h.local", &["10.9.9.9"]);
        resolve(&mut fresh, "h.local", &["10.9.9.9"]);
        for s in 0..3 {
            let service = name(&format!("s{s}"));
            prop_assert_eq!(index.snapshot(&service, 0), fresh.snapshot(&service, 0));
        }
        prop_assert_eq!(index.host_names(), fresh.host_names());
        prop_assert_eq!(index.keys(), fresh.keys());
    }
}
