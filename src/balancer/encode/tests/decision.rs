//! Tests the whole decision, up to the bytes of the list: random backends, settings, marks,
//! facts and classes, with every pass on or off.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;

use super::super::*;
use super::rank;
use crate::balancer::cycle::entries_per_pick;
use crate::catalog::{
    CellSize, CellSizes, Facts, Health, HealthAnswer, LoadFactors, Newcomers, ServiceSnapshot,
    Zones, cell_groups,
};
use crate::facts::demand::Demand;
use crate::facts::factor::Factor;
use crate::marks::{Mark, MarkKey, Marks, Value};
use crate::model::{
    BackendAddr, Class, Endpoint, Meta, Selector, ServiceName, Subset, Target, Weight, Zone,
};
use crate::policy::{self, Pass, decide, explain};
use crate::settings::{
    HealthKind, Network, ServiceSettings, SplitBy, SubsetMode, ZoneMode, ZoneTable,
};

#[derive(Debug, Clone)]
struct Backend {
    weight: u32,
    zone: Option<&'static str>,
    v2: bool,
    lame_duck: bool,
    host: u8,
    health: Option<bool>,
    newcomer: Option<Option<u32>>,
    load: Option<u32>,
}

/// What a service has beside its backends. `None` and `false` mean that a pass is off.
#[derive(Debug, Clone)]
struct Switches {
    health: Option<(HealthKind, bool)>,
    newcomers: bool,
    load: bool,
    split: Option<(SplitBy, u32)>,
    zones: Option<[u64; 3]>,
    cells: Option<u32>,
    overload: Option<u32>,
}

/// The marks that are set: of one backend's id, one host, one zone; of all clients, of those
/// in a zone, and for the addresses from DNS.
#[derive(Debug, Clone)]
struct Set {
    id: Option<usize>,
    host: bool,
    zone: bool,
    shed: bool,
    shed_zone: bool,
    fallback: bool,
}

#[derive(Debug, Clone)]
struct Client {
    zone: Option<&'static str>,
    version: Option<&'static str>,
    key: Option<u8>,
    address: Option<u8>,
    subset: (u32, u32),
}

type World = (Vec<Backend>, Switches, Set, Client);

fn zone() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![Some("a"), Some("b"), Some("c"), None])
}

fn world() -> impl Strategy<Value = World> {
    let weight = prop_oneof![1 => Just(0), 4 => 1..4_u32, 2 => 1..1_000_u32];
    let rarely = || prop::bool::weighted(0.15);
    let health = prop::option::weighted(0.4, any::<bool>());
    let newcomer =
        prop::option::weighted(0.4, prop::option::of(prop::sample::select(vec![100_000, 400_000])));
    let load = prop::option::of(prop::sample::select(vec![250_000, 900_000, 1_500_000]));
    let backend = (weight, zone(), any::<bool>(), rarely(), 0..3_u8, health, newcomer, load)
        .prop_map(|(weight, zone, v2, lame_duck, host, health, newcomer, load)| Backend {
            weight,
            zone,
            v2,
            lame_duck,
            host,
            health,
            newcomer,
            load,
        });
    let kinds = [HealthKind::Grpc, HealthKind::Grpc, HealthKind::Observe].to_vec();
    let health = prop::option::of((prop::sample::select(kinds), rarely()));
    let by = prop::sample::select(vec![SplitBy::Calls, SplitBy::Clients]);
    let percent = prop_oneof![0..=100_u32, Just(0), Just(100)];
    let (split, zones) =
        (prop::option::of((by, percent)), prop::option::of(prop::array::uniform3(0..100_u64)));
    let (cells, overload) = (prop::option::of(0..4_u32), prop::option::of(2..95_u32));
    let switches = (health, any::<bool>(), any::<bool>(), split, zones, cells, overload).prop_map(
        |(health, newcomers, load, split, zones, cells, overload)| Switches {
            health,
            newcomers,
            load,
            split,
            zones,
            cells,
            overload,
        },
    );
    let id = prop::option::of(0..40_usize);
    let set = (id, rarely(), rarely(), rarely(), rarely(), rarely()).prop_map(
        |(id, host, zone, shed, shed_zone, fallback)| Set {
            id,
            host,
            zone,
            shed,
            shed_zone,
            fallback,
        },
    );
    let version = prop::option::weighted(0.2, prop::sample::select(vec!["v1", "v2", "v3"]));
    let key = prop::option::weighted(0.2, any::<u8>());
    let subset = (0..4_u32).prop_flat_map(|level| (Just(level), 0..1_u32 << level));
    let client = (zone(), version, key, prop::option::of(any::<u8>()), subset).prop_map(
        |(zone, version, key, address, subset)| Client { zone, version, key, address, subset },
    );
    (prop::collection::vec(backend, 0..40), switches, set, client)
}

