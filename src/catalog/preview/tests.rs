//! Tests previews of facts that time decides. `tests/admin/list_changes.rs` compares previews
//! with what follows.

use std::collections::BTreeMap;

use super::*;
use crate::catalog::{Facts, HealthAnswer, HeldBackend, LoadFactors, LossReason};
use crate::facts::factor::Factor;
use crate::marks::{Mark, MarkKey, Marks, Value};
use crate::model::{BackendAddr, ServiceName, Weight};
use crate::settings::{HealthKind, LoadSettings, Settings, ShedSettings};

const MINUTE: Duration = Duration::from_secs(60);

fn addr(port: u16) -> BackendAddr {
    BackendAddr::new([10, 0, 0, 1].into(), port).unwrap()
}

/// Makes a service of three backends: one starts, one is delayed.
fn service(settings: &ServiceSettings) -> Service {
    let endpoint = |port: u16| Endpoint {
        id: port.to_string().into(),
        addr: addr(port),
        weight: Weight::DEFAULT,
        meta: Arc::default(),
    };
    let name = ServiceName::new("s").unwrap();
    let snapshot = ServiceSnapshot::new(name, 1, (1..=3).map(endpoint).collect());
    let newcomers = Newcomers {
        starting: BTreeMap::from([(addr(1), Factor::ZERO)]),
        delayed: BTreeMap::from([(addr(2), Instant::now())]),
    };
    let facts =
        Facts { newcomers: Some(Arc::new(newcomers)), overload_shed: Some(20), ..Facts::default() };
    Service::new(1, snapshot, settings.clone()).with_facts(facts)
}

fn with(service: &Service, settings: ServiceSettings, liveness: &Liveness) -> Preview {
    at(service, settings, liveness, true)
}

fn at(
    service: &Service,
    settings: ServiceSettings,
    liveness: &Liveness,
    may_expire: bool,
) -> Preview {
    let zones = Settings::new(ServiceSettings::DEFAULT).zones().clone();
    let (now, wall) = (Instant::now() + 10 * MINUTE, Duration::from_secs(1_000_000));
    let settings = Arc::new(settings);
    let proposal = Proposal { settings, zones: &zones, liveness, may_expire, now, wall };
    preview(service, &proposal)
}

/// Returns the drain of the backend with this port.
fn drained(port: u16) -> Marks {
    let key = MarkKey::parse(&format!("drain/s/{port}")).unwrap();
    Marks::new([Arc::new(Mark { key, value: Value::default() })])
}

#[test]
fn facts_whose_setting_ends_end_and_others_stay() {
    let shed = ShedSettings { mode: ShedMode::Overload, most: 95 };
    let now = ServiceSettings {
        slow_start: MINUTE,
        flap_delay: MINUTE,
        shed,
        ..ServiceSettings::DEFAULT
    };
    let service = service(&now);
    let mut liveness = Liveness::default();
    let check = |settings: ServiceSettings,
                 liveness: &Liveness,
                 expected: (usize, usize, _),
                 unknown: &[Unknown]| {
        let found = with(&service, settings, liveness);
        let facts = found.service.unwrap().facts;
        let newcomers = facts.newcomers.as_deref().cloned().unwrap_or_default();
        let counts = (newcomers.starting.len(), newcomers.delayed.len(), facts.overload_shed);
        assert_eq!((counts, &*found.unknown), (expected, unknown));
    };
    check(now.clone(), &liveness, (1, 1, Some(20)), &[]);
    let none = ServiceSettings { slow_start: Duration::ZERO, ..now.clone() };
    check(none, &liveness, (0, 1, Some(20)), &[]);
    // A backend whose delay ends starts slowly.
    let undelayed = ServiceSettings { flap_delay: Duration::ZERO, ..now.clone() };
    check(undelayed, &liveness, (1, 0, Some(20)), &[Unknown::Starting]);
    let longer = ServiceSettings { slow_start: 2 * MINUTE, ..now.clone() };
    check(longer, &liveness, (1, 1, Some(20)), &[Unknown::Starting]);
    let milder = ServiceSettings { shed: ShedSettings { most: 5, ..shed }, ..now.clone() };
    check(milder, &liveness, (1, 1, Some(20)), &[Unknown::Overload]);
    check(ServiceSettings::DEFAULT, &liveness, (0, 0, None), &[]);
    // The guard matters where it keeps backends now.
    let unguarded = ServiceSettings { guard: 0, ..now };
    check(unguarded.clone(), &liveness, (1, 1, Some(20)), &[]);
    liveness.guarded.insert(service.name.clone());
    check(unguarded, &liveness, (1, 1, Some(20)), &[Unknown::Guard]);
}

