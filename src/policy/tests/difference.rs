//! Tests the comparison of two decisions.

use super::*;
use crate::policy::difference::{Difference, ShareChange, between};

/// Makes a service of backends `PORT WEIGHT`, and decides it for all clients.
fn decided(backends: &[(u16, u32)]) -> (Service, Decision) {
    let endpoint = |&(port, weight): &(u16, u32)| Endpoint {
        id: port.to_string().into(),
        addr: addr(port),
        weight: Weight(weight),
        meta: Arc::default(),
    };
    let endpoints = backends.iter().map(endpoint).collect();
    let snapshot = ServiceSnapshot::new(ServiceName::new("s").unwrap(), 1, endpoints);
    let service = Service::new(1, snapshot, crate::settings::ServiceSettings::DEFAULT);
    let decision = decide(&service, &Class::default());
    (service, decision)
}

fn addr(port: u16) -> BackendAddr {
    BackendAddr::new([10, 0, 0, 1].into(), port).unwrap()
}

fn compare(before: &[(u16, u32)], after: &[(u16, u32)]) -> Difference {
    let (before, after) = (decided(before), decided(after));
    between(Some((&before.0, &before.1)), Some((&after.0, &after.1)))
}

#[test]
fn backends_join_leave_and_move_the_largest_change_first() {
    let found = compare(&[(1, 3), (2, 3), (3, 2)], &[(2, 1), (3, 5), (4, 2)]);
    let change = |port, before, after| ShareChange { backend: addr(port), before, after };
    let expected = [
        change(1, Some(0.375), None),
        change(3, Some(0.25), Some(0.625)),
        change(2, Some(0.375), Some(0.125)),
        change(4, None, Some(0.25)),
    ];
    assert_eq!(found.shares, expected);
    let kinds: Vec<_> = found.shares.iter().map(|one| (one.joins(), one.leaves())).collect();
    assert_eq!(kinds, [(false, true), (false, false), (false, false), (true, false)]);
    assert_eq!((found.drop_percent, found.is_empty), (None, (false, false)));
    assert!(!found.is_none());
}

#[test]
fn shares_that_differ_by_rounding_alone_are_equal_and_others_are_not() {
    assert!(compare(&[(1, 1), (2, 2)], &[(1, 500), (2, 1_000)]).is_none());
    assert!(compare(&[(1, 1_000_000), (2, 1_000_000)], &[(1, 1_000_000), (2, 999_999)]).is_none());
    assert_eq!(compare(&[(1, 1_000), (2, 1_000)], &[(1, 1_000), (2, 999)]).shares.len(), 2);
}

#[test]
fn drops_and_the_lack_of_backends_are_differences() {
    let (service, some) = decided(&[(1, 1)]);
    let drops = Decision { drop_percent: 30, ..some.clone() };
    let found = between(Some((&service, &some)), Some((&service, &drops)));
    assert_eq!((&found.shares[..], found.drop_percent), (&[][..], Some((0, 30))));
    assert!(!found.is_none());
    assert!(between(Some((&service, &drops)), Some((&service, &drops))).is_none());
    let found = between(None, Some((&service, &drops)));
    assert_eq!((found.is_empty, found.drop_percent), ((true, false), Some((0, 30))));
    // A service whose backends get no calls is empty, too.
    let (idle, none) = decided(&[(1, 0)]);
    let found = between(Some((&service, &some)), Some((&idle, &none)));
    assert_eq!((found.is_empty, found.shares.len()), ((false, true), 1));
    assert!(between(None, Some((&idle, &none))).is_none());
}
