//! Tests decisions: services are written as text, and each class must get the right
//! backends.

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::catalog::{Facts, Newcomers, ServiceSnapshot};
use crate::facts::factor::Factor;
use crate::marks::{Mark, MarkKey, Marks, Value};
use crate::model::{BackendAddr, Endpoint, Meta, ServiceName, Weight};

mod difference;
mod split;
mod subset;
mod zones;

/// Makes a service. Each endpoint is `ID WEIGHT [key=value…]`.
fn service(endpoints: &[&str]) -> Service {
    let endpoint = |(port, text): (usize, &&str)| {
        let mut words = text.split(' ');
        let id = words.next().unwrap().into();
        let weight = Weight(words.next().unwrap().parse().unwrap());
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        let meta: Meta = words.map(pair).collect();
        let port = u16::try_from(port).unwrap() + 1;
        let addr = BackendAddr::new([10, 0, 0, 1].into(), port).unwrap();
        Endpoint { id, addr, weight, meta: Arc::new(meta) }
    };
    let endpoints = endpoints.iter().enumerate().map(endpoint).collect();
    Service::new(
        1,
        ServiceSnapshot::new(ServiceName::new("s").unwrap(), 1, endpoints),
        crate::settings::ServiceSettings::DEFAULT,
    )
}

/// Decides. Checks that `explain` agrees about each backend.
#[track_caller]
fn decide_explained(service: &Service, class: &Class) -> Decision {
    let (decision, findings) = (decide(service, class), explain(service, class));
    for place in 0..service.endpoints.len() {
        let picked = decision.picks().iter().any(|pick| pick.endpoint as usize == place);
        let found = findings.of(place);
        assert_eq!(found.iter().all(|one| one.kept), picked, "{place}: {found:?}");
    }
    decision
}

#[track_caller]
fn check(endpoints: &[&str], selectors: &[(&str, &str)], expected: &str) {
    let service = service(endpoints);
    let selector = |&(key, value): &(&str, &str)| Selector { key: key.into(), value: value.into() };
    let selectors: Vec<_> = selectors.iter().map(selector).collect();
    let class = Class::new(&selectors);
    let decision = decide_explained(&service, &class);
    let endpoint = |pick: &Pick| &service.endpoints[pick.endpoint as usize];
    let found: String = decision.picks().iter().map(|pick| &*endpoint(pick).id).collect();
    assert_eq!(found, expected);
    assert!(decision.picks().iter().all(|pick| endpoint(pick).weight == pick.weight));
}

#[test]
fn a_lame_duck_is_not_listed() {
    check(&["a 1", "b 1 lame-duck=true", "c 1 lame-duck=no"], &[], "ac");
    check(&["a 1 zone=x lame-duck=true", "b 1 zone=x"], &[("zone", "x")], "b");
}

#[test]
fn newcomers_get_a_part_of_their_share_or_wait() {
    let service = service(&["a 2", "b 2", "c 2"]);
    let addr = |place: usize| service.endpoints[place].addr;
    let newcomers = Newcomers {
        starting: [(addr(1), Factor::millionths(100_000))].into(),
        delayed: [(addr(2), Instant::now())].into(),
    };
    let service = service
        .clone()
        .with_facts(Facts { newcomers: Some(Arc::new(newcomers)), ..Facts::default() });
    let class = Class::default();
    let picks: Vec<_> = decide(&service, &class)
        .picks()
        .iter()
        .map(|pick| (pick.endpoint, pick.weight.0))
        .collect();
    assert_eq!(picks, [(0, 10), (1, 1)]);
    let why = |place: usize| {
        let findings = explain(&service, &class).of(place);
        findings.iter().map(|one| format!("{} {}: {one}", one.pass, one.kept)).collect::<Vec<_>>()
    };
    assert_eq!(why(1)[4], "started true: slow start: it gets 10 % of its share for now");
    assert_eq!(
        why(2)[3],
        "undelayed false: it came and went too often: it is listed once it has stayed for a while"
    );
}

