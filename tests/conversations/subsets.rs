//! Tests which backends of a large service each client gets.
//!
//! In: settings, many backends, and reports. Out: the lists of open streams.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{address, socket_address::PortSpecifier};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lookaside::model::ServiceName;
use lookaside::settings::WhenEmpty;

use crate::conversations::wire::{Balanced, GO, JAVA, PYTHON, Stream, pb};
use crate::conversations::xds::Client;
use crate::conversations::xds_reports::{Reporter, stats};

const CELLS: &str = "[service.hello]\nsubset.mode = 'cells'\n";
const BACKENDS: i32 = 300;

fn backend(port: i32) -> String {
    format!("hello {port:04} 10.0.0.1:{port}")
}

/// Starts a balancer with 300 backends.
async fn balanced() -> Balanced {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.settle(CELLS).await;
    let all: Vec<_> = (1..=BACKENDS).map(backend).collect();
    balanced.reset(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    tokio::spawn(balanced.balancer.clone().follow_demand(balanced.inputs.clone(), || 1.0));
    balanced
}

/// Opens so many streams, each from an address of its own. Returns them with the ports of
/// their lists.
async fn open(balanced: &mut Balanced, count: u8) -> Vec<(Stream, BTreeSet<i32>)> {
    let mut streams = Vec::new();
    for (client, agent) in (0..count).zip([GO, JAVA, PYTHON].iter().cycle()) {
        balanced.peer = format!("192.0.2.{client}:1234").parse().unwrap();
        let mut stream = balanced.open(agent, "hello").await;
        let ports = ports(&stream.first_servers().await);
        streams.push((stream, ports));
    }
    streams
}

fn ports(servers: &[pb::Server]) -> BTreeSet<i32> {
    servers.iter().map(|server| server.port).collect()
}

#[tokio::test(start_paused = true)]
async fn each_client_gets_a_cell_and_all_backends_equally_many_clients() {
    let mut balanced = balanced().await;
    let mut streams = open(&mut balanced, 160).await;
    let mut clients: BTreeMap<i32, usize> = BTreeMap::new();
    for (_, ports) in &streams {
        assert!((20..=42).contains(&ports.len()), "{}", ports.len());
        ports.iter().for_each(|port| *clients.entry(*port).or_default() += 1);
    }
    assert_eq!(clients.len(), 300, "every backend has clients");
    let most = clients.values().max().unwrap();
    // The mean is 20. Random subsets would give some backends more than 30.
    assert!(*most <= 26, "{clients:?}");
    assert_eq!(balanced.counters.lists_encoded.total(), 8, "a list for each cell");
    let shown: BTreeSet<_> =
        balanced.clients().iter().filter_map(|one| one.subset.map(|one| one.to_string())).collect();
    assert_eq!(shown.len(), 8, "{shown:?}");
    assert!(shown.contains("3/8"));
    let cells = balanced.balancer.cells()(&ServiceName::new("hello").unwrap());
    assert_eq!((cells[0].cells, cells[0].clients, cells[0].wide), (8, 160, 0));
    assert!(cells[0].hottest < 1.3, "{cells:?}");

    // A client that comes back gets the same cell.
    let (gone, before) = streams.pop().unwrap();
    drop(gone);
    while balanced.clients().len() > 159 {
        tokio::task::yield_now().await;
    }
    balanced.peer = "192.0.2.159:4321".parse().unwrap();
    let mut back = balanced.open(GO, "hello").await;
    assert_eq!(ports(&back.first_servers().await), before);

    // A backend that leaves concerns the clients of its cell.
    let sent = balanced.counters.lists_sent.total();
    let left = *before.first().unwrap();
    balanced.delete(&backend(left)).await;
    let fewer = ports(&back.servers().await);
    assert!(fewer.is_subset(&before) && !fewer.contains(&left), "{before:?} {fewer:?}");
    let concerned: usize = streams.iter().filter(|(_, ports)| ports.contains(&left)).count();
    for (stream, ports_before) in &mut streams {
        if ports_before.contains(&left) {
            assert!(!ports(&stream.servers().await).contains(&left));
        }
    }
    let sent = balanced.counters.lists_sent.total() - sent;
    assert!(sent <= 3 * concerned as u64 + 1, "{sent} lists for {concerned} clients");

    // Without the setting, every client gets all backends.
    balanced.settle("").await;
    while ports(&back.servers().await).len() < 299 {}
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(balanced.clients().iter().all(|client| client.subset.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_heavy_client_gets_several_cells() {
    let mut balanced = balanced().await;
    let mut streams = open(&mut balanced, 160).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    for (client, (stream, _)) in streams.iter_mut().enumerate() {
        let calls = if client == 5 { 10_000 } else { 100 };
        stream.report(pb::ClientStats { num_calls_started: calls, ..Default::default() });
    }
    balanced.reported("hello", 160).await;
    let (stream, before) = &mut streams[5];
    let more = loop {
        let more = ports(&stream.servers().await);
        if more.len() > 120 {
            break more;
        }
    };
    assert!(before.is_subset(&more) && more.len() <= 300, "{}", more.len());
    let cells = balanced.balancer.cells()(&ServiceName::new("hello").unwrap());
    assert!((1..20).contains(&cells[0].wide), "{cells:?}");
}

#[tokio::test(start_paused = true)]
async fn few_clients_get_enough_backends_together() {
    let mut balanced = balanced().await;
    let mut streams = open(&mut balanced, 3).await;
    for (stream, before) in &mut streams {
        assert!(before.len() <= 42);
        while ports(&stream.servers().await).len() < 300 {}
    }
}

/// Returns the locality of each backend, by port.
fn homes(assignment: &ClusterLoadAssignment) -> BTreeMap<u32, String> {
    let mut homes = BTreeMap::new();
    for locality in &assignment.endpoints {
        let name = &locality.locality.as_ref().unwrap().sub_zone;
        for endpoint in &locality.lb_endpoints {
            let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
                panic!("an endpoint")
            };
            let address = endpoint.address.as_ref().unwrap().address.as_ref();
            let Some(address::Address::SocketAddress(socket)) = address else { panic!("a socket") };
            let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!() };
            assert!(homes.insert(port, name.clone()).is_none());
        }
    }
    homes
}

/// Half of the clients speak grpclb: all count together.
#[tokio::test(start_paused = true)]
async fn clients_of_both_protocols_share_the_cells() {
    let mut balanced = balanced().await;
    let streams = open(&mut balanced, 80).await;
    let mut clients: BTreeMap<u32, usize> = BTreeMap::new();
    for (_, ports) in &streams {
        ports.iter().for_each(|port| *clients.entry(port.cast_unsigned()).or_default() += 1);
    }
    let mut others = Vec::new();
    for client in 80..160 {
        balanced.peer = format!("192.0.2.{client}:1234").parse().unwrap();
        let mut client = Client::open(&balanced).await;
        client.ask::<ClusterLoadAssignment>(&["hello"], "");
        let (response, all) = client.next::<ClusterLoadAssignment>().await;
        let ports = homes(&all[0]);
        assert!((20..=42).contains(&ports.len()), "{}", ports.len());
        ports.keys().for_each(|port| *clients.entry(*port).or_default() += 1);
        others.push((client, response.nonce));
    }
    assert_eq!(clients.len(), 300, "every backend has clients");
    assert!(*clients.values().max().unwrap() <= 26, "{clients:?}");
    assert_eq!(balanced.counters.assignments_encoded.total(), 8, "one for each cell");
    let shown = balanced.xds.clients()();
    let shown: BTreeSet<_> = shown.iter().filter_map(|one| one.subset).collect();
    assert_eq!(shown.len(), 8, "{shown:?}");
    let cells = balanced.balancer.cells()(&ServiceName::new("hello").unwrap());
    assert_eq!((cells[0].clients, cells[0].wide), (160, 0));
    // Hashed calls need all backends.
    balanced.settle(&format!("{CELLS}lb-policy = {{ kind = 'ring-hash', header = 'k' }}")).await;
    let (stream, nonce) = &mut others[0];
    stream.ask::<ClusterLoadAssignment>(&["hello"], nonce);
    loop {
        let (response, all) = stream.next::<ClusterLoadAssignment>().await;
        stream.ask::<ClusterLoadAssignment>(&["hello"], &response.nonce);
        if homes(&all[0]).len() == 300 {
            break;
        }
    }
}

/// Its former backends stay where they are, so it keeps its connections to them.
#[tokio::test(start_paused = true)]
async fn a_heavy_client_of_xds_gets_several_cells_and_no_backend_moves() {
    let mut balanced = balanced().await;
    balanced.settle(&format!("{CELLS}xds-reports = 'on'")).await;
    let mut clients = Vec::new();
    for client in 0..160 {
        balanced.peer = format!("192.0.2.{client}:1234").parse().unwrap();
        clients.push(Reporter::open(&balanced, "a").await);
    }
    tokio::time::sleep(Duration::from_secs(9)).await;
    // Only some report: the others count as the mean of those.
    for (client, reporter) in clients.iter_mut().enumerate().take(80) {
        let calls = if client == 5 { 10_000 } else { 100 };
        reporter.report(vec![stats("hello", &[[calls, calls, 0]], 0)]);
    }
    balanced.reported("hello", 80).await;
    let heavy = &mut clients[5];
    let before = homes(&heavy.assignment);
    assert!(before.len() <= 42, "{}", before.len());
    heavy.client.ask::<ClusterLoadAssignment>(&["hello"], &heavy.nonce);
    let more = loop {
        let (response, all) = heavy.client.next::<ClusterLoadAssignment>().await;
        heavy.client.ask::<ClusterLoadAssignment>(&["hello"], &response.nonce);
        let more = homes(&all[0]);
        if more.len() > 120 {
            break more;
        }
    };
    assert!(before.iter().all(|(port, home)| more.get(port) == Some(home)), "{before:?} {more:?}");
    let cells = balanced.balancer.cells()(&ServiceName::new("hello").unwrap());
    assert!((1..20).contains(&cells[0].wide), "{cells:?}");
}
