//! Tests that xDS clients get the decision that grpclb clients get: zones, splits and sheds.
//!
//! In: settings, marks, and backends with zones and versions. Out: assignments, whose
//! localities keep their names whatever the weights are.

use std::sync::Arc;

use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lookaside::catalog::Input;
use lookaside::marks::{Mark, MarkKey, Marks, Value};
use lookaside::model::{Class, Selector, ServiceName};
use lookaside::policy;
use lookaside::settings::WhenEmpty;

use super::wire::Balanced;
use super::xds::{Client, backends};

const ZONES: &str = "[service.hello]\nzones.mode = 'prefer'\n";

/// A stream's endpoints of one name.
struct Endpoints {
    client: Client,
    name: &'static str,
    nonce: String,
}

impl Endpoints {
    async fn open(balanced: &Balanced, zone: &'static str, name: &'static str) -> Self {
        let client = Client::open_in_zone(balanced, zone).await;
        Self { client, name, nonce: String::new() }
    }

    /// Accepts the last response, and returns the next.
    async fn next(&mut self) -> ClusterLoadAssignment {
        self.client.ask::<ClusterLoadAssignment>(&[self.name], &self.nonce);
        let (response, mut all) = self.client.next::<ClusterLoadAssignment>().await;
        self.nonce = response.nonce;
        all.remove(0)
    }

    /// Waits for the assignment with these ports.
    async fn until(&mut self, expected: &[u32]) {
        loop {
            let ports: Vec<_> = backends(&self.next().await).iter().map(|one| one.1).collect();
            if ports == expected {
                return;
            }
        }
    }
}

/// Returns the share of the backends with these ports.
fn share(assignment: &ClusterLoadAssignment, ports: std::ops::Range<u32>) -> f64 {
    let all = backends(assignment);
    let sum = |ports: &dyn Fn(u32) -> bool| -> f64 {
        all.iter().filter(|one| ports(one.1)).map(|one| f64::from(one.2)).sum()
    };
    sum(&|port| ports.contains(&port)) / sum(&|_| true)
}

#[tokio::test(start_paused = true)]
async fn a_client_stays_in_the_zone_that_it_states() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    // The address of every client is in zone b, and counts only for one that states nothing.
    let table = "[zones]\n'192.0.2.0/24' = 'b'\n[zones.alias]\neu-1a = 'a'\n";
    balanced.settle(&format!("{ZONES}{table}")).await;
    for (ports, zone) in [([11, 12, 13], "a"), ([21, 22, 23], "b")] {
        for port in ports {
            balanced.put(&format!("hello {port} 10.0.0.{port}:{port} zone={zone}")).await;
        }
    }
    tokio::spawn(balanced.balancer.clone().follow_demand(balanced.inputs.clone(), || 1.0));
    let mut stated = Endpoints::open(&balanced, "EU-1A", "hello").await;
    let mut by_address = Endpoints::open(&balanced, "", "hello").await;
    // A zone without clients would take calls of the other.
    stated.next().await;
    by_address.next().await;
    stated.until(&[11, 12, 13]).await;
    by_address.until(&[21, 22, 23]).await;
    let zones = || -> Vec<_> { balanced.xds.clients()().into_iter().map(|one| one.zone).collect() };
    assert_eq!(zones(), [Some("a".into()), Some("b".into())]);
    let views = balanced.xds.clients()().into_iter();
    let said: Vec<_> = views.map(|one| one.xds.and_then(|xds| xds.stated_zone)).collect();
    assert_eq!(said, [Some("EU-1A".into()), None], "the zone of an address is not stated");
    let hello = ServiceName::new("hello").unwrap();
    let demand = balanced.balancer.demand()(&hello).expect("clients of xDS count");
    assert_eq!(demand.clients, [(Some("a".into()), 1), (Some("b".into()), 1)]);
    // The name says more than the client.
    let mut named = Endpoints::open(&balanced, "a", "zone--b.hello").await;
    named.next().await;
    assert_eq!(zones()[2], Some("b".into()));
    // Without zones, no client has one.
    balanced.settle("").await;
    drop(named);
    stated.until(&[11, 12, 13, 21, 22, 23]).await;
    by_address.until(&[11, 12, 13, 21, 22, 23]).await;
    assert_eq!(balanced.balancer.demand()(&hello), None);
}

