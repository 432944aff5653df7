//! Tests the balancer's side of grpclb over an in-memory transport.
//!
//! In: bytes of clients. Out: the balancer's messages, as they are on the wire. The
//! clients here write HTTP/2 and protobuf themselves, so that they can break the rules.
//! tests/interop.rs tests real clients.

#[allow(missing_docs, unreachable_pub, reason = "tests document themselves")]
#[path = "conversations/wire.rs"]
mod wire;

#[path = "conversations/health.rs"]
mod health;
#[path = "conversations/marks.rs"]
mod marks;
#[path = "conversations/overload.rs"]
mod overload;
#[path = "conversations/settings.rs"]
mod settings;
#[path = "conversations/sharing.rs"]
mod sharing;
#[path = "conversations/splits.rs"]
mod splits;
#[path = "conversations/subsets.rs"]
mod subsets;
#[path = "conversations/unfinished.rs"]
mod unfinished;
#[path = "conversations/xds.rs"]
mod xds;
#[path = "conversations/xds_decisions.rs"]
mod xds_decisions;
#[path = "conversations/xds_reports.rs"]
mod xds_reports;
#[path = "conversations/xds_settings.rs"]
mod xds_settings;
#[path = "conversations/zones.rs"]
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lookaside::load::Calls;
use lookaside::registry::Event;
use lookaside::settings::WhenEmpty;
use lookaside::telemetry::Told;
use tokio::io::AsyncWriteExt;
use wire::{Balanced, GO, JAVA, Kind, PYTHON, pb};

const ALL: [&str; 3] = [GO, JAVA, PYTHON];

fn ports(servers: &[pb::Server]) -> Vec<i32> {
    servers.iter().map(|server| server.port).collect()
}

fn sorted_ports(servers: &[pb::Server]) -> Vec<i32> {
    let mut ports = ports(servers);
    ports.sort_unstable();
    ports
}

fn without_nonce(token: &str) -> &str {
    token.split('~').next().unwrap()
}

// ---- order

#[tokio::test]
async fn the_initial_response_comes_once_and_a_list_at_once_after_it() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    for client in ALL {
        let mut stream = balanced.open(client, "hello.lookaside.internal:443").await;
        let Kind::InitialResponse(initial) = stream.next().await else { panic!() };
        let interval = initial.client_stats_report_interval.unwrap();
        assert!((10..=11).contains(&interval.seconds), "{interval:?}");
        let servers = stream.servers().await;
        assert_eq!(servers[0].ip_address, [10, 0, 0, 1]);
        assert_eq!(servers[0].port, 1);
        assert!(stream.silent().await);
        balanced.put("hello b 10.0.0.2:2").await;
        assert_eq!(sorted_ports(&stream.servers().await), [1, 2]);
        balanced.delete("hello b 10.0.0.2:2").await;
        assert_eq!(ports(&stream.servers().await), [1]);
    }
}

#[tokio::test]
async fn without_reports_the_interval_is_absent() {
    let mut balanced = Balanced::unread(WhenEmpty::Wait, Duration::ZERO);
    balanced.reset(&["hello a 10.0.0.1:1"]).await;
    let mut stream = balanced.open(GO, "hello").await;
    let Kind::InitialResponse(initial) = stream.next().await else { panic!() };
    assert_eq!(initial.client_stats_report_interval, None);
}

#[tokio::test]
async fn a_second_initial_request_and_nonsense_change_nothing() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(PYTHON, "hello").await;
    stream.first_servers().await;
    stream.initial("other");
    stream.request(None);
    stream.message(b"\xff\xff\xff");
    stream.report(pb::ClientStats { num_calls_started: -1, ..Default::default() });
    stream.report(pb::ClientStats { num_calls_started: i64::MAX, ..Default::default() });
    assert!(stream.silent().await);
    balanced.put("hello b 10.0.0.2:2").await;
    assert_eq!(stream.servers().await.len(), 2);
    assert_eq!(balanced.counters.reports_rejected.total(), 5);
    assert_eq!(balanced.reported("hello", 0).await, Calls::default());
}

