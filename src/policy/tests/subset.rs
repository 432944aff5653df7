//! Tests which backends the clients of a large service get.

use super::*;
use crate::catalog::{CellSize, CellSizes, Health, HealthAnswer, Zones, cell_groups};
use crate::facts::cell_count;
use crate::facts::demand::Demand;
use crate::model::Subset;
use crate::policy::subset::{cells, divides};
use crate::settings::{HealthKind, ServiceSettings, SplitBy, SubsetMode, ZoneMode};

/// Divides a service, with cells of about 32 backends.
fn divided(old: &Service, settings: ServiceSettings, facts: Facts) -> Service {
    let settings = {
        let mut settings = settings;
        settings.subset.mode = SubsetMode::Cells;
        settings
    };
    let (groups, places) = cell_groups(&old.endpoints, &settings, facts.zones.as_deref());
    let size = |(at, group): (usize, _)| {
        let peak = places.iter().filter(|&&place| usize::from(place) == at).count();
        (group, CellSize { bits: cell_count::bits(peak, 32, None), peak })
    };
    let groups = groups.into_iter().enumerate().map(size).collect();
    let cells = Some(Arc::new(CellSizes { groups }));
    Service::new(1, old.snapshot.clone(), settings).with_facts(Facts { cells, ..facts })
}

