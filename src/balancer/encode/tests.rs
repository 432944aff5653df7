//! What is encoded, decoded again by protobuf's own rules.

use std::sync::Arc;

use bytes::Buf;
use pb::load_balance_response::LoadBalanceResponseType as Kind;

use super::*;
use crate::model::{BackendAddr, Endpoint, ServiceName, Weight};

fn snapshot(endpoints: usize) -> ServiceSnapshot {
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
        Endpoint { id, addr, weight: Weight::DEFAULT, meta: Arc::default() }
    };
    let endpoints = (0..endpoints).map(endpoint).collect();
    ServiceSnapshot::new(ServiceName::new("hello").unwrap(), 1, endpoints)
}

fn list(entries: usize) -> EncodedList {
    EncodedList::new(&snapshot(entries), &Assignment((0..entries).collect()))
}

/// Reads the messages that a frame holds, in whatever pieces it comes.
fn messages(frame: Pieces) -> Vec<Kind> {
    let mut bytes = frame.to_bytes();
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

fn servers(frame: Pieces) -> Vec<pb::Server> {
    match messages(frame).as_slice() {
        [Kind::ServerList(list)] => list.servers.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_are_addresses_in_network_order_with_tokens() {
    let servers = servers(list(2).frame(0));
    assert_eq!(servers[0].ip_address, [10, 0, 0, 1]);
    assert_eq!((servers[0].port, servers[0].drop), (1, false));
    assert_eq!(servers[1].ip_address.len(), 16);
    assert_ne!(servers[0].load_balance_token, servers[1].load_balance_token);
    assert_eq!(servers[0].load_balance_token.len(), 16);
}

#[test]
fn a_rotation_is_the_same_list_begun_elsewhere() {
    let list = list(5);
    let plain = servers(list.frame(0));
    for seed in 0..12 {
        let mut expected = plain.clone();
        expected.rotate_left(seed % 5);
        assert_eq!(servers(list.frame(seed as u64)), expected);
    }
}

#[test]
fn a_unique_list_differs_in_one_token_only() {
    let list = list(3);
    let before = response(Kind::FallbackResponse(pb::FallbackResponse {}));
    let found = messages(list.unique_frame(4, 7, &before));
    let [Kind::FallbackResponse(_), Kind::ServerList(unique)] = found.as_slice() else {
        panic!("{found:?}")
    };
    let mut expected = servers(list.frame(4));
    expected[0].load_balance_token.push_str("~00000007");
    assert_eq!(unique.servers, expected);
}

#[test]
fn empty_and_drop_lists() {
    // An empty list is still a list: the oneof is there.
    assert_eq!(servers(EncodedList::empty().frame(9)), []);
    assert_eq!(servers(EncodedList::empty().unique_frame(9, 1, b"")), []);
    let dropped = servers(EncodedList::drop_all().unique_frame(9, 1, b""));
    assert_eq!(dropped.len(), 1);
    assert!(dropped[0].drop && dropped[0].load_balance_token == "drop~00000001");
}

#[test]
fn a_list_over_the_limit_is_cut_not_sent() {
    let list = list(150_000);
    assert!(list.cut > 0 && list.len() > 60_000);
    assert_eq!(list.len() + list.cut, 150_000);
    assert_eq!(servers(list.frame(1)).len(), list.len());
    assert_eq!(servers(list.unique_frame(1, u32::MAX, b"")).len(), list.len());
}