// ---- refusals, always before the initial response

#[tokio::test]
async fn before_the_registry_is_read_streams_are_refused() {
    let mut balanced = Balanced::unread(WhenEmpty::Wait, Duration::from_secs(10));
    let mut early = balanced.open(GO, "hello").await;
    let unread = (14, "the registry has not been read yet".to_owned());
    assert_eq!(early.status().await, unread);
    balanced.reset(&["hello a 10.0.0.1:1"]).await;
    assert_eq!(balanced.open(GO, "hello").await.first_servers().await.len(), 1);
}

#[tokio::test]
async fn what_is_no_first_message_is_refused() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let invalid = |text: &str| (3, text.to_owned());

    let mut stats_first = balanced.connect(GO).await;
    stats_first.report(pb::ClientStats::default());
    let wanted = invalid("the first message must be an initial_request");
    assert_eq!(stats_first.status().await, wanted);

    let mut nothing_in_it = balanced.connect(GO).await;
    nothing_in_it.request(None);
    assert_eq!(nothing_in_it.status().await, wanted);

    let mut garbage = balanced.connect(GO).await;
    garbage.message(b"\xff\xff\xff\xff");
    let (code, text) = garbage.status().await;
    assert_eq!(code, 3);
    assert!(text.starts_with("the first message cannot be read"), "{text}");

    let mut not_text = balanced.connect(GO).await;
    not_text.message(b"\x0a\x04\x0a\x02\xff\xfe");
    assert_eq!(not_text.status().await.0, 3);

    let mut nothing = balanced.connect(GO).await;
    nothing.close();
    assert_eq!(nothing.status().await, invalid("the stream ended before its first message"));

    let mut half = balanced.connect(GO).await;
    half.bytes(&[0, 0, 0, 0, 9, 1]);
    half.close();
    assert_eq!(half.status().await, invalid("the stream ended before its first message"));

    let mut compressed = balanced.connect(GO).await;
    compressed.bytes(&[1, 0, 0, 0, 1, 7]);
    assert_eq!(compressed.status().await.0, 12);

    let mut huge = balanced.connect(GO).await;
    huge.bytes(&[0, 0, 1, 0, 1]);
    assert_eq!(huge.status().await.0, 8);

    assert_eq!(balanced.counters.streams_refused.total(), 8);
    assert_eq!(balanced.counters.streams.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_message_that_does_not_come_is_not_waited_for() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut silent = balanced.connect(GO).await;
    let late = (4, "the first message did not come within 5 seconds".to_owned());
    assert_eq!(silent.status().await, late);
    let mut slow = balanced.connect(GO).await;
    slow.bytes(&[0, 0, 0]);
    assert_eq!(slow.status().await, late);
}

#[tokio::test]
async fn names_that_mean_no_service_are_refused() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    for name in ["", ".", ":443", "lookaside.internal", "a..b", "a b", "a\nb", "a%ff"] {
        assert_eq!(balanced.open(GO, name).await.status().await.0, 3, "{name:?}");
    }
    let (code, text) = balanced.open(GO, &"a".repeat(10_240)).await.status().await;
    assert_eq!((code, text.as_str()), (3, "the name has 10240 bytes: at most 255 are allowed"));
    assert!(balanced.clients().is_empty());
}

// ---- names

#[tokio::test]
async fn a_name_finds_its_service_in_every_spelling() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced
        .reset(&["hello a 10.0.0.1:1", "dev/game 7 10.0.0.1:7", "greet.rpc a 10.0.0.1:3"])
        .await;
    let check = async |name: &str, port| {
        let servers = balanced.open(JAVA, name).await.first_servers().await;
        assert_eq!(ports(&servers), [port], "{name}");
    };
    for name in ["hello", "hello:443", "Hello.LookAside.Internal.:1", "HELLO", "hello."] {
        check(name, 1).await;
    }
    for name in ["game.dev", "game.dev.lookaside.internal", "dev/game", "dev%2Fgame"] {
        check(name, 7).await;
    }
    check("greet.rpc.lookaside.internal", 3).await;
}

