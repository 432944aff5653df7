//! Assignments have exact weights in an order of their own, and nothing that clients refuse.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::catalog::ServiceSnapshot;
use crate::model::{BackendAddr, Class, Endpoint as Registered, Meta, ServiceName, Weight};
use crate::settings::ServiceSettings;

fn service(backends: &[(String, u16, u32)]) -> Service {
    let endpoint = |(id, port, weight): &(String, u16, u32)| Registered {
        id: id.as_str().into(),
        addr: BackendAddr::new([10, 0, 0, 1].into(), *port).unwrap(),
        weight: Weight(*weight),
        meta: Arc::new(Meta::new()),
    };
    let name = ServiceName::new("s").unwrap();
    let snapshot = ServiceSnapshot::new(name, 1, backends.iter().map(endpoint).collect());
    Service::new(1, snapshot, Arc::new(ServiceSettings::DEFAULT))
}

fn encoded(backends: &[(String, u16, u32)]) -> Assignment {
    let service = service(backends);
    let decision = crate::policy::decide(&service, &Class::default());
    Assignment::new(&service, &decision, Grouping::Each, &Groups::of(&service))
}

fn decoded(assignment: &Assignment) -> ClusterLoadAssignment {
    ClusterLoadAssignment::decode(assignment.body.clone()).unwrap()
}

/// Returns name, port and weight of each locality.
fn localities(assignment: &Assignment) -> Vec<(String, u32, u32)> {
    let one = |locality: &LocalityLbEndpoints| {
        let [endpoint] = &locality.lb_endpoints[..] else { panic!("one endpoint") };
        let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier
        else {
            panic!("an endpoint")
        };
        let Some(address::Address::SocketAddress(socket)) =
            &endpoint.address.as_ref().unwrap().address
        else {
            panic!("an address")
        };
        let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("a port") };
        let name = locality.locality.as_ref().unwrap().sub_zone.clone();
        (name, port, locality.load_balancing_weight.unwrap())
    };
    decoded(assignment).endpoints.iter().map(one).collect()
}

#[test]
fn a_name_of_a_backend_changes_nothing() {
    let backends = [("b".to_owned(), 1, 5), ("a".to_owned(), 2, 7)];
    let renamed = [("a".to_owned(), 1, 5), ("b".to_owned(), 2, 7)];
    let expected = [("10.0.0.1:1".to_owned(), 1, 5), ("10.0.0.1:2".to_owned(), 2, 7)];
    assert_eq!(localities(&encoded(&backends)), expected);
    assert_eq!(encoded(&backends).body, encoded(&renamed).body);
}

#[test]
fn a_change_of_weights_has_another_version_and_the_same_members() {
    let [a, b] = [5, 6].map(|weight| encoded(&[("a".to_owned(), 1, weight)]));
    assert_ne!(a.version, b.version);
    assert_eq!(a.members, b.members);
    assert_ne!(a.members, encoded(&[("a".to_owned(), 2, 5)]).members);
}

#[test]
fn every_kind_of_client_gets_what_makes_it_fail_calls() {
    let of = |when_empty, kind| Assignment::without_backends(when_empty, kind);
    for kind in [ClientKind::Go, ClientKind::Core, ClientKind::Node, ClientKind::Other] {
        assert!(decoded(&of(WhenEmpty::Wait, kind)).endpoints.is_empty());
    }
    let java = of(WhenEmpty::Wait, ClientKind::Java);
    // No server can have the port 0.
    assert_eq!(localities(&java), [("unreachable".to_owned(), 0, 1)]);
    assert_eq!((java.told, java.backends), (Told::Unreachable, 0));
    for kind in [ClientKind::Go, ClientKind::Java] {
        let drop = of(WhenEmpty::Drop, kind);
        let drops = &decoded(&drop).policy.unwrap().drop_overloads;
        assert_eq!(drops[0].drop_percentage.unwrap().numerator, 100);
        assert!(!drops[0].category.is_empty());
        assert_eq!(drop.told, Told::Drop);
    }
}

#[test]
fn what_is_too_long_for_a_client_is_cut() {
    let addr = |port| BackendAddr::new([10, 0, 0, 1].into(), port).unwrap();
    let pick =
        |port| Backend { addr: addr(port), share: 1, weight: 1, registered: 1, group: "".into() };
    let picks: Vec<_> = (1..=100).map(pick).collect();
    for grouping in [Grouping::Each, Grouping::Together] {
        let homes = grouping.homes(&picks);
        let whole = Assignment::encode(&homes, None, Told::List, BODY_MAX);
        let cut = Assignment::encode(&homes, None, Told::List, whole.body.len() / 2);
        assert_eq!((whole.backends, whole.omitted), (100, 0));
        assert_eq!(cut.backends + cut.omitted, 100);
        assert!(cut.backends > 5 && cut.body.len() <= whole.body.len() / 2);
    }
}

proptest! {
    /// Each picked backend is there once, in a locality of its own, with a weight that a
    /// client accepts; shares are exact to a millionth.
    #[test]
    fn weights_are_exact_and_sums_have_32_bits(
        weights in prop::collection::vec(0..=u32::MAX, 1..20),
        seed in any::<u64>(),
    ) {
        let mut backends: Vec<_> = weights.iter().enumerate().map(|(at, &weight)| {
            let port = u16::try_from(at + 1).unwrap();
            (format!("{}", (at as u64 * 7 + seed) % 23), port, weight)
        }).collect();
        let assignment = encoded(&backends);
        let all = localities(&assignment);
        let sum: u64 = all.iter().map(|(_, _, weight)| u64::from(*weight)).sum();
        prop_assert!(sum <= u64::from(u32::MAX));
        prop_assert!(all.iter().all(|(_, _, weight)| *weight > 0));
        let names: BTreeSet<_> = all.iter().map(|(name, ..)| name).collect();
        prop_assert_eq!(names.len(), all.len());
        let due: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        for (_, port, weight) in &all {
            let wanted = f64::from(weights[*port as usize - 1]) / due as f64;
            let got = f64::from(*weight) / sum as f64;
            prop_assert!((wanted - got).abs() < 1e-6, "{wanted} {got}");
        }
        prop_assert_eq!(all.len(), weights.iter().filter(|&&weight| weight > 0).count());
        // The order in which backends are given is irrelevant.
        backends.reverse();
        prop_assert_eq!(&encoded(&backends).body, &assignment.body);
    }
}
