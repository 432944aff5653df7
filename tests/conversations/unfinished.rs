//! Tests messages and calls that never end.
//!
//! In: torn, slow and oversized messages. Out: the status or reset that ends the stream.

use std::time::Duration;

use lookaside::balancer::PATH;
use lookaside::settings::WhenEmpty;
use prost::Message;
use tokio::io::AsyncWriteExt;

use crate::conversations::wire::{Balanced, GO, pb};

#[tokio::test(start_paused = true)]
async fn a_report_without_an_end_ends_its_stream_and_no_other() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut client = balanced.caller(1 << 20).await;
    let mut whole = Balanced::call(&mut client, PATH, GO);
    whole.initial("hello");
    whole.first_servers().await;
    let mut torn = Balanced::call(&mut client, PATH, GO);
    torn.initial("hello");
    torn.first_servers().await;
    let began = tokio::time::Instant::now();
    torn.bytes(&[0, 0, 0, 1, 0, 7]);
    assert_eq!(torn.reset().await, Some(h2::Reason::ENHANCE_YOUR_CALM));
    let after = began.elapsed();
    assert!((Duration::from_secs(9)..=Duration::from_secs(12)).contains(&after), "{after:?}");
    balanced.put("hello b 10.0.0.2:2").await;
    assert_eq!(whole.servers().await.len(), 2);
}

/// A report that comes in many pieces is read once it is whole.
#[tokio::test(start_paused = true)]
async fn a_report_in_pieces_is_read() {
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("hello a 10.0.0.1:1").await;
    let mut stream = balanced.open(GO, "hello").await;
    stream.first_servers().await;
    let report = pb::ClientStats { num_calls_started: 7, ..Default::default() };
    let kind = Some(pb::load_balance_request::LoadBalanceRequestType::ClientStats(report));
    let message = pb::LoadBalanceRequest { load_balance_request_type: kind }.encode_to_vec();
    let length = u8::try_from(message.len()).unwrap();
    for byte in [&[0, 0, 0, 0, length], &message[..]].concat() {
        stream.bytes(&[byte]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(balanced.reported("hello", 1).await.started, 7);
}

#[tokio::test(start_paused = true)]
async fn other_services_hold_one_short_message_and_not_for_long() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut client = balanced.caller(1 << 20).await;
    let began = tokio::time::Instant::now();
    // A message that is too long is refused as soon as its length is known.
    let mut huge = Balanced::call(&mut client, CHECK, GO);
    huge.bytes(&[0, 0, 64, 0, 0]);
    let (code, text) = huge.status().await;
    assert_eq!((code, text.as_str()), (8, "the message has 4194304 bytes: at most 4096 are read"));
    // A whole message is answered although the client does not end its side.
    let mut whole = Balanced::call(&mut client, CHECK, GO);
    whole.bytes(&[0, 0, 0, 0, 0]);
    assert_eq!(whole.answer().await, 7);
    assert!(began.elapsed() < Duration::from_secs(1));
    // The balancer does not wait for a message that does not end.
    let late = (4, "the message did not come within 5 seconds".to_owned());
    for said in [&[][..], &[0, 0, 0, 16, 0, 1]] {
        let mut torn = Balanced::call(&mut client, CHECK, GO);
        torn.bytes(said);
        assert_eq!(torn.status().await, late);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reflection_ends_when_its_client_falls_silent_and_a_watch_does_not() {
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let minute = Duration::from_secs(60);
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut client = balanced.caller(1 << 20).await;
    let mut watch = Balanced::call(&mut client, "/grpc.health.v1.Health/Watch", GO);
    watch.bytes(&[0, 0, 0, 0, 0]);
    assert_eq!(watch.answer().await, 7);
    let mut reflection = Balanced::call(&mut client, REFLECTION, GO);
    for _ in 0..3 {
        // A request for the list of services.
        reflection.message(&[0x3a, 0]);
        assert!(reflection.answer().await > 20);
        tokio::time::sleep(minute - Duration::from_secs(5)).await;
    }
    let end = tokio::time::timeout(Duration::from_secs(6), reflection.status()).await;
    assert_eq!(end.expect("it ends").0, 0);
    assert!(tokio::time::timeout(10 * minute, watch.answer()).await.is_err());
}

#[tokio::test]
async fn watches_of_one_address_are_counted_and_checks_are_not() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let mut client = balanced.caller(1 << 20).await;
    let mut begin = |method: &str| {
        let mut call = Balanced::call(&mut client, &format!("/grpc.health.v1.Health/{method}"), GO);
        call.bytes(&[0, 0, 0, 0, 0]);
        call
    };
    let mut watches: Vec<_> = (0..32).map(|_| begin("Watch")).collect();
    for watch in &mut watches {
        assert_eq!(watch.answer().await, 7);
    }
    assert_eq!(begin("Watch").status().await.0, 8);
    assert_eq!(begin("Check").answer().await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_speaks_is_let_go() {
    let balanced = Balanced::start(WhenEmpty::Wait).await;
    let (mut peer, serving) = balanced.connect_raw();
    peer.write_all(b"PRI * HTTP/2.0").await.unwrap();
    let began = tokio::time::Instant::now();
    assert!(!serving.await.unwrap());
    assert!(began.elapsed() <= Duration::from_secs(6));
}