#[tokio::test]
async fn a_name_outside_the_zone_is_a_service_as_it_stands() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello.example.com a 10.0.0.1:1").await;
    let servers = balanced.open(GO, "hello.example.com:443").await.first_servers().await;
    assert_eq!(ports(&servers), [1]);
}

#[tokio::test]
async fn a_client_that_came_first_gets_the_first_server_when_it_registers() {
    for client in ALL {
        let mut balanced = Balanced::start(WhenEmpty::Wait).await;
        let mut stream = balanced.open(client, "hello").await;
        stream.first_servers().await;
        assert!(stream.silent().await);
        balanced.put("hello a 10.0.0.1:1").await;
        assert_eq!(ports(&stream.servers().await), [1]);
    }
}

#[tokio::test]
async fn leading_labels_select_instances() {
    let mut balanced = Balanced::start(WhenEmpty::Drop).await;
    balanced.reset(&["dev/game 7 10.0.0.1:7 zone=a", "dev/game 8 10.0.0.1:8 zone=b"]).await;
    let mut seven = balanced.open(GO, "id--7.game.dev").await;
    assert_eq!(ports(&seven.first_servers().await), [7]);
    let mut zone = balanced.open(GO, "zone--b.game.dev.lookaside.internal").await;
    assert_eq!(ports(&zone.first_servers().await), [8]);
    let mut nine = balanced.open(JAVA, "id--9.game.dev").await;
    assert!(nine.first_servers().await[0].drop);
    balanced.put("dev/game 9 10.0.0.1:9").await;
    assert_eq!(ports(&nine.servers().await), [9]);
    assert!(seven.silent().await);
}

// ---- lists

#[tokio::test]
async fn addresses_are_four_or_sixteen_bytes() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced
        .reset(&[
            "hello a 10.0.0.1:1",
            "hello b [2001:db8::1]:2",
            "hello c [::ffff:10.0.0.3]:65535",
        ])
        .await;
    let mut servers = balanced.open(GO, "hello").await.first_servers().await;
    servers.sort_by_key(|server| server.port);
    let lengths: Vec<_> = servers.iter().map(|server| server.ip_address.len()).collect();
    assert_eq!(lengths, [4, 16, 4]);
    assert_eq!(servers[2].ip_address, [10, 0, 0, 3]);
}

#[tokio::test]
async fn tokens_are_printable_short_and_the_same_for_every_client() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.reset(&["hello a 10.0.0.1:1", "hello b 10.0.0.2:2", "world a 10.0.0.1:1"]).await;
    let mut tokens: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..10 {
        for server in balanced.open(PYTHON, "hello").await.first_servers().await {
            let token = server.load_balance_token;
            assert!(token.len() < 50 && token.bytes().all(|b| b.is_ascii_graphic()), "{token}");
            tokens.entry(server.port).or_default().insert(without_nonce(&token).to_owned());
        }
    }
    assert!(tokens.values().all(|tokens| tokens.len() == 1), "{tokens:?}");
    assert_ne!(tokens[&1], tokens[&2]);
    let world = balanced.open(PYTHON, "world").await.first_servers().await;
    assert!(!tokens[&1].contains(without_nonce(&world[0].load_balance_token)));
}

#[tokio::test]
async fn the_first_list_of_a_stream_is_unlike_any_other() {
    let mut balanced = Balanced::start(WhenEmpty::Drop).await;
    balanced.put("hello a 10.0.0.1:1").await;
    // With one entry, a rotation cannot make the difference.
    for name in ["hello", "nobody"] {
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            let servers = balanced.open(PYTHON, name).await.first_servers().await;
            assert!(seen.insert(servers[0].load_balance_token.clone()), "{seen:?}");
        }
    }
    // A list after the first has no nonce.
    let mut stream = balanced.open(PYTHON, "hello").await;
    stream.first_servers().await;
    balanced.put("hello b 10.0.0.2:2").await;
    let later = stream.servers().await;
    assert!(later.iter().all(|server| !server.load_balance_token.contains('~')), "{later:?}");
}

