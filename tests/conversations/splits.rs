//! Tests splits that change while streams are open, and names with keys.
//!
//! In: documents, and clients at several addresses. Out: which streams are sent a list, and
//! which backends get the keys.

use std::time::Duration;

use lookaside::catalog::Known;
use lookaside::model::{Class, Part, Selector, Target, Zone};
use lookaside::policy;
use lookaside::settings::WhenEmpty;

use crate::conversations::sorted_ports;
use crate::conversations::wire::{Balanced, GO, Stream};

const CLIENTS: u8 = 40;

/// Opens a stream from each of some addresses. Returns it with the ports of its list.
async fn clients(balanced: &mut Balanced) -> Vec<(Stream, Vec<i32>)> {
    let mut all = Vec::new();
    for n in 1..=CLIENTS {
        balanced.peer = ([192, 0, 2, n], 1_000).into();
        let mut stream = balanced.open(GO, "hello").await;
        let ports = sorted_ports(&stream.first_servers().await);
        all.push((stream, ports));
    }
    all
}

fn hello() -> Target {
    Target::parse("hello", &Zone::new("lookaside.internal").unwrap()).unwrap()
}

fn splitting(percent: u32) -> String {
    let split = "select = 'version=v2', by = 'clients'";
    format!("[service.hello]\nsplit = {{ {split}, percent = {percent} }}\n")
}

/// Waits until the balancer has looked at all streams again, and returns how many lists it
/// has sent since.
async fn sent_since(balanced: &Balanced, (sent, suppressed): (u64, u64)) -> u64 {
    let counters = &balanced.counters;
    let counts = || (counters.lists_sent.total() - sent, counters.lists_suppressed.total());
    let looked = async {
        loop {
            let (sent, now) = counts();
            if sent + now - suppressed >= u64::from(CLIENTS) {
                return sent;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looked).await.expect("all have looked")
}

#[tokio::test]
async fn a_greater_share_moves_only_new_clients_of_the_canaries() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let all = ["hello a 10.0.0.1:1", "hello b 10.0.0.1:2", "hello c 10.0.0.1:3 version=v2"];
    balanced.reset(&all).await;
    balanced.settle(&splitting(20)).await;
    let mut streams = clients(&mut balanced).await;
    assert!(streams.iter().all(|one| one.1 == [3] || one.1 == [1, 2]));
    assert_eq!(balanced.counters.list_classes.now(), 2);
    for (percent, grows) in [(70, true), (100, true), (20, false)] {
        let counters = &balanced.counters;
        let before = (counters.lists_sent.total(), counters.lists_suppressed.total());
        balanced.settle(&splitting(percent)).await;
        let sent = sent_since(&balanced, before).await;
        let mut moved = 0;
        for (n, (stream, ports)) in (1..).zip(&mut streams) {
            let client = [192, 0, 2, n].into();
            let Known::Present(service) = balanced.catalog.lookup(&hello()) else { panic!("gone") };
            let expected = match policy::part(&service, &Class::default(), client, true) {
                Part::Canaries => vec![3],
                _ => vec![1, 2],
            };
            if *ports != expected {
                moved += 1;
                assert_eq!(expected == [3], grows);
                *ports = sorted_ports(&stream.servers().await);
            }
            assert_eq!(*ports, expected);
        }
        assert!(moved > 0 && sent == moved, "{sent} lists for {moved} clients");
    }
    // Without canaries, their clients use the others.
    balanced.delete(all[2]).await;
    for (stream, _) in streams.iter_mut().filter(|one| one.1 == [3]) {
        assert_eq!(sorted_ports(&stream.servers().await), [1, 2]);
    }
}

#[tokio::test]
async fn a_key_has_one_entry_and_moves_when_its_backend_leaves() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let all = ["hello a 10.0.0.1:1", "hello b 10.0.0.1:2", "hello c 10.0.0.1:3"];
    balanced.reset(&all).await;
    let mut streams = Vec::new();
    for n in 0..u32::from(CLIENTS) {
        let mut stream = balanced.open(GO, &format!("hash--user{n}.hello")).await;
        let ports = sorted_ports(&stream.first_servers().await);
        assert_eq!(ports.len(), 1);
        streams.push((stream, ports[0]));
    }
    assert!((1..=3).all(|port| streams.iter().any(|one| one.1 == port)));
    let counters = &balanced.counters;
    let before = (counters.lists_sent.total(), counters.lists_suppressed.total());
    balanced.delete(all[0]).await;
    let sent = sent_since(&balanced, before).await;
    let moved: Vec<_> = streams.iter_mut().filter(|one| one.1 == 1).collect();
    assert_eq!(sent, moved.len() as u64);
    for (stream, _) in moved {
        assert_ne!(sorted_ports(&stream.servers().await), [1]);
    }
}

