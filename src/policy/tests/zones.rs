//! Tests which backends serve the clients of a zone.

use super::*;
use crate::catalog::Zones;
use crate::facts::demand::Demand;
use crate::model::{Part, Target, Zone};
use crate::settings::{Network, ServiceSettings, SplitBy, ZoneMode, ZoneTable};

fn demand(zones: &[(&str, u64)]) -> Demand {
    let zones = zones.iter().map(|&(zone, calls)| (zone.into(), calls)).collect();
    Demand { zones, unknown: 0 }
}

/// Makes a service of endpoints `ID WEIGHT [key=value…]` with zones.
fn zoned(endpoints: &[&str], demand: Demand) -> Service {
    let mut settings = ServiceSettings::DEFAULT;
    settings.zones.mode = ZoneMode::Prefer;
    let networks = [("10.1.0.0/16", "a"), ("10.2.0.0/16", "eu-1b"), ("10.9.0.0/16", "nowhere")];
    let network = |(network, zone): (&str, &str)| (Network::parse(network).unwrap(), zone.into());
    let table = ZoneTable::new(networks.map(network), [("eu-1b".into(), "b".into())]);
    let zones = Zones { table: Arc::new(table), demand: Arc::new(demand) };
    let old = service(endpoints);
    let facts = Facts { zones: Some(Arc::new(zones)), ..Facts::default() };
    Service::new(1, old.snapshot.clone(), settings).with_facts(facts)
}

/// Returns endpoints `a0 1 zone=A` and so on.
fn endpoints(zones: &[(&str, usize)]) -> Vec<String> {
    let all = zones.iter().flat_map(|&(zone, count)| (0..count).map(move |at| (zone, at)));
    all.map(|(zone, at)| format!("{zone}{at} 1 zone={zone}")).collect()
}

