//! Localities are few and stable, and their shares right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::catalog::{Facts, LoadFactors, ServiceSnapshot, Zones};
use crate::facts::factor::Factor;
use crate::model::{Class, Endpoint, Meta, ServiceName, Weight};
use crate::policy;
use crate::settings::{ServiceSettings, SplitKey, SplitSetting, ZoneMode};
use crate::xds::assignment::Assignment;
use crate::xds::pb::envoy::config::core::v3::address::Address::SocketAddress;
use crate::xds::pb::envoy::config::core::v3::socket_address::PortSpecifier::PortValue;
use crate::xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::xds::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;

fn addr(port: u16) -> BackendAddr {
    BackendAddr::new([10, 0, 0, 1].into(), port).unwrap()
}

fn backend(port: u16, weight: u32, registered: u32) -> Backend {
    Backend { addr: addr(port), share: weight.into(), weight, registered, group: "".into() }
}

fn homes(backends: &[Backend]) -> Vec<Home> {
    let registered = backends.iter().map(|one| (0, one.registered)).collect();
    Grouping::ByWeight(Width::next(None, &registered)).homes(backends)
}

fn names(homes: &[Home]) -> Vec<(&str, u64, usize)> {
    homes.iter().map(|home| (&*home.name, home.weight, home.backends.len())).collect()
}

/// A registered backend.
#[derive(Debug, Clone)]
struct Registered {
    zone: u8,
    weight: u32,
    canary: bool,
    factor: Factor,
}

/// Makes a service of such backends, at the ports from 1 on.
fn service(all: &[Registered], zones: bool, percent: u32) -> Service {
    let endpoint = |(one, port): (&Registered, u16)| Endpoint {
        id: format!("{port:05}").into(),
        addr: addr(port),
        weight: Weight(one.weight),
        meta: Arc::new(Meta::from([
            ("zone".to_owned(), one.zone.to_string()),
            ("version".to_owned(), if one.canary { "v2" } else { "v1" }.to_owned()),
        ])),
    };
    let mut settings = ServiceSettings::DEFAULT;
    settings.zones.mode = if zones { ZoneMode::Prefer } else { ZoneMode::Off };
    if percent > 0 {
        let percent = percent.to_string();
        for (key, text) in [(SplitKey::Select, "version=v2"), (SplitKey::Percent, &*percent)] {
            settings.split.set(SplitSetting::parse(key, text).unwrap());
        }
    }
    let factors: BTreeMap<_, _> =
        all.iter().zip(1..).map(|(one, port)| (addr(port), one.factor)).collect();
    let facts = Facts {
        zones: zones.then(|| Arc::new(Zones { table: Arc::default(), demand: Arc::default() })),
        load: Some(Arc::new(LoadFactors(factors))),
        ..Facts::default()
    };
    let name = ServiceName::new("s").unwrap();
    let snapshot = ServiceSnapshot::new(name, 1, all.iter().zip(1..).map(endpoint).collect());
    Service::new(1, snapshot, settings).with_facts(facts)
}

fn grouping(former: Option<Grouping>, service: &Service) -> Grouping {
    Grouping::next(former, service.endpoints.len(), service, &Groups::of(service))
}

/// Returns the ports and the weight of each locality of the assignment.
fn localities(service: &Service, grouping: Grouping) -> BTreeMap<String, (Vec<u16>, u32)> {
    let decision = policy::decide(service, &Class::default());
    let assignment = Assignment::new(service, &decision, grouping, &Groups::of(service));
    let all = ClusterLoadAssignment::decode(assignment.body).unwrap().endpoints;
    let count = all.len();
    let all = all.into_iter().map(|one| {
        let ports = one.lb_endpoints.into_iter().map(|endpoint| {
            let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else {
                panic!()
            };
            let Some(SocketAddress(socket)) = endpoint.address.unwrap().address else { panic!() };
            let Some(PortValue(port)) = socket.port_specifier else { panic!() };
            u16::try_from(port).unwrap()
        });
        let name = one.locality.unwrap().sub_zone;
        (name, (ports.collect(), one.load_balancing_weight.unwrap()))
    });
    let all: BTreeMap<_, _> = all.collect();
    assert_eq!(all.len(), count, "a name comes twice");
    all
}

