//! Tests decisions about unhealthy backends.

use super::*;
use crate::catalog::{Health, HealthAnswer};
use crate::settings::{HealthKind, HealthSettings, ServiceSettings};

fn with_health(endpoints: &[&str], kind: HealthKind, unhealthy: &[usize], panic: bool) -> Service {
    let service = service(endpoints);
    let health = HealthSettings { kind, ..ServiceSettings::DEFAULT.health };
    let settings = ServiceSettings { health, ..ServiceSettings::DEFAULT };
    let addr = |place: &usize| (service.endpoints[*place].addr, HealthAnswer::NotServing);
    let health =
        Health { unhealthy: unhealthy.iter().map(addr).collect(), panic, ..Health::default() };
    Service::new(1, service.snapshot.clone(), settings)
        .with_facts(Facts { health: Some(Arc::new(health)), ..Facts::default() })
}

fn class(selectors: &[(&str, &str)]) -> Class {
    let selector = |&(key, value): &(&str, &str)| Selector { key: key.into(), value: value.into() };
    Class::new(&selectors.iter().map(selector).collect::<Vec<_>>())
}

/// Returns the places of the picked backends, about which `explain` must agree.
fn places(service: &Service, class: &Class) -> Vec<usize> {
    let decision = decide_explained(service, class);
    decision.picks().iter().map(|pick| pick.endpoint as usize).collect()
}

const THREE: [&str; 4] = ["a 1 zone=x", "b 1 zone=x", "c 1 zone=y", "d 0"];

#[test]
fn an_unhealthy_backend_is_left_out() {
    let service = with_health(&THREE, HealthKind::Grpc, &[0], false);
    assert_eq!(places(&service, &class(&[])), [1, 2]);
    assert_eq!(places(&service, &class(&[("zone", "x")])), [1]);
}

#[test]
fn health_alone_leaves_no_class_without_backends() {
    let service = with_health(&THREE, HealthKind::Tcp, &[0, 1, 3], false);
    assert_eq!(places(&service, &class(&[("zone", "x")])), [0, 1]);
    assert_eq!(places(&service, &class(&[("zone", "y")])), [2]);
    assert_eq!(places(&service, &class(&[])), [2], "weight 0 stays out");
    let none = with_health(&THREE, HealthKind::Tcp, &[0, 1, 2, 3], false);
    assert_eq!(places(&none, &class(&[])), [0, 1, 2]);
}

#[test]
fn panic_gives_back_only_what_health_took() {
    let service = with_health(
        &["a 1", "b 1 lame-duck=true", "c 0", "d 1"],
        HealthKind::Grpc,
        &[0, 1, 2],
        true,
    );
    assert_eq!(places(&service, &class(&[])), [0, 3]);
    let service = with_health(&THREE, HealthKind::Grpc, &[0, 1, 2], true);
    assert_eq!(places(&service, &class(&[("zone", "y")])), [2]);
}

#[test]
fn observed_health_is_shown_and_changes_nothing() {
    let service = with_health(&THREE, HealthKind::Observe, &[0, 2], false);
    assert_eq!(places(&service, &class(&[])), [0, 1, 2]);
}

#[test]
fn each_consequence_has_its_words() {
    let words = |service: &Service, selectors: &[(&str, &str)], place: usize| {
        let class = class(selectors);
        let findings = explain(service, &class).of(place);
        let found = findings.iter().find(|one| one.pass == Pass::Healthy);
        found.map(|one| format!("{} {one}", one.kept)).unwrap_or_default()
    };
    let make = |kind, unhealthy: &[usize], panic| with_health(&THREE, kind, unhealthy, panic);
    let (grpc, says) = (HealthKind::Grpc, "it says that it is not serving");
    assert_eq!(words(&make(HealthKind::Off, &[], false), &[], 0), "");
    assert_eq!(words(&make(grpc, &[1], false), &[], 0), "true no health check says otherwise");
    assert_eq!(words(&make(grpc, &[0], false), &[], 0), format!("false {says}"));
    let stays = |why: &str| format!("true {says}; {why}, so it stays listed");
    let panic = stays("but too little of the service is healthy (panic)");
    assert_eq!(words(&make(grpc, &[0], true), &[], 0), panic);
    let observed = stays("health is only observed");
    assert_eq!(words(&make(HealthKind::Observe, &[0], true), &[], 0), observed);
    let none = stays("but so is every backend that it could be replaced by");
    assert_eq!(words(&make(grpc, &[2], false), &[("zone", "y")], 2), none);
    let health = Health {
        unconfirmed: [(service(&THREE).endpoints[0].addr, HealthAnswer::Unreachable)].into(),
        ..Health::default()
    };
    let unconfirmed = make(grpc, &[], false)
        .with_facts(Facts { health: Some(Arc::new(health)), ..Facts::default() });
    let expected = "true it cannot be reached; but clients report that their calls are \
                    answered, so it stays listed for now";
    assert_eq!(words(&unconfirmed, &[], 0), expected);
    assert_eq!(places(&unconfirmed, &class(&[])), [0, 1, 2]);
}

proptest! {
    /// The picks are healthy and eligible, or all that are eligible. Neither the order of
    /// the unhealthy backends nor newcomers change that.
    #[test]
    fn health_only_takes_away_and_never_the_last(
        backends in prop::collection::vec((0..3_u32, any::<bool>(), any::<bool>(), 0..4_u8), 1..20),
        selects in any::<bool>(), panic in any::<bool>(), observe in any::<bool>(),
    ) {
        let text = |(weight, x, ..): &(u32, bool, bool, u8)| {
            format!("a {weight} zone={}", if *x { "x" } else { "y" })
        };
        let texts: Vec<_> = backends.iter().map(text).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let unhealthy: Vec<_> = (0..backends.len()).filter(|&at| backends[at].2).collect();
        let kind = if observe { HealthKind::Observe } else { HealthKind::Grpc };
        let service = with_health(&texts, kind, &unhealthy, panic);
        let selectors: &[_] = if selects { &[("zone", "x")] } else { &[] };
        let class = class(selectors);
        // The endpoints have one id, so the snapshot keeps their order.
        let eligible: Vec<_> = (0..backends.len())
            .filter(|&at| backends[at].0 > 0 && (!selects || backends[at].1))
            .collect();
        let healthy: Vec<_> = eligible.iter().copied().filter(|&at| !backends[at].2).collect();
        let acts = !panic && !observe && !healthy.is_empty();
        let expected = if acts { &healthy } else { &eligible };
        prop_assert_eq!(&places(&service, &class), expected);
        let addr = |at: usize| service.endpoints[at].addr;
        let part = Factor::millionths(100_000);
        let newcomers = Newcomers {
            starting: (0..backends.len()).filter(|&at| backends[at].3 == 1).map(|at| (addr(at), part)).collect(),
            delayed: (0..backends.len()).filter(|&at| backends[at].3 == 2).map(|at| (addr(at), Instant::now())).collect(),
        };
        let with = service.clone().with_facts(Facts { newcomers: Some(Arc::new(newcomers)), ..service.facts.clone() });
        let found = places(&with, &class);
        prop_assert!(found.iter().all(|at| expected.contains(at)));
        prop_assert_eq!(found.is_empty(), expected.is_empty());
    }
}
