//! Tests which lists clients get by the zone in which they are.
//!
//! In: settings, backends with zones, and reports. Out: the lists of open streams.

use std::collections::BTreeMap;
use std::time::Duration;

use lookaside::model::ServiceName;
use lookaside::settings::WhenEmpty;

use crate::conversations::wire::{Balanced, PYTHON, Stream, pb};

const ZONES: &str = "[service.hello]\nzones.mode = 'prefer'\n";

/// Starts a balancer with three backends in each of these zones: ports 11, 12, 13 in the
/// first, 21, 22, 23 in the second.
async fn balanced(zones: &[&str], document: &str) -> Balanced {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle(document).await;
    for (zone, name) in (1..).zip(zones) {
        for one in 1..=3 {
            let port = 10 * zone + one;
            balanced.put(&format!("hello {port} 10.0.0.{port}:{port} zone={name}")).await;
        }
    }
    tokio::spawn(balanced.balancer.clone().follow_demand(balanced.inputs.clone(), || 1.0));
    balanced
}

/// Returns how many entries each zone has, by the first digit of the ports.
fn entries(servers: &[pb::Server]) -> Vec<(i32, usize)> {
    let mut zones = BTreeMap::new();
    for server in servers {
        *zones.entry(server.port / 10).or_default() += 1;
    }
    zones.into_iter().collect()
}

/// Waits for the list with these entries by zone.
async fn until(stream: &mut Stream, expected: &[(i32, usize)]) {
    loop {
        let found = entries(&stream.servers().await);
        if found == expected {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clients_stay_in_their_zone_until_it_is_lost() {
    let table = "[zones]\n'192.0.2.0/24' = 'a'\n[zones.alias]\neu-1b = 'b'\n";
    let mut balanced = balanced(&["A", "eu-1b"], &format!("{ZONES}{table}")).await;
    let mut here = balanced.open(PYTHON, "hello").await;
    let mut there = balanced.open(PYTHON, "zone--EU-1B.hello").await;
    for stream in [&mut here, &mut there] {
        assert_eq!(entries(&stream.first_servers().await), [(1, 3), (2, 3)]);
    }
    until(&mut here, &[(1, 3)]).await;
    until(&mut there, &[(2, 3)]).await;
    let zones: Vec<_> = balanced.clients().into_iter().map(|client| client.zone).collect();
    assert_eq!(zones, [Some("a".into()), Some("b".into())]);
    let hello = ServiceName::new("hello").unwrap();
    let shown = balanced.balancer.demand()(&hello).unwrap();
    assert_eq!(shown.clients, [(Some("a".into()), 1), (Some("b".into()), 1)]);

    // The first zone is lost, and comes back.
    let left: Vec<_> = (21..=23).map(|n| format!("hello {n} 10.0.0.{n}:{n} zone=b")).collect();
    balanced.reset(&left.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(entries(&here.servers().await), [(2, 3)]);
    for n in 11..=13 {
        balanced.put(&format!("hello {n} 10.0.0.{n}:{n} zone=a")).await;
    }
    until(&mut here, &[(1, 3)]).await;

    // The client's address is in another zone now, so that zone has all of the demand.
    let moved = format!("{ZONES}[zones]\n'192.0.2.0/24' = 'b'\n");
    balanced.settle(&moved).await;
    assert_eq!(entries(&here.servers().await), [(2, 3)]);
    until(&mut here, &[(1, 3), (2, 3)]).await;

    // Without zones, the name selects.
    balanced.settle("").await;
    until(&mut there, &[(2, 3)]).await;
    assert!(balanced.clients().iter().all(|client| client.zone.is_none()));
    assert_eq!(balanced.balancer.demand()(&hello), None);
}

#[tokio::test(start_paused = true)]
async fn the_excess_of_a_busy_zone_goes_to_others() {
    let balanced = balanced(&["a", "b"], ZONES).await;
    let mut here = balanced.open(PYTHON, "zone--a.hello").await;
    let mut there = balanced.open(PYTHON, "zone--b.hello").await;
    let mut nowhere = balanced.open(PYTHON, "hello").await;
    for stream in [&mut here, &mut there, &mut nowhere] {
        assert_eq!(entries(&stream.first_servers().await), [(1, 3), (2, 3)]);
    }
    until(&mut here, &[(1, 3)]).await;
    until(&mut there, &[(2, 3)]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let calls = |calls| pb::ClientStats { num_calls_started: calls, ..Default::default() };
    here.report(calls(30));
    there.report(calls(10));
    nowhere.report(calls(0));
    // Zone a has three quarters of the calls and half of the weight.
    until(&mut here, &[(1, 6), (2, 3)]).await;
    assert!(there.silent().await, "the other zone keeps its calls");
    assert!(nowhere.silent().await);
}
