//! Tests which backends are down, and which never are.

use std::sync::Arc;

use super::*;
use crate::model::Weight;

const EVERY: Duration = Duration::from_secs(30);

fn addr(n: u16) -> BackendAddr {
    BackendAddr::new([127, 0, 0, 1].into(), n).unwrap()
}

fn name() -> ServiceName {
    ServiceName::new("hello").unwrap()
}

fn endpoint(n: u16) -> Endpoint {
    Endpoint { id: n.to_string().into(), addr: addr(n), weight: Weight(1), meta: Arc::default() }
}

/// Makes the state of these ports, of which those in `refuse` refuse connections.
fn unleased(all: std::ops::Range<u16>, refuse: &[u16]) -> DownDetector {
    let mut unleased = DownDetector::default();
    all.for_each(|n| unleased.add(&name(), addr(n), EVERY));
    for _ in 0..REFUSALS_MAX {
        refuse.iter().for_each(|n| drop(unleased.probed(addr(*n), ProbeResult::Refuses)));
    }
    unleased
}

fn listed(unleased: &mut DownDetector, all: std::ops::Range<u16>) -> Vec<u16> {
    let mut endpoints: Vec<_> = all.map(endpoint).collect();
    unleased.remove_down(&name(), &mut endpoints);
    endpoints.iter().map(|endpoint| endpoint.addr.port()).collect()
}

#[test]
fn one_that_keeps_refusing_is_down_until_it_takes_connections() {
    let mut unleased = unleased(1..4, &[]);
    assert!(unleased.probed(addr(2), ProbeResult::Refuses).is_empty());
    assert!(unleased.probed(addr(2), ProbeResult::Refuses).is_empty());
    assert_eq!(listed(&mut unleased, 1..4), [1, 2, 3]);
    assert_eq!(unleased.probed(addr(2), ProbeResult::Refuses), [name()]);
    assert_eq!(listed(&mut unleased, 1..4), [1, 3]);
    assert_eq!(unleased.endpoints(&name()).len(), 1);
    assert_eq!(unleased.probed(addr(2), ProbeResult::Takes), [name()]);
    assert_eq!(listed(&mut unleased, 1..4), [1, 2, 3]);
    assert!(unleased.down.is_empty());
}

#[test]
fn silence_is_no_refusal_and_strangers_do_not_count() {
    let mut unleased = unleased(1..4, &[]);
    for _ in 0..10 {
        assert!(unleased.probed(addr(2), ProbeResult::Silent).is_empty());
        assert!(unleased.probed(addr(9), ProbeResult::Refuses).is_empty());
    }
    assert_eq!(listed(&mut unleased, 1..4), [1, 2, 3]);
}

#[test]
fn at_least_half_is_left_or_all() {
    assert_eq!(listed(&mut unleased(1..5, &[1, 2]), 1..5), [3, 4]);
    assert_eq!(listed(&mut unleased(1..5, &[1, 2, 3]), 1..5), [1, 2, 3, 4]);
    assert_eq!(listed(&mut unleased(1..2, &[1]), 1..2), [1], "the last one stays");
    // A backend that takes no calls does not count.
    let mut unleased = unleased(1..3, &[1]);
    let mut endpoints = vec![endpoint(1), Endpoint { weight: Weight(0), ..endpoint(2) }];
    unleased.remove_down(&name(), &mut endpoints);
    assert_eq!(endpoints.len(), 2);
}

#[test]
fn what_is_registered_no_more_is_forgotten() {
    let mut unleased = unleased(1..5, &[1]);
    assert!(unleased.any_refuses());
    assert!(unleased.take_changed().0 && !unleased.take_changed().0);
    unleased.remove(&name(), addr(1));
    assert!(unleased.refusals.is_empty() && !unleased.any_refuses());
    assert!(unleased.take_changed().0);
    unleased.add(&name(), addr(1), EVERY);
    assert_eq!(listed(&mut unleased, 1..5), [1, 2, 3, 4], "registered anew");
}

#[test]
fn a_lease_for_an_address_clears_its_refusals_wherever_it_is_registered() {
    let other = ServiceName::new("other").unwrap();
    let mut unleased = unleased(1..5, &[1]);
    assert_eq!(listed(&mut unleased, 1..5), [2, 3, 4]);
    unleased.add(&other, addr(1), EVERY);
    assert_eq!(unleased.clear_refusals(addr(1)), [name(), other]);
    assert_eq!(listed(&mut unleased, 1..5), [1, 2, 3, 4]);
    assert!(unleased.clear_refusals(addr(2)).is_empty());
}