#[test]
fn a_grouping_changes_late() {
    let one = Registered { zone: 0, weight: 1, canary: false, factor: Factor::ONE };
    let mut last = None;
    let mut each = |backends| {
        last = Some(grouping(last, &service(&vec![one.clone(); backends], false, 0)));
        last == Some(Grouping::Each)
    };
    for (backends, expected) in
        [(1, true), (128, true), (129, false), (64, false), (63, true), (128, true)]
    {
        assert_eq!(each(backends), expected, "{backends}");
    }
}

#[test]
fn equal_weights_share_one_locality_and_a_newcomer_moves_nobody() {
    let old: Vec<_> = (1..=3).map(|port| backend(port, 1, 1)).collect();
    assert_eq!(names(&homes(&old)), [("weight-1.000", 3, 3)]);
    // Slow start gives the newcomer a fifth: all weights get another scale.
    let mut new: Vec<_> = (1..=3).map(|port| backend(port, 5, 1)).collect();
    new.push(backend(4, 1, 1));
    let homes = homes(&new);
    assert_eq!(homes.len(), 2);
    assert_eq!(names(&homes)[1], ("weight-1.000", 15, 3));
}

/// The share of a zone changes with the demand, and that of canaries by steps.
#[test]
fn a_change_of_the_share_of_a_group_moves_nobody() {
    let all = |a: u32, b: u32| -> Vec<Backend> {
        let group = |group: &str, factor, port| Backend {
            group: group.into(),
            ..backend(port, factor * u32::from(1 + port % 2), u32::from(1 + port % 2))
        };
        vec![group("a/", a, 1), group("b/", b, 2), group("a/", a, 3), group("b/", b, 4)]
    };
    let before = homes(&all(7, 2));
    let expected = [("a/weight-2.000", 28, 2), ("b/weight-1.000", 4, 2)];
    assert_eq!(names(&before), expected);
    let after = homes(&all(1, 30));
    assert_eq!(names(&after), [("a/weight-2.000", 4, 2), ("b/weight-1.000", 60, 2)]);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.backends, after.backends);
    }
}

/// Also where the canaries get all calls, or none.
#[test]
fn a_share_of_the_canaries_moves_nobody() {
    let all: Vec<_> = (0..200)
        .map(|at| Registered { zone: at % 3, weight: 1, canary: at < 9, factor: Factor::ONE })
        .collect();
    let at = |percent| {
        let service = service(&all, false, percent);
        localities(&service, grouping(None, &service))
    };
    let both = at(10);
    assert_eq!(both.keys().collect::<Vec<_>>(), ["canaries/weight-1.000", "weight-1.000"]);
    assert_eq!(at(100).keys().collect::<Vec<_>>(), ["canaries/weight-1.000"]);
    assert_eq!(at(100)["canaries/weight-1.000"].0, both["canaries/weight-1.000"].0);
}

/// Clients weigh backends only within a locality.
#[test]
fn backends_that_clients_weigh_share_a_locality() {
    let canary = Backend { group: "canaries/".into(), ..backend(3, 5, 5) };
    let homes = Grouping::Together.homes(&[backend(1, 1, 1), backend(2, 3, 3), canary]);
    assert_eq!(names(&homes), [("all", 4, 2), ("canaries/all", 5, 1)]);
}