#[tokio::test]
async fn each_stream_begins_elsewhere_and_elsewhere_in_each_list() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.reset(&["s a 10.0.0.1:1", "s b 10.0.0.1:2", "s c 10.0.0.1:3", "s d 10.0.0.1:4"]).await;
    let mut begun = BTreeSet::new();
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = balanced.open(JAVA, "s").await;
        let first = ports(&stream.first_servers().await);
        let mut expected = vec![1, 2, 3, 4];
        expected.rotate_left(usize::try_from(first[0] - 1).unwrap());
        assert_eq!(first, expected);
        begun.insert(first[0]);
        streams.push((stream, first[0]));
    }
    // All equal by chance: 4 * (3/4)^60, less than one in a million.
    assert_eq!(begun.len(), 4);
    balanced.put("s a 10.0.0.1:1 weight=0").await;
    balanced.put("s a 10.0.0.1:1").await;
    let mut moved = 0;
    for (stream, begun) in &mut streams {
        let mut last = ports(&stream.servers().await);
        while last.len() != 4 {
            last = ports(&stream.servers().await);
        }
        moved += usize::from(last[0] != *begun);
    }
    // grpc-java begins each list at its first entry.
    assert!(moved > streams.len() / 2, "{moved} of {}", streams.len());
}

#[tokio::test]
async fn weights_are_interleaved_repeats() {
    let mut balanced = Balanced::start(WhenEmpty::Drop).await;
    balanced
        .reset(&["s a 10.0.0.1:1 weight=6", "s b 10.0.0.1:2 weight=4", "s c 10.0.0.1:3 weight=0"])
        .await;
    let mut stream = balanced.open(JAVA, "s").await;
    let mut turns = ports(&stream.first_servers().await);
    assert_eq!(turns.len(), 5);
    let twice = turns.repeat(2);
    assert!(twice.windows(2).filter(|pair| pair[0] == pair[1]).count() <= 2, "{twice:?}");
    turns.sort_unstable();
    assert_eq!(turns, [1, 1, 1, 2, 2]);
    balanced.reset(&["s c 10.0.0.1:3 weight=0"]).await;
    assert!(stream.servers().await[0].drop);
}