#[test]
fn held_backends_whose_time_is_over_leave_unless_the_registry_is_stale() {
    let kept =
        |minutes| ServiceSettings { keep_lost: minutes * MINUTE, ..ServiceSettings::DEFAULT };
    let service = service(&kept(30));
    let held = HeldBackend { since: Instant::now(), why: LossReason::LeaseLost, answer: None };
    let mut liveness = Liveness::default();
    liveness.held.insert(service.name.clone(), [(addr(3), held)].into_iter().collect());
    let left = |minutes, may_expire| {
        let found = at(&service, kept(minutes), &liveness, may_expire);
        found.service.unwrap().endpoints.len()
    };
    assert_eq!([left(60, true), left(5, true), left(5, false)], [3, 2, 3]);
}

#[test]
fn marks_stay_and_load_counts_as_long_as_the_same_reports_come() {
    let reports = |kind| ServiceSettings {
        load: LoadSettings { kind, ..ServiceSettings::DEFAULT.load },
        ..ServiceSettings::DEFAULT
    };
    let now = reports(LoadKind::Orca);
    let service = service(&now);
    let load = LoadFactors([(addr(1), Factor::ZERO)].into());
    let facts = Facts { load: Some(Arc::new(load)), ..service.facts.clone() };
    let service = service.with_facts(facts).with_marks(drained(2).for_canonical("s"));
    for (settings, has_load, unknown) in [
        (ServiceSettings { guard: 7, ..now }, true, &[][..]),
        (reports(LoadKind::Metadata), false, &[Unknown::Load]),
        (reports(LoadKind::Off), false, &[]),
    ] {
        let found = with(&service, settings, &Liveness::default());
        let new = found.service.unwrap();
        assert_eq!((new.facts.load.is_some(), &*found.unknown), (has_load, unknown));
        let drained: Vec<_> =
            new.endpoints.iter().map(|one| new.marks.drain(one).is_some()).collect();
        assert_eq!(drained, [false, true, false]);
    }
}

#[test]
fn backends_that_get_no_calls_count_for_no_panic() {
    let mut settings = ServiceSettings::DEFAULT;
    settings.health.kind = HealthKind::Grpc;
    settings.health.panic = 0;
    let service = service(&settings);
    let unhealthy = [(addr(1), HealthAnswer::NotServing)].into();
    let health = Health { unhealthy, unconfirmed: Default::default(), panic: false };
    let facts = Facts { health: Some(Arc::new(health)), ..service.facts.clone() };
    let service = service.with_facts(facts);
    settings.health.panic = 60;
    let panics = |service: &Service| {
        let found = with(service, settings.clone(), &Liveness::default()).service.unwrap();
        found.facts.health.unwrap().panic
    };
    // Other checks begin anew, and nobody is unhealthy until they fail.
    let mut other = settings.clone();
    other.health.kind = HealthKind::Tcp;
    let found = with(&service, other, &Liveness::default());
    assert_eq!(
        (found.service.unwrap().facts.health, &*found.unknown),
        (None, &[Unknown::Health][..])
    );
    // Two of three are healthy; of those that get calls, one of two.
    assert!(!panics(&service));
    assert!(panics(&service.with_marks(drained(2).for_canonical("s"))));
}