/// Several addresses can have one id.
fn id(at: usize) -> String {
    format!("b{:02}", at * 3 / 4)
}

fn endpoint(at: usize, backend: &Backend) -> Endpoint {
    let mut meta = Meta::new();
    meta.insert("version".into(), if backend.v2 { "v2" } else { "v1" }.into());
    backend.zone.into_iter().for_each(|zone| drop(meta.insert("zone".into(), zone.into())));
    if backend.lame_duck {
        meta.insert("lame-duck".into(), "true".into());
    }
    let port = u16::try_from(at).unwrap() + 1;
    let addr = BackendAddr::new([10, 0, 0, backend.host].into(), port).unwrap();
    Endpoint { id: id(at).into(), addr, weight: Weight(backend.weight), meta: Arc::new(meta) }
}

/// Makes the service. If `turned`, everything comes in the other order.
fn service((backends, switches, set, _): &World, turned: bool) -> Service {
    fn ordered<T>(mut all: Vec<T>, turned: bool) -> Vec<T> {
        if turned {
            all.reverse();
        }
        all
    }
    let all = backends.iter().enumerate().map(|(at, one)| (endpoint(at, one), one));
    let all: Vec<(Endpoint, &Backend)> = ordered(all.collect(), turned);
    let mut endpoints: Vec<Endpoint> = all.iter().map(|one| one.0.clone()).collect();
    endpoints.sort();
    let mut settings = ServiceSettings::DEFAULT;
    let answer = HealthAnswer::NotServing;
    let of = |is: bool| -> BTreeMap<BackendAddr, HealthAnswer> {
        let these = all.iter().filter(|one| one.1.health == Some(is));
        these.map(|one| (one.0.addr, answer)).collect()
    };
    let health = switches.health.map(|(kind, panic)| {
        settings.health.kind = kind;
        Arc::new(Health { unhealthy: of(true), unconfirmed: of(false), panic })
    });
    let newcomer = |one: &(Endpoint, &Backend)| Some((one.0.addr, one.1.newcomer?));
    let newcomers = switches.newcomers.then(|| {
        let starting = all.iter().filter_map(newcomer);
        let starting = starting.filter_map(|(addr, part)| Some((addr, Factor::millionths(part?))));
        let delayed = all.iter().filter_map(newcomer).filter(|one| one.1.is_none());
        let delayed = delayed.map(|(addr, _)| (addr, Instant::now())).collect();
        Arc::new(Newcomers { starting: starting.collect(), delayed })
    });
    let load = switches.load.then(|| {
        let factor =
            |one: &(Endpoint, &Backend)| Some((one.0.addr, Factor::millionths(one.1.load?)));
        Arc::new(LoadFactors(all.iter().filter_map(factor).collect()))
    });
    if let Some((by, percent)) = switches.split {
        let select = Selector { key: "version".into(), value: "v2".into() };
        settings.split.select = Some(select);
        (settings.split.by, settings.split.percent) = (by, Factor::millionths(percent * 10_000));
    }
    let zones = switches.zones.map(|calls| {
        settings.zones.mode = ZoneMode::Prefer;
        let networks = [("10.1.0.0/26", "a"), ("10.1.0.64/26", "b"), ("10.1.0.128/26", "c")];
        let network =
            |(network, zone): (&str, &str)| (Network::parse(network).unwrap(), zone.into());
        let table = ZoneTable::new(networks.map(network), []);
        let zones = ["a", "b", "c"].into_iter().map(Arc::from).zip(calls).collect::<Vec<_>>();
        let zones = ordered(zones, turned).into_iter().collect();
        let demand = Arc::new(Demand { zones, unknown: 0 });
        Arc::new(Zones { table: Arc::new(table), demand })
    });
    let cells = switches.cells.map(|bits| {
        settings.subset.mode = SubsetMode::Cells;
        let (groups, places) = cell_groups(&endpoints, &settings, zones.as_deref());
        let size = |(at, group)| {
            let peak = places.iter().filter(|&&place| usize::from(place) == at).count();
            (group, CellSize { bits, peak })
        };
        let groups = groups.into_iter().enumerate().map(size).collect();
        Arc::new(CellSizes { groups })
    });
    let mut marks = Vec::new();
    let mut mark = |key: &str, percent| {
        let value = Value { percent, ..Value::default() };
        marks.push(Arc::new(Mark { key: MarkKey::parse(key).unwrap(), value }));
    };
    set.id.into_iter().for_each(|at| mark(&format!("drain/s/{}", id(at)), None));
    for (is_set, key, percent) in [
        (set.host, "drain/s/10.0.0.1", None),
        (set.zone, "drain/s/zone=b", None),
        (set.shed, "shed/s", Some(30)),
        (set.shed_zone, "shed/s/zone=a", Some(60)),
        (set.fallback, "fallback/s", None),
    ] {
        if is_set {
            mark(key, percent);
        }
    }
    let facts = Facts {
        newcomers,
        health,
        load,
        zones,
        cells,
        placed: 0,
        overload_shed: switches.overload,
        ramp_share: None,
    };
    let snapshot = ServiceSnapshot::new(ServiceName::new("s").unwrap(), 1, endpoints);
    let marks = Marks::new(ordered(marks, turned)).for_canonical("s");
    Service::new(1, snapshot, settings).with_marks(marks).with_facts(facts)
}