/// Decides for a service whose newcomers are at these places.
fn with_newcomers(
    endpoints: &[&str],
    selectors: &[(&str, &str)],
    starting: &[usize],
    delayed: &[usize],
) -> Vec<(u32, u32)> {
    let service = service(endpoints);
    let addr = |place: &usize| service.endpoints[*place].addr;
    let newcomers = Newcomers {
        starting: starting.iter().map(|at| (addr(at), Factor::millionths(100_000))).collect(),
        delayed: delayed.iter().map(|at| (addr(at), Instant::now())).collect(),
    };
    let service = service
        .clone()
        .with_facts(Facts { newcomers: Some(Arc::new(newcomers)), ..Facts::default() });
    let selector = |&(key, value): &(&str, &str)| Selector { key: key.into(), value: value.into() };
    let class = Class::new(&selectors.iter().map(selector).collect::<Vec<_>>());
    let decision = decide_explained(&service, &class);
    decision.picks().iter().map(|pick| (pick.endpoint, pick.weight.0)).collect()
}

#[test]
fn no_class_loses_its_last_backend_to_a_delay() {
    let zones = ["a 1 zone=x", "b 1 zone=y", "c 1 zone=y"];
    assert_eq!(with_newcomers(&zones, &[], &[], &[0]), [(1, 1), (2, 1)]);
    assert_eq!(with_newcomers(&zones, &[("zone", "x")], &[], &[0]), [(0, 1)]);
    assert_eq!(with_newcomers(&["a 1", "b 1 lame-duck=true", "c 0"], &[], &[], &[0]), [(0, 1)]);
}

#[test]
fn the_last_old_backend_is_not_left_alone_with_the_calls() {
    let some = ["a 1 zone=x", "b 1 zone=x", "c 1 zone=y", "d 1 zone=y", "e 1 zone=y"];
    assert_eq!(with_newcomers(&some, &[("zone", "x")], &[1], &[]), [(0, 10), (1, 1)]);
    let zone = [("zone", "y")];
    assert_eq!(with_newcomers(&some, &zone, &[3, 4], &[]), [(2, 1), (3, 1), (4, 1)]);
    let drained = ["a 1", "b 1", "c 1", "d 1 lame-duck=true", "e 1 lame-duck=true"];
    assert_eq!(with_newcomers(&drained, &[], &[1, 2], &[]), [(0, 1), (1, 1), (2, 1)]);
}

#[test]
fn a_class_without_newcomers_has_the_same_decision_as_before() {
    let all = ["a 100 zone=x", "b 100 zone=x", "c 100 zone=y"];
    assert_eq!(with_newcomers(&all, &[("zone", "x")], &[2], &[]), [(0, 100), (1, 100)]);
    assert_eq!(with_newcomers(&all, &[], &[], &[2]), [(0, 100), (1, 100)]);
}

#[test]
fn all_equal_is_the_order_of_ids() {
    check(&["a 1", "b 1", "c 1"], &[], "abc");
    check(&["a 100", "b 7"], &[], "ab");
}

#[test]
fn each_pass_says_why() {
    let service = service(&["a 0 zone=b"]);
    let selector = |key: &str, value: &str| Selector { key: key.into(), value: value.into() };
    let why = |selectors: &[Selector]| -> Vec<String> {
        let class = Class::new(selectors);
        let findings = explain(&service, &class).of(0);
        findings.iter().map(|one| format!("{} {} {one}", one.pass, one.kept)).collect()
    };
    let weight = "weight false it is registered with weight 0: no traffic";
    let undrained = "undrained true no operator drains it";
    assert_eq!(why(&[]), [weight, undrained, "selected true the name selects nothing"]);
    let has = "selected true it has what the name selects: id=a zone=b";
    assert_eq!(why(&[selector("zone", "b"), selector("id", "a")]), [weight, undrained, has]);
    let lacks = "selected false the name selects zone=c, and it has no such metadata";
    assert_eq!(why(&[selector("zone", "c")]), [weight, undrained, lacks]);
    // A drained backend is in no list, whatever the class selects.
    let key = MarkKey::parse("drain/hello/a").unwrap();
    let value = Value { by: "me".into(), why: "disk".into(), ..Value::default() };
    let marks = Marks::new([Arc::new(Mark { key, value })]);
    let all = self::service(&["a 1 zone=b", "b 1"]);
    let all = all.with_marks(marks.for_canonical("hello"));
    let class = Class::new(&[selector("zone", "b")]);
    assert!(decide(&all, &class).picks().is_empty() && has_picks(&all));
    assert_eq!(decide(&all, &Class::default()).picks().len(), 1);
    let why = explain(&all, &class).of(0)[1].to_string();
    assert_eq!(why, "drain/hello/a, by me: disk");
}

