//! Responses are what the protocol's own encoder would write.

use prost::Message;
use prost_types::Any;

use super::*;
use crate::xds::pb::envoy::service::discovery::v3::DiscoveryResponse;

fn with_body(body: &[u8], version: u64) -> Assignment {
    let mut one = Assignment::none();
    (one.body, one.version) = (Bytes::copy_from_slice(body), version);
    one
}

fn decoded(response: &Response) -> DiscoveryResponse {
    let bytes = response.pieces.concat();
    let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
    assert_eq!((bytes[0], bytes.len()), (0, 5 + length));
    DiscoveryResponse::decode(&bytes[5..]).unwrap()
}

#[test]
fn shared_bytes_stand_in_a_well_formed_response() {
    let (one, other) = (with_body(&[0x12, 1, 7], 0xa), with_body(&[0x12; 300], 0xb));
    let any = |name: &str, body: &[u8]| {
        let length = u8::try_from(name.len()).unwrap();
        let value = [&[0x0a, length], name.as_bytes(), body].concat();
        Any { type_url: Kind::Endpoints.url().to_owned(), value }
    };
    let single = endpoints(&[("hello", &one)], 7);
    assert_eq!(
        decoded(&single),
        DiscoveryResponse {
            version_info: "000000000000000a".to_owned(),
            resources: vec![any("hello", &one.body)],
            type_url: Kind::Endpoints.url().to_owned(),
            nonce: "7".to_owned(),
        }
    );
    let several = endpoints(&[("hello", &one), ("b", &other), ("", &one)], 8);
    let all = vec![any("hello", &one.body), any("b", &other.body), any("", &one.body)];
    assert_eq!(decoded(&several).resources, all);
    assert_ne!(several.version, single.version);
}

fn whole(kind: Kind, names: &[&str], nonce: u64) -> Response {
    let mut whole = Whole::new(kind);
    let settings = ServiceSettings::DEFAULT;
    names.iter().for_each(|name| assert!(whole.add(name, &settings).is_some()));
    whole.finish(nonce)
}

#[test]
fn resources_stand_in_a_well_formed_response() {
    let mut response = Whole::new(Kind::Cluster);
    let settings = ServiceSettings::DEFAULT;
    let version = response.add("good", &settings).unwrap();
    let only = resource(Kind::Cluster, "good", &settings);
    assert_eq!(version, resources::version(&only));
    let expected = DiscoveryResponse {
        version_info: version_text(hash::pair(0, version)),
        resources: vec![only],
        type_url: Kind::Cluster.url().to_owned(),
        nonce: "7".to_owned(),
    };
    assert_eq!(decoded(&response.finish(7)), expected);
}

#[test]
fn versions_follow_from_content_alone() {
    let version = |names: &[&str], nonce| whole(Kind::Listener, names, nonce).version;
    assert_eq!(version(&["a", "b"], 1), version(&["a", "b"], 2));
    assert_ne!(version(&["a", "b"], 1), version(&["a"], 1));
}

/// Listeners of ten thousand names fit, and no response is longer than clients take.
#[test]
fn what_does_not_fit_is_left_out() {
    const LIMIT: usize = 4 * 1024 * 1024;
    let settings = ServiceSettings::DEFAULT;
    let added = |kind: Kind, length: usize| {
        let mut whole = Whole::new(kind);
        let names = (0..10_000).map(|n| format!("{n:0length$}"));
        let added = names.filter(|name| whole.add(name, &settings).is_some()).count();
        let response = whole.finish(u64::MAX);
        let bytes = response.pieces.concat().len();
        assert!(bytes <= LIMIT, "{bytes}");
        (added, bytes)
    };
    assert_eq!(added(Kind::Listener, 40).0, 10_000);
    assert_eq!(added(Kind::Cluster, 100).0, 10_000);
    let (some, bytes) = added(Kind::Listener, 250);
    assert!(some < 10_000 && bytes > LIMIT - 8 * 1024, "{some} in {bytes}");
}
