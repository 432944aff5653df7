//! Tests how streams share encoded lists.
//!
//! In: many streams and selections. Out: counts of lists that were encoded and sent.

use std::time::Duration;

use lookaside::balancer::PATH;
use lookaside::settings::WhenEmpty;

use super::wire::{Balanced, GO};
use super::{ALL, ports, sorted_ports};

#[tokio::test]
async fn a_list_is_encoded_once_for_all_of_its_streams() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut streams = Vec::new();
    for client in ALL.iter().cycle().take(30) {
        let mut stream = balanced.open(client, "hello").await;
        stream.first_servers().await;
        streams.push(stream);
    }
    balanced.put("hello b 10.0.0.2:2").await;
    for stream in &mut streams {
        assert_eq!(stream.servers().await.len(), 2);
    }
    assert_eq!(balanced.counters.lists_encoded.total(), 2);
    assert_eq!(balanced.counters.lists_sent.total(), 60);
}

#[tokio::test]
async fn however_a_name_is_written_its_list_is_encoded_once() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("dev/game 7 10.0.0.7:1 zone=a").await;
    balanced.put("dev/game 8 10.0.0.8:2 zone=a").await;
    let names = ["dev/game", "game%2Edev:443", "dev%2fgame:1", "game.dev.lookaside.internal."];
    let mut names = names.map(String::from).to_vec();
    // Every mix of upper-case and lower-case letters.
    names.extend((0..128_u32).map(|bits| {
        let letter =
            |(at, c): (usize, char)| if bits >> at & 1 == 1 { c.to_ascii_uppercase() } else { c };
        "game.dev".chars().enumerate().map(letter).collect()
    }));
    let mut streams = Vec::new();
    for name in &names {
        let mut stream = balanced.open(GO, name).await;
        assert_eq!(sorted_ports(&stream.first_servers().await), [1, 2], "{name}");
        streams.push(stream);
    }
    assert_eq!(balanced.counters.lists_encoded.total(), 1);
    balanced.put("dev/game 9 10.0.0.9:3").await;
    for stream in &mut streams {
        assert_eq!(sorted_ports(&stream.servers().await), [1, 2, 3]);
    }
    assert_eq!(balanced.counters.lists_encoded.total(), 2);
    // Selectors may come in any order, and more than once.
    for name in ["zone--a.id--7.game.dev", "ID--7.zone--A.zone--a.Game.dev"] {
        let mut stream = balanced.open(GO, name).await;
        assert_eq!(ports(&stream.first_servers().await), [1]);
        streams.push(stream);
    }
    assert_eq!(balanced.counters.lists_encoded.total(), 3);
    assert_eq!(balanced.counters.list_classes.now(), 2);
    drop(streams);
    while balanced.counters.list_classes.now() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_costs_those_whom_it_concerns() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let all: Vec<_> = (1..=300).map(|i| format!("big {i} 10.0.0.1:{i} zone={}", i % 3)).collect();
    balanced.reset(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut streams = Vec::new();
    for i in 1..=100 {
        let mut stream = balanced.open(GO, &format!("id--{i}.big")).await;
        assert_eq!(ports(&stream.first_servers().await), [i]);
        streams.push(stream);
    }
    let mut zone = balanced.open(GO, "zone--1.big").await;
    assert_eq!(zone.first_servers().await.len(), 100);
    let counters = balanced.counters.clone();
    let encoded = counters.lists_encoded.total();
    assert_eq!(encoded, 101);
    // One backend of zone 2 gets another address.
    balanced.put("big 50 10.0.0.2:1050 zone=2").await;
    assert_eq!(ports(&streams[49].servers().await), [1050]);
    let settled = || async {
        while counters.lists_suppressed.total() < 100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settled()).await.expect("all have looked");
    assert_eq!(counters.lists_encoded.total() - encoded, 1);
    assert!(streams[48].silent().await && zone.silent().await);
    // A backend that sorts before all others changes the index of every endpoint.
    balanced.put("big 0 10.0.0.3:1 zone=1").await;
    assert_eq!(zone.servers().await.len(), 101);
    assert_eq!(counters.lists_encoded.total() - encoded, 2);
}

/// Returns `count` distinct selections of `big`. Each chooses all its backends.
fn selections(count: u32) -> impl Iterator<Item = String> {
    (1..=count).map(|bits| {
        let chosen = (0..6).filter(|key| bits >> key & 1 == 1);
        let labels: String = chosen.map(|key| format!("k{key}--x.")).collect();
        format!("{labels}big")
    })
}

async fn all_alike(backends: u16) -> Balanced {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let keys: String = (0..6).map(|key| format!(" k{key}=x")).collect();
    let all: Vec<_> = (1..=backends).map(|i| format!("big {i} 10.0.0.1:{i}{keys}")).collect();
    balanced.reset(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    balanced
}

#[tokio::test]
async fn a_connection_makes_few_lists_before_others_have_their_turn() {
    const STREAMS: u32 = 20;
    let balanced = all_alike(6_000).await;
    let (ours, _serving) = balanced.connect_raw();
    let (client, connection) = h2::client::Builder::new()
        // The windows are so large that the balancer never waits for the client.
        .initial_window_size(1 << 24)
        .initial_connection_window_size(1 << 30)
        .handshake::<_, bytes::Bytes>(ours)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut streams = Vec::new();
    for name in selections(STREAMS) {
        let mut client = client.clone().ready().await.unwrap();
        let mut stream = Balanced::call(&mut client, PATH, GO);
        stream.initial(&name);
        streams.push(stream);
    }
    // In each turn of the runtime, the connection has one turn.
    let (mut most, mut before) = (0, 0);
    while before < u64::from(STREAMS) {
        tokio::task::yield_now().await;
        let encoded = balanced.counters.lists_encoded.total();
        most = most.max(encoded - before);
        before = encoded;
    }
    assert!((1..=3).contains(&most), "{most} lists were made in one turn");
    assert_eq!(balanced.counters.list_classes.now(), u64::from(STREAMS));
}

#[tokio::test]
async fn selections_without_end_are_refused_and_nobody_else_is() {
    let mut balanced = all_alike(10_000).await;
    let (mut streams, mut refused) = (Vec::new(), 0);
    for name in selections(16) {
        let mut stream = balanced.open(GO, &name).await;
        match stream.maybe_next().await {
            Some(_) => streams.push(stream),
            None => {
                let (code, text) = stream.status().await;
                assert_eq!(code, 8);
                assert!(text.starts_with("too many different selections"), "{text}");
                refused += 1;
            }
        }
    }
    assert_eq!((streams.len(), refused), (12, 4));
    assert_eq!(balanced.open(GO, "big").await.first_servers().await.len(), 10_000);
    for i in 1..=20 {
        let mut small = balanced.open(GO, &format!("id--{i}.big")).await;
        assert_eq!(small.first_servers().await.len(), 1);
        streams.push(small);
    }
    // Streams that end free room for other selections.
    drop(streams);
    while balanced.counters.list_classes.now() > 0 {
        tokio::task::yield_now().await;
    }
    let mut stream = balanced.open(GO, "k5--x.k4--x.big").await;
    assert_eq!(stream.first_servers().await.len(), 10_000);
    balanced.put("other a 10.0.0.1:1").await;
}