#[tokio::test]
async fn canaries_get_their_share() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let splitting = |percent: u32| {
        let split = "select = 'version=v2', by = 'calls'";
        format!("[service.hello]\nsplit = {{ {split}, percent = {percent} }}\n")
    };
    balanced.settle(&splitting(10)).await;
    for (port, rest) in [
        (11, "weight=3 version=v1"),
        (12, "version=v1"),
        (21, "weight=5 version=v2"),
        (22, "weight=2 version=v2"),
    ] {
        balanced.put(&format!("hello {port} 10.0.0.{port}:{port} {rest}")).await;
    }
    let mut client = Endpoints::open(&balanced, "", "hello").await;
    let shares = |assignment: &ClusterLoadAssignment| {
        [11..12, 12..13, 21..22, 22..23].map(|ports| share(assignment, ports))
    };
    let is_near = |found: [f64; 4], due: [f64; 4]| {
        found.iter().zip(due).all(|(found, due)| (found - due).abs() < 1e-6)
    };
    let tenth = shares(&client.next().await);
    assert!(is_near(tenth, [0.675, 0.225, 0.1 * 5.0 / 7.0, 0.1 * 2.0 / 7.0]), "{tenth:?}");
    balanced.settle(&splitting(50)).await;
    let half = shares(&client.next().await);
    assert!(is_near(half, [0.375, 0.125, 0.5 * 5.0 / 7.0, 0.5 * 2.0 / 7.0]), "{half:?}");
}

/// A mark that sheds all calls holds also while no backend can serve them.
#[tokio::test]
async fn all_calls_are_shed_whether_there_are_backends_or_not() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello 1 10.0.0.1:1").await;
    let mark = async |all: &[&str]| {
        let mark = |key: &&str| {
            let key = MarkKey::parse(key).expect("a mark");
            Arc::new(Mark { key, value: Value::default() })
        };
        let marks = Arc::new(Marks::new(all.iter().map(mark)));
        balanced.inputs.send(Input::Marks(marks)).await.unwrap();
    };
    let dropped = |assignment: &ClusterLoadAssignment| {
        let policy = assignment.policy.as_ref();
        policy.map(|policy| policy.drop_overloads[0].drop_percentage.unwrap().numerator)
    };
    let mut client = Endpoints::open(&balanced, "", "hello").await;
    let first = client.next().await;
    assert_eq!((dropped(&first), first.endpoints.len()), (None, 1));
    for (marks, expected) in [
        (&["shed/hello"][..], (Some(100), 1)),
        (&["shed/hello", "drain/hello/10.0.0.1"], (Some(100), 0)),
        (&["drain/hello/10.0.0.1"], (None, 0)),
        // There is no fallback in xDS.
        (&["fallback/hello"], (None, 1)),
    ] {
        mark(marks).await;
        let next = client.next().await;
        assert_eq!((dropped(&next), next.endpoints.len()), expected, "{marks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_leaves_a_full_backend_and_comes_back_once_there_is_room() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle("[service.hello]\nhash.balance-factor = 105\n").await;
    for port in [1, 2] {
        balanced.put(&format!("hello {port} 10.0.0.{port}:{port}")).await;
    }
    let hello = ServiceName::new("hello").unwrap();
    let service = balanced.catalog.service(&hello).unwrap();
    let first_choice = |n: &u32| {
        let key = Selector { key: "hash".into(), value: format!("user{n}") };
        policy::decide(&service, &Class::new(&[key])).picks()[0].endpoint
    };
    // Six keys with the same first choice: it may have 105 % of three of them.
    let mut clients = Vec::new();
    for n in (0..).filter(|n| first_choice(n) == 0).take(6) {
        let name = format!("hash--user{n}.hello").leak();
        let mut client = Endpoints::open(&balanced, "", name).await;
        let port = backends(&client.next().await)[0].1;
        clients.push((client, port));
    }
    let moved = clients.iter().filter(|one| one.1 == 2).count();
    assert!((2..=3).contains(&moved), "{moved}");
    tokio::spawn(balanced.balancer.clone().follow_demand(balanced.inputs.clone(), || 1.0));
    // The others leave, so there is room for one and then for all.
    clients.retain(|one| one.1 == 2);
    clients.truncate(1);
    clients[0].0.until(&[1]).await;
}
