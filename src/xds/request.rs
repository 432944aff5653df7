//! A client's request, of which the names are read in place.
//!
//! In: a message. Out: its names, and the rest as the protocol defines it. Pure. Every answer
//! to a response repeats all names, so ten thousand of them are compared with the former ones
//! by a hash, and nothing is allocated for them.

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::pb::envoy::service::discovery::v3::DiscoveryRequest;

/// A message of a client.
#[derive(Debug)]
pub(super) struct ReadRequest {
    pub(super) names: Names,
    /// All fields but the names.
    pub(super) rest: DiscoveryRequest,
    /// How many bytes these take.
    pub(super) rest_bytes: usize,
}

/// The names in a request, as the client wrote them.
#[derive(Debug, Clone)]
pub(super) struct Names {
    message: Bytes,
    all: NamesHash,
}

/// A number of names, and a hash of them and of their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NamesHash {
    pub(super) count: u32,
    pub(super) hash: u64,
}

/// The field of the names.
const NAMES: u32 = 3;

impl ReadRequest {
    /// Reads a message; `None` if it is no request.
    pub(super) fn read(message: Bytes) -> Option<Self> {
        let (mut hasher, mut count) = (DefaultHasher::new(), 0);
        let mut others = Vec::new();
        let mut fields = Fields(&message);
        while !fields.0.is_empty() {
            match fields.read()? {
                Field::Name(name) => {
                    add(&mut hasher, name);
                    count += 1;
                }
                Field::Other(bytes) => others.extend_from_slice(bytes),
            }
        }
        let rest = DiscoveryRequest::decode(&others[..]).ok()?;
        let names = Names { message, all: NamesHash { count, hash: hasher.finish() } };
        Some(Self { names, rest, rest_bytes: others.len() })
    }
}

impl Names {
    /// Returns what other names do not have.
    pub(super) fn hash(&self) -> NamesHash {
        self.all
    }

    /// Returns the names that follow those with this hash, if all of these come first.
    pub(super) fn beyond(&self, first: NamesHash) -> Option<impl Iterator<Item = &str>> {
        if first.count == 0 || first.count > self.all.count {
            return None;
        }
        let (mut names, mut hasher) = (self.iter(), DefaultHasher::new());
        names.by_ref().take(first.count as usize).for_each(|name| add(&mut hasher, name));
        (hasher.finish() == first.hash).then_some(names)
    }

    #[cfg(test)]
    pub(super) fn of(names: &[&str]) -> Self {
        let resource_names = names.iter().map(ToString::to_string).collect();
        let request = DiscoveryRequest { resource_names, ..DiscoveryRequest::default() };
        ReadRequest::read(request.encode_to_vec().into()).unwrap().names
    }

    /// Returns how many bytes the request has.
    pub(super) fn bytes(&self) -> usize {
        self.message.len()
    }

    /// Returns the names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut fields = Fields(&self.message);
        std::iter::from_fn(move || {
            loop {
                match fields.read()? {
                    Field::Name(name) => return Some(name),
                    Field::Other(_) => {}
                }
            }
        })
    }
}

fn add(hasher: &mut DefaultHasher, name: &str) {
    hasher.write(name.as_bytes());
    hasher.write_u8(0xff);
}

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Name(&'a str),
    /// Another field, with its tag.
    Other(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// Returns the next field; `None` at the end, or if there is no valid field.
    fn read(&mut self) -> Option<Field<'a>> {
        let field = self.0;
        if field.is_empty() {
            return None;
        }
        let (tag, kind) = decode_key(&mut self.0).ok()?;
        if (tag, kind) != (NAMES, WireType::LengthDelimited) {
            skip_field(kind, tag, &mut self.0, DecodeContext::default()).ok()?;
            return Some(Field::Other(&field[..field.len() - self.0.len()]));
        }
        let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
        let (name, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(name).ok().map(Field::Name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(request: &DiscoveryRequest) -> ReadRequest {
        ReadRequest::read(request.encode_to_vec().into()).unwrap()
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_the_protocol_says(
            names in proptest::collection::vec("[a-zß]{0,200}", 0..20),
            nonce in "[0-9]{0,3}",
        ) {
            let request = DiscoveryRequest {
                version_info: "v".to_owned(),
                resource_names: names.clone(),
                type_url: "t".to_owned(),
                response_nonce: nonce,
                ..DiscoveryRequest::default()
            };
            let found = read(&request);
            prop_assert_eq!(found.names.iter().collect::<Vec<_>>(), names);
            let rest = DiscoveryRequest { resource_names: Vec::new(), ..request };
            prop_assert_eq!(found.rest, rest);
        }

        #[test]
        fn whatever_the_protocol_refuses_is_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let expected = DiscoveryRequest::decode(&bytes[..]).ok();
            let found = ReadRequest::read(bytes.into()).map(|found| {
                let resource_names = found.names.iter().map(ToOwned::to_owned).collect();
                DiscoveryRequest { resource_names, ..found.rest }
            });
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn equal_names_have_one_hash_whatever_the_rest_and_others_have_another() {
        let hash = |names: &[&str], nonce: &str| {
            let resource_names = names.iter().map(ToString::to_string).collect();
            let response_nonce = nonce.to_owned();
            let rest = DiscoveryRequest { resource_names, response_nonce, ..Default::default() };
            read(&rest).names.hash()
        };
        assert_eq!(hash(&["a", "b"], "1"), hash(&["a", "b"], "2"));
        for others in [&["b", "a"][..], &["ab"], &["a"], &[], &["a", "b", ""]] {
            assert_ne!(hash(&["a", "b"], ""), hash(others, ""));
        }
    }

    #[test]
    fn names_that_follow_others_are_found() {
        let names = Names::of(&["a", "b", "c"]);
        let beyond = |first: &[&str]| {
            let first = Names::of(first).hash();
            Names::of(&["a", "b", "c"]).beyond(first).map(|all| all.collect::<String>())
        };
        assert_eq!([beyond(&["a"]), beyond(&["a", "b"])], ["bc", "c"].map(|all| Some(all.into())));
        assert_eq!(names.beyond(names.hash()).map(Iterator::count), Some(0));
        for other in [&["b"][..], &["b", "a"], &["ab"], &[], &["a", "b", "c", "d"]] {
            assert_eq!(beyond(other), None, "{other:?}");
        }
    }
}
