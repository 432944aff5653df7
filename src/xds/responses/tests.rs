//! Responses are what the protocol's own encoder would write.

use prost::Message;
use prost_types::Any;

use super::*;

fn with_body(body: &[u8], version: u64) -> Assignment {
    let mut one = Assignment::none();
    (one.body, one.version) = (Bytes::copy_from_slice(body), version);
    one
}

fn decoded(response: &Response) -> DiscoveryResponse {
    let bytes = response.message.to_bytes();
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
            resource_errors: Vec::new(),
        }
    );
    let several = endpoints(&[("hello", &one), ("b", &other), ("", &one)], 8);
    let all = vec![any("hello", &one.body), any("b", &other.body), any("", &one.body)];
    assert_eq!(decoded(&several).resources, all);
    assert_ne!(several.version, single.version);
}

#[test]
fn versions_follow_from_content_alone() {
    let version = |names: &[&str], nonce| {
        let settings = |_: &str| Ok(Arc::new(ServiceSettings::DEFAULT));
        whole(Kind::Listener, names.iter().copied(), nonce, settings).0.version
    };
    assert_eq!(version(&["a", "b"], 1), version(&["a", "b"], 2));
    assert_ne!(version(&["a", "b"], 1), version(&["a"], 1));
}
