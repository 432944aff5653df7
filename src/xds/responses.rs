//! Responses as bytes.
//!
//! In: resources. Out: [`Pieces`] that a stream sends. Pure. A response with one assignment
//! shares its bytes with all streams; only its head and tail are the stream's own.

use bytes::{BufMut, Bytes, BytesMut};
use lookaside_http2::Pieces;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::policy::hash;
use crate::settings::ServiceSettings;

use super::assignment::Assignment;
use super::resources::{self, Kind, resource};

/// The bytes before a gRPC message: a flag and the length.
const PREFIX: usize = 5;
/// More than a response with endpoints has beside its resources: its type, version and nonce.
const AROUND: usize = 160;
/// More than a resource has beside its name and its body: its type and lengths.
const OPENING: usize = 96;
/// The most bytes of a field's tag and length.
const FIELD_MAX: usize = 6;

/// gRPC's limit for a received message is 4 MiB. A client that gets a longer one ends the
/// stream and asks again, for ever. The rest is for the head.
const WHOLE_MAX: usize = 4 * 1024 * 1024 - 1024;

/// A response, and the version that it gives its resources.
pub(super) struct Response {
    pub(super) pieces: [Bytes; 3],
    pub(super) version: u64,
}

/// A response with listeners or clusters, in the making.
pub(super) struct Whole {
    kind: Kind,
    bytes: Vec<u8>,
    version: u64,
}

impl Whole {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, bytes: vec![0; PREFIX], version: 0 }
    }

    /// Adds the resource of a name, by the settings of what it means. Returns the version of the
    /// resource; `None` if the response has no room for it.
    pub(super) fn add(&mut self, name: &str, settings: &ServiceSettings) -> Option<u64> {
        let resource = resource(self.kind, name, settings);
        let length = resource.encoded_len();
        if self.bytes.len() + FIELD_MAX + length > WHOLE_MAX {
            return None;
        }
        put_length(&mut self.bytes, 2, length);
        // A vector takes everything.
        let _ = resource.encode(&mut self.bytes);
        let version = resources::version(&resource);
        self.version = hash::pair(self.version, version);
        Some(version)
    }

    /// Returns the response.
    pub(super) fn finish(self, nonce: u64) -> Response {
        let Self { kind, mut bytes, version } = self;
        put_text(&mut bytes, 1, &version_text(version));
        put_text(&mut bytes, 4, kind.url());
        put_text(&mut bytes, 5, &nonce.to_string());
        let length = u32::try_from(bytes.len() - PREFIX).unwrap_or(u32::MAX);
        bytes[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        bytes.shrink_to_fit();
        Response { pieces: [bytes.into(), Bytes::new(), Bytes::new()], version }
    }
}

/// Returns a message with the prefix of gRPC.
pub(super) fn framed(message: &impl Message) -> Pieces {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    put_prefix(&mut framed, length);
    // It has room.
    let _ = message.encode(&mut framed);
    framed.freeze().into()
}

/// Returns the response with the assignments of these names. There must be one at least.
/// The bytes of a single assignment are shared, those of several are copied.
pub(super) fn endpoints(all: &[(&str, &Assignment)], nonce: u64) -> Response {
    let version = match all {
        [(_, only)] => only.version,
        several => several.iter().fold(0, |sum, (_, one)| hash::pair(sum, one.version)),
    };
    let (last, before) = match all {
        [before @ .., last] => (last, before),
        [] => return Response { pieces: <[Bytes; 3]>::default(), version },
    };
    // The stream's own bytes, before and after the shared ones, lie in one piece of memory.
    let room = |(name, _): &(&str, &Assignment)| name.len() + OPENING;
    let copied = |(_, assignment): &(&str, &Assignment)| assignment.body.len();
    let room = AROUND + all.iter().map(room).sum::<usize>();
    let mut own = BytesMut::with_capacity(room + before.iter().map(copied).sum::<usize>());
    own.put_bytes(0, PREFIX);
    put_text(&mut own, 1, &version_text(version));
    for (name, assignment) in before {
        put_opening(&mut own, name, assignment);
        own.put_slice(&assignment.body);
    }
    put_opening(&mut own, last.0, last.1);
    let head = own.len();
    put_text(&mut own, 4, Kind::Endpoints.url());
    put_text(&mut own, 5, &nonce.to_string());
    let body = last.1.body.clone();
    let length = own.len() - PREFIX + body.len();
    put_prefix(&mut &mut own[..PREFIX], length);
    let own = own.freeze();
    Response { pieces: [own.slice(..head), body, own.slice(head..)], version }
}

/// Returns a version as clients are sent it and operators are shown it.
pub(super) fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

/// Writes everything of a resource but the assignment's body, which must follow.
fn put_opening(out: &mut BytesMut, name: &str, assignment: &Assignment) {
    let url = Kind::Endpoints.url();
    let value = text_len(name) + assignment.body.len();
    let any = text_len(url) + 1 + encoded_len_varint(value as u64) + value;
    put_length(out, 2, any);
    put_text(out, 1, url);
    put_length(out, 2, value);
    put_text(out, 1, name);
}

fn put_text(out: &mut impl BufMut, tag: u8, text: &str) {
    put_length(out, tag, text.len());
    out.put_slice(text.as_bytes());
}

/// Writes the tag and the length of a field that has a length. Tags below 16 take a byte.
fn put_length(out: &mut impl BufMut, tag: u8, length: usize) {
    const HAS_LENGTH: u8 = 2;
    out.put_u8(tag << 3 | HAS_LENGTH);
    encode_varint(length as u64, out);
}

/// Returns the length of a text's field.
fn text_len(text: &str) -> usize {
    1 + encoded_len_varint(text.len() as u64) + text.len()
}

fn put_prefix(out: &mut impl BufMut, length: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests;