fn refs(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

fn class_of(service: &Service, name: &str, address: &str) -> Class {
    let target = Target::parse(name, &Zone::new("zone").unwrap()).unwrap();
    class(service, &target, address.parse().ok())
}

/// Returns the share of the calls that each zone's backends get, in percent, by the first
/// letter of their ids. Checks that `explain` agrees about each backend.
fn shares_of(service: &Service, class: &Class) -> String {
    let decision = decide_explained(service, class);
    let whole: f64 = decision.weights().iter().copied().map(f64::from).sum();
    let mut shares = std::collections::BTreeMap::new();
    for pick in decision.picks() {
        let zone = &service.endpoints[pick.endpoint as usize].id[..1];
        *shares.entry(zone).or_insert(0.0) += f64::from(pick.weight.0);
    }
    let share = |(zone, weight): (&str, f64)| format!("{zone}{:.0}", 100.0 * weight / whole);
    shares.into_iter().map(share).collect::<Vec<_>>().join(" ")
}

#[test]
fn calls_stay_in_their_zone_as_far_as_its_backends_can_take_them() {
    let all = endpoints(&[("A", 30), ("B", 40), ("c", 30)]);
    let service = zoned(&refs(&all), demand(&[("a", 500), ("b", 300), ("c", 200)]));
    let check = |name: &str, address: &str, expected: &str| {
        let class = class_of(&service, name, address);
        assert_eq!(shares_of(&service, &class), expected, "{name} {address}");
    };
    check("s", "10.1.0.1", "A60 B20 c20");
    check("s", "10.2.0.1", "B100");
    check("zone--EU-1B.s", "10.1.0.1", "B100");
    check("zone--c.s", "", "c100");
    // A client in no zone, and one in a zone without backends, use all.
    for (name, address) in [("s", ""), ("s", "10.3.0.1"), ("s", "10.9.0.1"), ("zone--x.s", "")] {
        check(name, address, "A30 B40 c30");
        assert_eq!(class_of(&service, name, address), Class::default());
    }
    let shares = crate::policy::zones::shares(&service).unwrap();
    assert!((shares.cross(&demand(&[("a", 500), ("b", 300), ("c", 200)])) - 0.2).abs() < 1e-6);
}

#[test]
fn a_zone_that_is_lost_spills_at_once() {
    let all = endpoints(&[("a", 3), ("b", 3), ("c", 3)]);
    let even = demand(&[("a", 5), ("b", 5), ("c", 5)]);
    let service = zoned(&refs(&all), even.clone());
    let a = class_of(&service, "s", "10.1.0.1");
    assert_eq!(shares_of(&service, &a), "a100");
    let less = zoned(&refs(&all[3..]), even.clone());
    assert_eq!(shares_of(&less, &class_of(&less, "s", "10.1.0.1")), "b50 c50");
    // Drained backends count as much as lost ones.
    let key = MarkKey::parse("drain/s/zone=a").unwrap();
    let marks = Marks::new([Arc::new(Mark { key, value: Value::default() })]);
    let drained = service.with_marks(marks.for_canonical("s"));
    assert_eq!(shares_of(&drained, &class_of(&drained, "s", "10.1.0.1")), "b50 c50");
}

#[test]
fn newcomers_of_a_zone_spill_until_they_have_started() {
    let all = endpoints(&[("a", 3), ("b", 7)]);
    let service = zoned(&refs(&all), demand(&[("a", 30), ("b", 70)]));
    let tenth = Factor::millionths(100_000);
    let starting = service.endpoints[..3].iter().map(|one| (one.addr, tenth)).collect();
    let newcomers = Some(Arc::new(Newcomers { starting, delayed: [].into() }));
    let facts = Facts { newcomers, ..service.facts.clone() };
    let service = service.with_facts(facts);
    // The zone has less than 5 % of the weight.
    assert_eq!(shares_of(&service, &class_of(&service, "s", "10.1.0.1")), "a4 b96");
}

#[test]
fn a_selection_is_split_by_what_it_chooses() {
    let all = endpoints(&[("a", 6), ("b", 6)]);
    let version = |(at, one): (usize, &String)| match at {
        0..3 | 6..12 => format!("{one} version=v2"),
        _ => format!("{one} version=v1"),
    };
    let all: Vec<_> = all.iter().enumerate().map(version).collect();
    let service = zoned(&refs(&all), demand(&[("a", 50), ("b", 50)]));
    let of = |name| shares_of(&service, &class_of(&service, name, "10.1.0.1"));
    assert_eq!(of("s"), "a100");
    // Of v2, zone a has a third of the weight and half of the calls.
    assert_eq!(of("version--v2.s"), "a67 b33");
    assert_eq!(of("version--v1.s"), "a100");
    assert_eq!(of("id--b0.s"), "b100");
    assert_eq!(of("version--v3.s"), "");
}

/// Returns the settings of a service with zones that splits off version 2.
fn split(service: &Service, by: SplitBy, percent: u32) -> Service {
    let mut settings = (*service.settings).clone();
    let select = Selector { key: "version".into(), value: "v2".into() };
    settings.split.select = Some(select);
    (settings.split.by, settings.split.percent) = (by, Factor::millionths(percent * 10_000));
    let new = Service::new(1, service.snapshot.clone(), settings);
    new.with_marks(service.marks.clone()).with_facts(service.facts.clone())
}

#[test]
fn a_split_of_calls_stays_exact_in_every_zone() {
    let mut all = endpoints(&[("a", 6), ("b", 6)]);
    all.extend((0..3).map(|at| format!("x{at} 1 zone=b version=v2")));
    let plain = zoned(&refs(&all), demand(&[("a", 60), ("b", 40)]));
    let a = |service: &Service| class_of(service, "s", "10.1.0.1");
    let service = split(&plain, SplitBy::Calls, 10);
    let decision = decide(&service, &a(&service));
    let due = |kind: &str| -> f64 {
        let is = |pick: &Pick| service.endpoints[pick.endpoint as usize].id.starts_with(kind);
        let dues = decision.picks().iter().zip(decision.dues());
        dues.filter(|(pick, _)| is(pick)).map(|(_, due)| due).sum()
    };
    // All canaries are in zone b. The others keep as many calls in zone a as they can take.
    assert!((due("x") - 0.1).abs() < 1e-6 && (due("a") - 0.9 * 5.0 / 6.0).abs() < 1e-3);
    for class in [a(&service), class_of(&service, "s", "10.2.0.1")] {
        shares_of(&service, &class);
    }
    // A part of the clients has its own backends only.
    let service = split(&plain, SplitBy::Clients, 10);
    for part in [Part::Canaries, Part::Others, Part::Both] {
        let class = a(&service).with_part(part);
        assert_eq!(shares_of(&service, &class).contains('x'), part != Part::Others);
    }
    assert_ne!(a(&service).part(), Part::Both);
    assert_eq!(a(&service).zone(), Some(&"a".into()));
}

#[test]
fn a_key_has_one_backend_in_whatever_zone() {
    let all = endpoints(&[("a", 3), ("b", 3)]);
    let service = zoned(&refs(&all), demand(&[("a", 50), ("b", 50)]));
    let of = |name, address| class_of(&service, name, address);
    let class = of("hash--k.s", "10.1.0.1");
    assert_eq!((class.key(), class.zone()), (Some("k"), None));
    assert_eq!(class, of("hash--k.s", "10.2.0.1"));
    assert_eq!(class, of("hash--k.zone--b.s", ""));
    shares_of(&service, &class);
    assert_eq!(
        decide(&service, &class),
        decide(&service, &class.clone().in_zone(Some("a".into())))
    );
}

#[test]
fn a_shed_by_zone_means_the_clients_that_are_there() {
    let all = endpoints(&[("a", 3), ("c", 3), ("b", 1)]);
    let service = zoned(&refs(&all), demand(&[("a", 50), ("c", 50)]));
    let mark = |key: &str| {
        let value = Value { percent: Some(30), ..Value::default() };
        Arc::new(Mark { key: MarkKey::parse(key).unwrap(), value })
    };
    let marks = Marks::new([mark("shed/s/zone=a"), mark("shed/s/zone=eu-1b")]);
    let service = service.with_marks(marks.for_canonical("s"));
    let dropped = |name, address| decide(&service, &class_of(&service, name, address)).drop_percent;
    assert_eq!([dropped("s", "10.1.0.1"), dropped("zone--A.s", ""), dropped("s", "")], [30, 30, 0]);
    // Zone b is small, and it is marked by its alias.
    assert_eq!([dropped("s", "10.2.0.1"), dropped("zone--b.s", "10.1.0.1")], [30, 30]);
    assert_eq!([dropped("hash--k.s", "10.1.0.1"), dropped("zone--c.s", "10.1.0.1")], [30, 0]);
    assert_eq!(shares_of(&service, &class_of(&service, "s", "10.2.0.1")), "a43 b14 c43");
}

#[test]
fn without_zones_a_zone_is_a_selection() {
    let all = endpoints(&[("a", 3), ("b", 3)]);
    let service = service(&refs(&all));
    let class = class_of(&service, "zone--a.s", "10.2.0.1");
    assert_eq!((class.selectors().len(), class.zone()), (1, None));
    assert_eq!(shares_of(&service, &class), "a100");
    assert_eq!(class_of(&service, "s", "10.1.0.1"), Class::default());
}

proptest! {
    /// Zones never leave a class without backends that it has otherwise, and list none
    /// besides.
    #[test]
    fn zones_leave_no_class_empty(
        backends in prop::collection::vec((0..4_u8, 0..3_u32, 0..2_u8), 0..30),
        calls in prop::collection::vec(0..100_u64, 3),
        client in 0..4_u8,
        selects in any::<bool>(),
    ) {
        let zone = |zone: u8| ["a", "b", "c", "d"][usize::from(zone)];
        let line = |(at, (place, weight, version)): (usize, &(u8, u32, u8))| {
            format!("{at} {weight} zone={} version=v{version}", zone(*place))
        };
        let all: Vec<_> = backends.iter().enumerate().map(line).collect();
        let demand = demand(&[("a", calls[0]), ("b", calls[1]), ("c", calls[2])]);
        let service = zoned(&refs(&all), demand);
        let selector = Selector { key: "version".into(), value: "v1".into() };
        let plain = Class::new(if selects { std::slice::from_ref(&selector) } else { &[] });
        let class = plain.clone().in_zone(Some(zone(client).into()));
        let (all, near) = (decide(&service, &plain), decide(&service, &class));
        prop_assert_eq!(all.picks().is_empty(), near.picks().is_empty());
        let places = |all: &Decision| all.picks().iter().map(|one| one.endpoint).collect::<Vec<_>>();
        prop_assert!(places(&near).iter().all(|place| places(&all).contains(place)));
        prop_assert!(near.weights().iter().all(|weight| *weight > 0));
    }
}
