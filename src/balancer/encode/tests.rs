//! Tests encoded lists by decoding them with protobuf's own rules.

use std::sync::Arc;

use bytes::Buf;
use pb::load_balance_response::LoadBalanceResponseType as Kind;

use super::*;
use crate::catalog::ServiceSnapshot;
use crate::model::{BackendAddr, Class, Endpoint, ServiceName, Weight};
use crate::policy;

mod decision;

fn service(endpoints: usize) -> Service {
    weighing(endpoints, |_| Weight::DEFAULT)
}

fn weighing(endpoints: usize, weight: impl Fn(usize) -> Weight) -> Service {
    let endpoint = |i: usize| {
        let port = u16::try_from(i % 60_000).unwrap() + 1;
        let host = u8::try_from(i / 60_000).unwrap() + 1;
        let ip = if i.is_multiple_of(2) {
            std::net::IpAddr::from([10, 0, 0, host])
        } else {
            std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)])
        };
        let addr = BackendAddr::new(ip, port).unwrap();
        let id = Arc::from(format!("{i:06}"));
        Endpoint { id, addr, weight: weight(i), meta: Arc::default() }
    };
    let endpoints = (0..endpoints).map(endpoint).collect();
    let name = ServiceName::new("hello").unwrap();
    Service::new(
        1,
        ServiceSnapshot::new(name, 1, endpoints),
        crate::settings::ServiceSettings::DEFAULT,
    )
}

fn list(entries: usize) -> EncodedList {
    let service = service(entries);
    EncodedList::new(&service, &policy::decide(&service, &Class::default()), 0)
}

fn rank(stream: u64) -> StreamRank {
    StreamRank { stream, streams: 1_000 }
}

/// Reads the messages of a frame, whatever pieces it comes in.
fn messages(message: Pieces) -> Vec<Kind> {
    let mut bytes = message.to_bytes();
    let mut messages = Vec::new();
    while bytes.has_remaining() {
        assert_eq!(bytes.get_u8(), 0);
        let length = bytes.get_u32() as usize;
        assert!(length <= MESSAGE_MAX);
        let message = pb::LoadBalanceResponse::decode(bytes.split_to(length)).unwrap();
        messages.push(message.load_balance_response_type.unwrap());
    }
    messages
}

fn servers(message: Pieces) -> Vec<pb::Server> {
    match messages(message).as_slice() {
        [Kind::ServerList(list)] => list.servers.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_are_addresses_in_network_order_with_tokens() {
    let servers = servers(list(2).message(list(2).all()));
    assert_eq!(servers[0].ip_address, [10, 0, 0, 1]);
    assert_eq!((servers[0].port, servers[0].drop), (1, false));
    assert_eq!(servers[1].ip_address.len(), 16);
    assert_ne!(servers[0].load_balance_token, servers[1].load_balance_token);
    assert_eq!(servers[0].load_balance_token.len(), 16);
}

#[test]
fn a_short_list_is_sent_whole_begun_elsewhere() {
    let list = list(5);
    let plain = servers(list.message(list.window(rank(0))));
    let mut firsts = std::collections::BTreeSet::new();
    for stream in 0..12 {
        let found = servers(list.message(list.window(rank(stream))));
        let first = plain.iter().position(|one| *one == found[0]).unwrap();
        firsts.insert(first);
        let mut expected = plain.clone();
        expected.rotate_left(first);
        assert_eq!(found, expected);
    }
    assert_eq!(firsts.len(), 5);
}

#[test]
fn a_list_begins_elsewhere_than_the_one_before() {
    let service = service(100);
    let decision = policy::decide(&service, &Class::default());
    let first = |number| {
        let list = EncodedList::new(&service, &decision, number);
        servers(list.message(list.window(rank(7))))[0].load_balance_token.clone()
    };
    let firsts: std::collections::BTreeSet<_> = (0..100).map(first).collect();
    assert!(firsts.len() > 60, "{}", firsts.len());
}

#[test]
fn a_long_cycle_is_sent_in_windows() {
    let service = weighing(1_500, |i| Weight(50 + i as u32 % 49));
    let list = EncodedList::new(&service, &policy::decide(&service, &Class::default()), 3);
    assert!(list.len() > 12_000 && list.omitted() == 0, "{}", list.len());
    let whole: Vec<_> = {
        let pb = pb::ServerList::decode(list.entries.clone()).unwrap();
        pb.servers.iter().cycle().take(list.len() + 3_000).cloned().collect()
    };
    for stream in 0..40 {
        let found = servers(list.message(list.window(rank(stream))));
        assert_eq!(found.len(), 3_000);
        let (start, end) = list.window(rank(stream)).ends();
        assert!(found == whole[start..end]);
        let mut unique = servers(list.unique_message(list.window(rank(stream)), 1, b""));
        unique[0].load_balance_token.truncate(found[0].load_balance_token.len());
        assert!(unique == found);
    }
    // Windows are longer if there are few streams.
    assert_eq!(
        servers(list.message(list.window(StreamRank { stream: 9, streams: 9 }))).len(),
        4_096
    );
}

#[test]
fn a_unique_list_differs_in_one_token_only() {
    let list = list(3);
    let before = response(Kind::FallbackResponse(pb::FallbackResponse {}));
    let found = messages(list.unique_message(list.window(rank(4)), 7, &before));
    let [Kind::FallbackResponse(_), Kind::ServerList(unique)] = found.as_slice() else {
        panic!("{found:?}")
    };
    let mut expected = servers(list.message(list.window(rank(4))));
    expected[0].load_balance_token.push_str("~00000007");
    assert_eq!(unique.servers, expected);
}

#[test]
fn empty_and_drop_lists() {
    // An empty list is still a list: the oneof is set.
    assert_eq!(servers(EncodedList::empty().message(EncodedList::empty().all())), []);
    assert_eq!(
        servers(EncodedList::empty().unique_message(EncodedList::empty().all(), 1, b"")),
        []
    );
    let dropped =
        servers(EncodedList::drop_all().unique_message(EncodedList::drop_all().all(), 1, b""));
    assert_eq!(dropped.len(), 1);
    assert!(dropped[0].drop && dropped[0].load_balance_token == "drop~00000001");
}

#[test]
fn of_a_list_over_the_limit_each_stream_gets_what_one_message_holds() {
    let list = list(150_000);
    assert!(list.omitted() > 0);
    let mut seen = std::collections::HashSet::new();
    for stream in 0..40 {
        let found = servers(list.message(list.window(rank(stream))));
        assert!(found.len() > 60_000 && found.len() == list.window(rank(stream)).length as usize);
        assert_eq!(
            servers(list.unique_message(list.window(rank(stream)), u32::MAX, b"")).len(),
            found.len()
        );
        seen.extend(found.into_iter().map(|server| (server.ip_address, server.port)));
    }
    assert_eq!(seen.len(), 150_000);
}
