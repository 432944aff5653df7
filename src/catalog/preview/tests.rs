//! Tests previews of facts that time decides. `tests/admin/list_changes.rs` compares previews
//! with what follows.

use std::collections::BTreeMap;

use super::*;
use crate::catalog::Facts;
use crate::facts::factor::Factor;
use crate::model::{BackendAddr, ServiceName, Weight};
use crate::settings::{Settings, ShedSettings};

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
    let zones = Settings::new(ServiceSettings::DEFAULT).zones().clone();
    let (now, wall) = (Instant::now(), Duration::from_secs(1_000_000));
    let settings = Arc::new(settings);
    let proposal = Proposal { settings, zones: &zones, liveness, may_expire: true, now, wall };
    preview(service, &proposal)
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