/// Returns the port of the backend to which a key is assigned now, and whether that is not its
/// first choice.
fn assigned(balanced: &Balanced, key: &str) -> (i32, bool) {
    let Known::Present(service) = balanced.catalog.lookup(&hello()) else { panic!("gone") };
    let class = Class::new(&[Selector { key: "hash".into(), value: key.into() }]);
    let all = policy::keys_of(&service, &class);
    let moved = (balanced.balancer.key_backend())(&service.name, &all, key);
    let decision = policy::decide(&service, &class.with_backend(moved));
    let port = service.endpoints[decision.picks()[0].endpoint as usize].addr.port();
    (port.into(), moved.is_some())
}

/// Reads the lists that were sent since `before`: one for each stream whose key has another
/// backend, and none for a key whose backend has become its first choice, or is it no longer.
/// Returns how many streams each of the ports 1 to 4 has, and how many keys are of the latter
/// kind.
async fn follow(
    balanced: &Balanced,
    streams: &mut [(Stream, i32, bool)],
    before: (u64, u64),
) -> ([usize; 4], usize) {
    let sent = sent_since(balanced, before).await;
    let (mut changed, mut same) = (0, 0);
    for (n, (stream, port, moved)) in streams.iter_mut().enumerate() {
        let now = assigned(balanced, &format!("user{n}"));
        if *port != now.0 {
            changed += 1;
            *port = sorted_ports(&stream.servers().await)[0];
        } else if *moved != now.1 {
            same += 1;
        }
        *moved = now.1;
        assert_eq!(*port, now.0);
    }
    assert_eq!(sent, changed);
    ([1, 2, 3, 4].map(|port| streams.iter().filter(|one| one.1 == port).count()), same)
}

#[tokio::test]
async fn a_backend_gets_no_more_of_the_keys_than_its_bound() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let all =
        ["hello a 10.0.0.1:1", "hello b 10.0.0.1:2", "hello c 10.0.0.1:3", "hello d 10.0.0.1:4"];
    balanced.reset(&all).await;
    let mut streams = Vec::new();
    for n in 0..u32::from(CLIENTS) {
        let mut stream = balanced.open(GO, &format!("hash--user{n}.hello")).await;
        let ports = sorted_ports(&stream.first_servers().await);
        streams.push((stream, ports[0], false));
    }
    let counters = balanced.counters.clone();
    let now = || (counters.lists_sent.total(), counters.lists_suppressed.total());
    let unbounded = [1, 2, 3, 4].map(|port| streams.iter().filter(|one| one.1 == port).count());
    assert!(unbounded.iter().any(|&count| count > 11), "{unbounded:?}");
    // A backend has room while it has less than 105 % of ten keys.
    let before = now();
    balanced.settle("[service.hello]\nhash.balance-factor = 105\n").await;
    let (bounded, _) = follow(&balanced, &mut streams, before).await;
    assert!(bounded.iter().all(|&count| count <= 11), "{bounded:?}");
    // When a backend leaves, the others take its keys, each within its bound. It had sent away
    // some, which are at their first choice now.
    let before = now();
    let full = (0..4).max_by_key(|&at| unbounded[at]).unwrap();
    balanced.delete(all[full]).await;
    let (left, same) = follow(&balanced, &mut streams, before).await;
    assert!(left[full] == 0 && left.iter().all(|&count| count <= 15), "{left:?}");
    assert!(same > 0);
    // When it returns, it takes keys again, and others lose their first choice where they are.
    let before = now();
    balanced.put(all[full]).await;
    let (back, same) = follow(&balanced, &mut streams, before).await;
    assert!(back.iter().all(|&count| count <= 11), "{back:?}");
    assert!(same > 0);
    // A second stream of a key goes where the first is.
    for n in [0, 7, 31] {
        let mut again = balanced.open(GO, &format!("hash--user{n}.hello")).await;
        assert_eq!(sorted_ports(&again.first_servers().await), [streams[n].1]);
    }
}