#[test]
fn weight_zero_is_no_traffic() {
    check(&["a 0", "b 1"], &[], "b");
    check(&["a 0"], &[], "");
}

#[test]
fn a_selector_looks_at_what_it_chooses_and_at_all_once() {
    let all: Vec<_> = (0..1_000).map(|i| format!("{i} 1 zone={}", i % 4)).collect();
    let service = service(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let class = |all: &[(&str, &str)]| {
        let one = |&(key, value): &(&str, &str)| Selector { key: key.into(), value: value.into() };
        Class::new(&all.iter().map(one).collect::<Vec<_>>())
    };
    let (seven, zone) = (class(&[("id", "7")]), class(&[("zone", "3")]));
    let both = class(&[("zone", "3"), ("id", "7")]);
    assert_eq!((work(&service, &seven), work(&service, &zone)), (1_000, 1_000));
    let picked = |class| decide(&service, class).picks().len();
    assert_eq!(picked(&seven), 1);
    assert_eq!((work(&service, &seven), work(&service, &zone)), (1, 1_000));
    assert_eq!(picked(&zone), 250);
    assert_eq!((work(&service, &zone), work(&service, &both)), (250, 1));
    assert_eq!(work(&service, &class(&[("id", "x")])), 0);
    // The addresses of a large class are found once for all callers.
    for (class, first, later) in [(&zone, 250, 0), (&seven, 1, 1), (&class(&[]), 1_000, 0)] {
        assert_eq!(address_work(&service, class), first);
        let found = addresses(&service, class);
        assert_eq!(address_work(&service, class), later);
        assert_eq!(addresses(&service, class), found);
    }
}

#[test]
fn selectors_choose_among_instances() {
    let all = ["7 1 zone=A version=v2", "8 1 zone=B version=v2", "9 1 Zone=a"];
    check(&all, &[("id", "7")], "7");
    check(&all, &[("zone", "a")], "79");
    check(&all, &[("zone", "a"), ("version", "v2")], "7");
    check(&all, &[("version", "v3")], "");
    check(&all, &[("colour", "red")], "");
}

fn text() -> impl Strategy<Value = String> {
    // Few letters, so that texts often match; some of them fold in unusual ways.
    "[aAbBkK\u{212A}\u{130}\u{DF}]{1,2}"
}

proptest! {
    /// The index chooses the endpoints that a look at every endpoint chooses.
    #[test]
    fn the_index_chooses_what_a_scan_chooses(
        endpoints in prop::collection::vec(
            (text(), 0..3_u32, prop::collection::btree_map(text(), text(), 0..4)), 0..30),
        selectors in prop::collection::vec((prop::option::of(text()), text()), 0..3),
    ) {
        let endpoint = |(port, (id, weight, meta)): (u16, (String, u32, Meta))| Endpoint {
            id: id.into(),
            addr: BackendAddr::new([10, 0, 0, 1].into(), port).unwrap(),
            weight: Weight(weight),
            meta: Arc::new(meta),
        };
        let endpoints = (1..).zip(endpoints).map(endpoint).collect();
        let snapshot = ServiceSnapshot::new(ServiceName::new("s").unwrap(), 1, endpoints);
        let service = Service::new(1, snapshot, crate::settings::ServiceSettings::DEFAULT);
        let selector = |(key, value): (Option<String>, String)| Selector {
            key: key.map_or("id".to_owned(), |key| key.to_lowercase()),
            value: value.to_lowercase(),
        };
        let class = Class::new(&selectors.into_iter().map(selector).collect::<Vec<_>>());
        let scan = |endpoint: &Endpoint| {
            let same = |text: &str, lower: &str| text.to_lowercase() == lower;
            endpoint.weight != Weight(0) && class.selectors().iter().all(|s| match &*s.key {
                "id" => same(&endpoint.id, &s.value),
                key => endpoint.meta.iter().any(|(k, v)| same(k, key) && same(v, &s.value)),
            })
        };
        let all = service.endpoints.iter().enumerate();
        let expected: Vec<_> = all.filter(|(_, one)| scan(one)).map(|(at, _)| at).collect();
        let decision = decide(&service, &class);
        let found: Vec<_> = decision.picks().iter().map(|pick| pick.endpoint as usize).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert!(found.len() <= most(&service, &class));
    }
}

mod health;