/// Makes a service of so many endpoints, sorted by id, with this metadata.
fn endpoints(count: usize, meta: impl Fn(usize) -> String) -> Service {
    let all: Vec<String> = (0..count).map(|at| format!("{at:05} 1{}", meta(at))).collect();
    service(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn class_of(bits: u32, index: u32) -> Class {
    Class::default().with_subset(Subset::new(bits, index))
}

/// Returns the places of the backends that a class gets. Checks that `explain` agrees.
#[track_caller]
fn listed(service: &Service, class: &Class) -> Vec<u32> {
    let decision = decide_explained(service, class);
    assert!(decision.weights().iter().all(|weight| *weight > 0));
    decision.picks().iter().map(|pick| pick.endpoint).collect()
}

#[test]
fn cells_divide_a_service_evenly() {
    let whole = endpoints(300, |_| String::new());
    let service = divided(&whole, ServiceSettings::DEFAULT, Facts::default());
    let cells: Vec<_> = (0..8).map(|index| listed(&service, &class_of(3, index))).collect();
    assert!(cells.iter().all(|cell| (20..=42).contains(&cell.len())), "{cells:?}");
    let mut all: Vec<u32> = cells.concat();
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<_>>());
    assert!(decide(&service, &class_of(3, 0)).weights().iter().all(|weight| *weight == 1));
    // A longer run has the cells of its halves, and a client without a subset has all.
    let mut wide = [cells[2].clone(), cells[3].clone()].concat();
    wide.sort_unstable();
    assert_eq!(listed(&service, &class_of(2, 1)), wide);
    assert_eq!(listed(&service, &Class::default()).len(), 300);
    // Once the cells are made, a list costs only its own backends.
    assert_eq!(work(&service, &class_of(3, 1)), cells[1].len());
    // Names that select, and keys, choose among all.
    let selects = Class::new(&[Selector { key: "id".into(), value: "00007".into() }]);
    assert!(!divides(&service, &selects) && divides(&service, &class_of(3, 1)));
    assert_eq!(listed(&service, &selects), [7]);
}

#[test]
fn a_sick_backend_leaves_only_the_list_of_its_cell() {
    let whole = endpoints(300, |_| String::new());
    let mut settings = ServiceSettings::DEFAULT;
    settings.health.kind = HealthKind::Grpc;
    let sick = |places: &[u32]| {
        let unhealthy =
            places.iter().map(|&at| (whole.endpoints[at as usize].addr, HealthAnswer::NotServing));
        let health = Health { unhealthy: unhealthy.collect(), ..Health::default() };
        let facts = Facts { health: Some(Arc::new(health)), ..Facts::default() };
        divided(&whole, settings.clone(), facts)
    };
    let well = sick(&[]);
    let before: Vec<_> = (0..8).map(|index| listed(&well, &class_of(3, index))).collect();
    let one = sick(&before[5][..1]);
    for (index, before) in (0..).zip(&before) {
        let after = listed(&one, &class_of(3, index));
        assert_eq!(after, before[usize::from(index == 5)..], "{index}");
    }
    // Without a healthy backend, a cell has the list of the neighbour with which it shares the
    // first bits.
    let lost = sick(&before[5]);
    assert_eq!(listed(&lost, &class_of(3, 5)), before[4]);
    assert_eq!(listed(&lost, &class_of(3, 4)), before[4]);
    assert_eq!(listed(&lost, &class_of(3, 6)), before[6]);
}

#[test]
fn cells_keep_the_shares_of_zones_and_canaries() {
    // Half of the backends, but a quarter of the calls, are in zone b. Zone b has half as many
    // cells as zone a, because its canaries are a group of their own.
    let zone = |at: usize| if at < 300 { " zone=a" } else { " zone=b" };
    let version = |at: usize| if at % 20 == 19 { " version=v2" } else { "" };
    let whole = endpoints(600, |at| format!("{}{}", zone(at), version(at)));
    let mut settings = ServiceSettings::DEFAULT;
    settings.zones.mode = ZoneMode::Prefer;
    settings.split.select = Some(Selector { key: "version".into(), value: "v2".into() });
    (settings.split.percent, settings.split.by) = (Factor::millionths(100_000), SplitBy::Calls);
    let demand = Demand { zones: [("a".into(), 750), ("b".into(), 250)].into(), unknown: 0 };
    let zones = Zones { table: Arc::default(), demand: Arc::new(demand) };
    let facts = Facts { zones: Some(Arc::new(zones)), ..Facts::default() };
    let service = divided(&whole, settings, facts);
    let cells = cells(&service).unwrap();
    let counts: Vec<_> = cells.counts().map(|(group, cells)| (group.canary, cells)).collect();
    assert_eq!(counts, [(false, 8), (true, 1), (false, 8), (true, 1)]);
    for index in 0..8 {
        let class = class_of(3, index).in_zone(Some("a".into()));
        let picks = listed(&service, &class);
        assert!((60..=150).contains(&picks.len()), "{}", picks.len());
        let decision = decide(&service, &class);
        let sum = |of: &dyn Fn(usize) -> bool| -> f64 {
            let dues = decision.picks().iter().zip(decision.dues());
            dues.filter(|one| of(one.0.endpoint as usize)).map(|one| one.1).sum()
        };
        // Two thirds of the calls stay, in each group.
        let (canaries, near) = (sum(&|at| at % 20 == 19), sum(&|at| at < 300));
        let near_canaries = sum(&|at| at < 300 && at % 20 == 19);
        assert!((canaries - 0.1).abs() < 1e-9, "{canaries}");
        assert!((near - 2.0 / 3.0).abs() < 0.01, "{near}");
        assert!((near_canaries - 0.1 * 2.0 / 3.0).abs() < 0.001, "{near_canaries}");
    }
}

#[test]
fn overload_sheds_unless_a_mark_says_otherwise() {
    let facts = Facts { overload_shed: Some(30), ..Facts::default() };
    let overloaded = service(&["a 1"]).with_facts(facts);
    assert_eq!(decide(&overloaded, &Class::default()).drop_percent, 30);
    let key = MarkKey::parse("shed/s").unwrap();
    let value = Value { percent: Some(5), ..Value::default() };
    let marks = Marks::new([Arc::new(Mark { key, value })]);
    let marked = overloaded.with_marks(marks.for_canonical("s"));
    assert_eq!(decide(&marked, &Class::default()).drop_percent, 5);
    assert_eq!(overload_shed(&marked, &Class::default()), None);
}