#[tokio::test]
async fn what_changes_nothing_for_clients_is_not_sent() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.reset(&["hello a 10.0.0.1:1", "hello b 10.0.0.2:2"]).await;
    let mut stream = balanced.open(PYTHON, "hello").await;
    stream.first_servers().await;
    balanced.put("hello a 10.0.0.1:1").await;
    balanced.put("hello a 10.0.0.1:1 colour=red").await;
    balanced.put("other a 10.0.0.1:1").await;
    balanced.put("hello copy-of-b 10.0.0.2:2").await;
    balanced.reset(&["hello a 10.0.0.1:1", "hello b 10.0.0.2:2"]).await;
    assert!(stream.silent().await);
    assert_eq!(balanced.counters.lists_sent.total(), 1);
    assert!(balanced.counters.lists_suppressed.total() > 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_the_newest_only() {
    const CHANGES: i32 = 8;
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    let all: Vec<String> = (1..=60_000).map(|port| format!("big {port} 10.0.0.1:{port}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    balanced.reset(&all).await;
    // The list is over a megabyte: more than the window and the pipe hold together.
    let mut stream = balanced.open(GO, "big").await;
    let mut other = balanced.open(GO, "big").await;
    other.first_servers().await;
    for port in 1..=CHANGES {
        balanced.put(&format!("big new 10.0.0.2:{port}")).await;
        // A client that reads is not delayed.
        assert_eq!(other.servers().await.len(), 60_001);
    }
    stream.first_servers().await;
    let mut lists = 0;
    loop {
        lists += 1;
        let servers = stream.servers().await;
        if servers.iter().any(|s| s.ip_address == [10, 0, 0, 2] && s.port == CHANGES) {
            break;
        }
    }
    assert!(lists <= 3, "{lists} lists for {CHANGES} changes");
}

// ---- without backends

#[tokio::test]
async fn clients_of_an_empty_service_get_what_their_kind_understands() {
    let told = async |when_empty, client: &str, later: bool| {
        let mut balanced = Balanced::start(when_empty).await;
        if later {
            balanced.put("hello a 10.0.0.1:1").await;
        }
        let mut stream = balanced.open(client, "hello").await;
        if later {
            stream.first_servers().await;
            balanced.delete("hello a 10.0.0.1:1").await;
        } else {
            assert!(matches!(stream.next().await, Kind::InitialResponse(_)));
        }
        let told = match stream.next().await {
            Kind::ServerList(list) if list.servers.is_empty() => "empty",
            Kind::ServerList(list) if list.servers.iter().all(|s| s.drop) => "drop",
            Kind::ServerList(list) if ports(&list.servers) == [0] => "unreachable",
            Kind::FallbackResponse(_) => "fallback",
            other => panic!("{other:?}"),
        };
        // A backend that registers is listed, whatever was sent before.
        balanced.put("hello b 10.0.0.2:2").await;
        assert_eq!(ports(&stream.servers().await), [2]);
        told
    };
    for later in [false, true] {
        assert_eq!(told(WhenEmpty::Wait, GO, later).await, "unreachable");
        assert_eq!(told(WhenEmpty::Wait, JAVA, later).await, "empty");
        assert_eq!(told(WhenEmpty::Wait, PYTHON, later).await, "empty");
        assert_eq!(told(WhenEmpty::Wait, "", later).await, "empty");
        for client in ALL {
            let drop = if client == GO { "unreachable" } else { "drop" };
            assert_eq!(told(WhenEmpty::Drop, client, later).await, drop);
            assert_eq!(told(WhenEmpty::Fallback, client, later).await, "fallback");
        }
    }
}

#[tokio::test]
async fn the_list_after_a_fallback_is_unlike_the_one_before_it() {
    let mut balanced = Balanced::start(WhenEmpty::Fallback).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(PYTHON, "hello").await;
    let first = stream.first_servers().await;
    balanced.delete("hello a 10.0.0.1:1").await;
    assert!(matches!(stream.next().await, Kind::FallbackResponse(_)));
    balanced.put("hello a 10.0.0.1:1").await;
    assert_ne!(stream.servers().await, first);
}

// ---- the registry's troubles

#[tokio::test]
async fn losing_the_registry_changes_no_list_and_refuses_nobody() {
    let mut balanced = Balanced::start(WhenEmpty::Fallback).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(PYTHON, "hello").await;
    stream.first_servers().await;
    let stale = Event::Stale { since: Instant::now(), reason: "gone".into() };
    balanced.say(stale).await;
    assert!(stream.silent().await);
    assert_eq!(ports(&balanced.open(GO, "hello").await.first_servers().await), [1]);
    balanced.reset(&["hello a 10.0.0.1:1"]).await;
    assert!(stream.silent().await);
}

// ---- reports

#[tokio::test]
async fn reports_are_summed_by_service_and_by_client() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut one = balanced.open(PYTHON, "hello").await;
    let mut two = balanced.open(JAVA, "hello.lookaside.internal").await;
    one.first_servers().await;
    two.first_servers().await;
    let stats = |started, finished, dropped| pb::ClientStats {
        num_calls_started: started,
        num_calls_finished: finished,
        num_calls_finished_known_received: finished,
        calls_finished_with_drop: vec![pb::ClientStatsPerToken {
            load_balance_token: "drop".into(),
            num_calls: dropped,
        }],
        ..Default::default()
    };
    one.report(stats(10, 8, 1));
    one.report(stats(0, 2, 0));
    two.report(stats(100, 100, 5));
    (0..100).for_each(|_| two.report(pb::ClientStats::default()));
    let expected =
        Calls { started: 110, finished: 110, failed_to_send: 0, known_received: 110, dropped: 6 };
    assert_eq!(balanced.reported("hello", 103).await, expected);
    let clients = balanced.clients();
    let started: Vec<_> = clients.iter().map(|client| client.calls.started).collect();
    assert_eq!(started, [10, 100]);
    assert_eq!((&*clients[0].user_agent, &*clients[1].name), (PYTHON, "hello.lookaside.internal"));
    assert_eq!((clients[0].told, clients[0].entries), (Told::List, 1));
    assert_eq!(clients[0].peer.to_string(), "192.0.2.1:1234");
}

#[tokio::test]
async fn a_flood_of_reports_is_read_to_its_end() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(PYTHON, "hello").await;
    stream.first_servers().await;
    // The reports exceed all windows: the balancer must give read bytes back to the
    // window, or a client could not report after some days.
    let token = pb::ClientStatsPerToken { load_balance_token: "x".repeat(50), num_calls: 1 };
    for _ in 0..5_000 {
        let calls_finished_with_drop = vec![token.clone()];
        stream.report(pb::ClientStats {
            num_calls_started: 1,
            calls_finished_with_drop,
            ..Default::default()
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(balanced.reported("hello", 5_000).await.started, 5_000);
    balanced.put("hello b 10.0.0.2:2").await;
    assert_eq!(stream.servers().await.len(), 2);
}

// ---- ends

#[tokio::test]
async fn a_client_that_closes_its_side_is_let_go() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(GO, "hello").await;
    stream.first_servers().await;
    stream.close();
    assert_eq!(stream.status().await.0, 0);
}

#[tokio::test]
async fn a_client_that_is_gone_leaves_nothing_behind() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(GO, "hello").await;
    stream.first_servers().await;
    assert_eq!(balanced.clients().len(), 1);
    drop(stream);
    while !balanced.clients().is_empty() {
        tokio::task::yield_now().await;
    }
}

/// HTTP/2's keepalive finds a client that vanished without closing.
#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_let_go() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let (mut peer, serving) = balanced.connect_raw();
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let began = tokio::time::Instant::now();
    assert!(serving.await.unwrap(), "it spoke HTTP/2");
    let after = began.elapsed();
    assert!((Duration::from_secs(30)..=Duration::from_secs(60)).contains(&after), "{after:?}");
}

/// The client answers pings, so keepalive does not find it. It never opens its window.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_for_a_minute_is_let_go() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    tokio::spawn(balanced.balancer.clone().sweep());
    balanced.put("hello a 10.0.0.1:1").await;
    let mut reading = balanced.open(GO, "hello").await;
    reading.first_servers().await;
    let _stalled = balanced.open_with_window(0, GO, "hello").await;
    while balanced.clients().len() < 2 {
        tokio::task::yield_now().await;
    }
    // The first list waits in the connection; the connection does not ask for this one.
    balanced.put("hello b 10.0.0.2:2").await;
    assert_eq!(reading.servers().await.len(), 2);
    let began = tokio::time::Instant::now();
    while balanced.clients().len() == 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((55..=120).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    // A client that is sent nothing is not stalled, however long that lasts.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    balanced.put("hello c 10.0.0.3:3").await;
    assert_eq!(reading.servers().await.len(), 3);
}

#[tokio::test]
async fn shutting_down_ends_streams_with_a_reason_and_refuses_new_ones() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(GO, "hello").await;
    stream.first_servers().await;
    balanced.catalog.close();
    let closing = (14, "the balancer is shutting down".to_owned());
    // New streams are refused while the old stream is open, too.
    assert_eq!(balanced.open(GO, "hello").await.status().await, closing);
    assert_eq!(stream.status().await, closing);
    assert_eq!(balanced.open(GO, "hello").await.status().await, closing);
    assert_eq!(balanced.open(GO, "other").await.status().await, closing);
}