/// A backend whose weight is like some by chance, like few, or like no other.
fn registered() -> impl Strategy<Value = Registered> {
    let weight = prop_oneof![
        1..=3_u32,
        1..=1_000_u32,
        (any::<u32>(), 0..32_u32).prop_map(|(bits, by)| (bits >> by).max(1))
    ];
    let factor = prop_oneof![4 => Just(1_000_000), 1 => 50_000..=1_000_000_u32];
    (any::<u8>(), weight, prop::bool::weighted(0.2), factor).prop_map(
        |(zone, weight, canary, factor)| Registered {
            zone,
            weight,
            canary,
            factor: Factor::millionths(factor),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is registered, there are at most 256 localities, and no backend is farther from
    /// its share than the width of its class, or a sixteenth of the highest share.
    #[test]
    fn localities_are_bounded_and_shares_right(
        mut all in prop::collection::vec(registered(), 129..900),
        zones in prop_oneof![Just(0), 1..=40_u8],
        percent in prop_oneof![Just(0), 1..100_u32],
        factors in prop_oneof![Just(60), Just(usize::MAX)],
    ) {
        all.iter_mut().for_each(|one| one.zone %= zones.max(1));
        all.iter_mut().skip(factors).for_each(|one| one.factor = Factor::ONE);
        let service = service(&all, zones > 0, percent);
        let grouping = grouping(None, &service);
        let homes = localities(&service, grouping);
        prop_assert!(homes.len() <= LOCALITIES_MAX, "{}", homes.len());
        let Grouping::ByWeight(width) = grouping else { panic!("{grouping:?}") };
        if factors > 60 {
            // These may need wider classes for a time.
            return Ok(());
        }
        let (own, low) = width.promise();
        let decision = policy::decide(&service, &Class::default());
        let dues = decision.dues();
        prop_assert_eq!(homes.values().map(|home| home.0.len()).sum::<usize>(), dues.len());
        let due: BTreeMap<u16, f64> = decision.picks().iter().zip(dues).map(|(pick, due)| {
            (service.endpoints[pick.endpoint as usize].addr.port(), due)
        }).collect();
        let sum: f64 = homes.values().map(|home| f64::from(home.1)).sum();
        let highest = f64::from(all.iter().map(|one| one.weight).max().unwrap());
        let group = |name: &str| name[..name.rfind("weight").unwrap()].to_owned();
        // The share of a registered weight of one, by group.
        let mut units = BTreeMap::<_, f64>::new();
        for (name, (ports, _)) in &homes {
            let unit = units.entry(group(name)).or_default();
            for port in ports {
                *unit = unit.max(due[port] / f64::from(all[usize::from(*port) - 1].weight));
            }
        }
        for (name, (ports, weight)) in &homes {
            let each = f64::from(*weight) / sum / ports.len() as f64;
            let unit = units[&group(name)];
            for port in ports {
                let due = due[port];
                // A weight is rounded to thousandths, and all weights together to 32 bits.
                let rounding = unit / 1_000.0 + 1e-6;
                let most = (due * own).max(unit * highest * low) + rounding;
                prop_assert!((each - due).abs() <= most, "{} {} {}", name, each, due);
            }
        }
    }

    /// A weight that changes within its class moves no backend, and renames no locality.
    #[test]
    fn a_weight_that_changes_within_its_class_moves_nobody(
        mut all in prop::collection::vec(registered(), 129..300),
        zones in 0..=25_u8,
        (at, other) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        for one in &mut all {
            (one.zone, one.factor) = (one.zone % zones.max(1), Factor::ONE);
        }
        let before = service(&all, zones > 0, 0);
        let first = grouping(None, &before);
        let members = |service: &Service, grouping| -> BTreeMap<_, _> {
            localities(service, grouping).into_iter().map(|(name, home)| (name, home.0)).collect()
        };
        let homes = members(&before, first);
        let at = at.index(all.len());
        let port = u16::try_from(at + 1).unwrap();
        let home = homes.values().find(|home| home.contains(&port)).unwrap();
        all[at].weight = all[usize::from(*other.get(home)) - 1].weight;
        let after = service(&all, zones > 0, 0);
        prop_assert_eq!(members(&after, grouping(Some(first), &after)), homes);
    }
}