/// Returns the class of the client. If `turned`, its name has its labels in the other order.
fn class(service: &Service, client: &Client, turned: bool) -> Class {
    let mut labels: Vec<String> = [
        client.key.map(|key| format!("hash--k{key}.")),
        client.zone.map(|zone| format!("zone--{zone}.")),
        client.version.map(|version| format!("version--{version}.")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if turned {
        labels.reverse();
    }
    let name = labels.concat() + "s";
    let target = Target::parse(&name, &Zone::new("zone").unwrap()).unwrap();
    let address = client.address.map(|last| [10, 1, 0, last].into());
    let class = policy::class(service, &target, address);
    let (level, index) = client.subset;
    let divides = policy::subset::divides(service, &class);
    class.with_subset(Subset::new(level, index).filter(|_| divides))
}

/// Returns the first pass among those that look at one backend alone that leaves a backend
/// out, by rules that are written here a second time.
fn left_out_alone(endpoint: &Endpoint, set: &Set, class: &Class) -> Option<Pass> {
    let meta = |key: &str| endpoint.meta.get(key).map(String::as_str);
    let drained = set.id.is_some_and(|at| *id(at) == *endpoint.id)
        || set.host && endpoint.addr.ip() == std::net::IpAddr::from([10, 0, 0, 1])
        || set.zone && meta("zone") == Some("b");
    let selected = class.selectors().iter().all(|one| meta(&one.key) == Some(&one.value));
    match () {
        () if endpoint.weight == Weight(0) => Some(Pass::Weight),
        () if drained || meta("lame-duck").is_some() => Some(Pass::Undrained),
        () if !selected => Some(Pass::Selected),
        () => None,
    }
}

fn bytes(service: &Service, decision: &Decision) -> Bytes {
    let list = EncodedList::new(service, decision, 7);
    list.message(list.window(rank(3))).to_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_is_eligible_explained_and_the_same_everywhere(world in world()) {
        let (_, switches, set, client) = &world;
        let service = service(&world, false);
        let class = class(&service, client, false);
        let decision = decide(&service, &class);
        let findings = explain(&service, &class);
        let picks = decision.picks();
        let endpoint = |pick: &policy::Pick| &service.endpoints[pick.endpoint as usize];

        // The other order, and a value that has served other classes before.
        let other = self::service(&world, true);
        let other_class = self::class(&other, client, true);
        for used in [Class::default(), other_class.without_key(), other_class.clone()] {
            let used = explain(&other, &used);
            prop_assert!((0..other.endpoints.len()).all(|place| !used.of(place).is_empty()));
        }
        prop_assert_eq!(&other_class, &class);
        for _ in 0..2 {
            let again = decide(&other, &other_class);
            prop_assert_eq!(&again, &decision);
            prop_assert!(bytes(&other, &again) == bytes(&service, &decision));
        }

        // Who may be listed at all, and what health and delays may take of them.
        let alone = |one: &Endpoint| left_out_alone(one, set, &class);
        let eligible = || service.endpoints.iter().filter(|one| alone(one).is_none());
        let acts = matches!(switches.health, Some((HealthKind::Grpc, false)));
        let is_sick = |one: &&Endpoint| acts && service.unhealthy(one).is_some();
        let all_sick = eligible().all(|one| is_sick(&one));
        let left = || eligible().filter(|one| all_sick || !is_sick(one));
        let all_delayed = left().all(|one| service.delayed(one).is_some());
        prop_assert_eq!(picks.is_empty(), eligible().next().is_none());
        prop_assert!(picks.len() <= policy::most(&service, &class));

        for (place, one) in service.endpoints.iter().enumerate() {
            let found = findings.of(place);
            let no = found.iter().find(|finding| !finding.kept).map(|finding| finding.pass);
            let listed = picks.iter().any(|pick| pick.endpoint as usize == place);
            prop_assert_eq!(no.is_none(), listed, "{}: {:?}", place, found);
            if alone(one).is_some() {
                prop_assert_eq!(no, alone(one));
                continue;
            }
            let (sick, delayed) = (is_sick(&one), service.delayed(one).is_some());
            let expected = match () {
                () if sick && !all_sick => Some(Pass::Healthy),
                () if delayed && !all_delayed => Some(Pass::Undelayed),
                () => no.filter(|pass| match pass {
                    Pass::Subset => class.subset().is_some(),
                    Pass::Split => switches.split.is_some(),
                    Pass::Near => switches.zones.is_some() && class.zone().is_some(),
                    Pass::Affinity => class.key().is_some(),
                    _ => false,
                }),
            };
            prop_assert_eq!(no, expected, "{}: {:?}", place, found);
        }

        // Weights are in proportion within a zone and a version, as `explain` says.
        if class.key().is_none() {
            let mut units: BTreeMap<_, f64> = BTreeMap::new();
            for pick in picks {
                let one = endpoint(pick);
                let factor = findings.slow_start(one).times(service.load_factor(one));
                let unit = f64::from(pick.weight.0) / f64::from(one.weight.0) / factor.as_fraction();
                let group = (one.meta.get("zone"), one.meta.get("version"));
                let first = *units.entry(group).or_insert(unit);
                prop_assert!((unit / first - 1.0).abs() < 1e-3, "{unit} {first}");
            }
        }

        // The list gives each its due, within the promised error.
        let counts = entries_per_pick(&decision);
        let entries: f64 = counts.iter().copied().map(f64::from).sum();
        let dues = decision.dues();
        prop_assert!(picks.is_empty() || (dues.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        match decision.split() {
            None => for (due, &count) in dues.iter().zip(&counts) {
                // A backend that is due less than one entry has one.
                let over = f64::from(count) / entries / due - 1.0;
                prop_assert!(due * entries < 1.0 || over <= 1.0 / 19.0 + 1e-9, "{over}");
            },
            Some(split) => {
                let canaries = counts.iter().zip(&split.canaries).filter(|one| *one.1);
                let canaries: f64 = canaries.map(|one| f64::from(*one.0)).sum();
                let share = split.share.as_fraction();
                let smaller = share.min(1.0 - share) * entries;
                prop_assert!((canaries - share * entries).abs() <= (smaller / 50.0).max(1.0));
            }
        }

        // What clients are told besides.
        let least = if set.shed { 30 } else { 0 };
        let most = if set.shed_zone { 60 } else { least };
        let unmarked = decision.drop_percent == switches.overload.unwrap_or(0) && !set.shed;
        prop_assert!(unmarked || [least, most].contains(&decision.drop_percent));
        prop_assert_eq!(decision.fallback, set.fallback);
    }
}
