//! Server lists as bytes: encoded once, sent to many.
//!
//! In: a snapshot and an assignment. Out: an [`EncodedList`], and from it [`Pieces`]
//! for each stream: the same shared bytes, begun at another entry.
//! Pure. It never makes a message that a client's 4 MiB limit would refuse.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::catalog::ServiceSnapshot;
use crate::http2::Pieces;
use crate::policy::Assignment;

use super::{pb, token};

/// A server list, ready to be sent to any number of streams.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EncodedList {
    /// gRPC's prefix, and the tag and length of the list.
    head: Bytes,
    /// The entries, one after the other.
    entries: Bytes,
    /// Where each entry begins.
    offsets: Vec<u32>,
    /// How many entries there was no room for.
    pub(super) cut: usize,
}

/// gRPC's own limit for a received message is 4 MiB; over it a stream fails
/// after its initial response, and every client retries at once, for ever.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// Room for the tag, the length and a nonce.
const HEAD_ROOM: usize = 64;

impl EncodedList {
    /// The assigned endpoints in their order.
    pub(super) fn new(snapshot: &ServiceSnapshot, assignment: &Assignment) -> Self {
        let tokens: Vec<String> =
            snapshot.endpoints.iter().map(|e| token::token(&snapshot.name, e.addr)).collect();
        let servers = assignment.0.iter().map(|&turn| {
            let addr = snapshot.endpoints[turn].addr;
            let ip_address = match addr.ip() {
                std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
                std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let (port, load_balance_token) = (addr.port().into(), tokens[turn].clone());
            pb::Server { ip_address, port, load_balance_token, drop: false }
        });
        Self::encode(servers)
    }

    /// One entry that makes every call fail at once.
    pub(super) fn drop_all() -> Self {
        let load_balance_token = token::DROP.to_owned();
        Self::encode([pb::Server { load_balance_token, drop: true, ..Default::default() }])
    }

    /// One entry that refuses every connection at once: no server can have
    /// port 0. No token, for nobody will read it.
    pub(super) fn unreachable() -> Self {
        let ip_address = std::net::Ipv4Addr::LOCALHOST.octets().to_vec();
        Self::encode([pb::Server { ip_address, ..Default::default() }])
    }

    /// No entries.
    pub(super) fn empty() -> Self {
        Self::encode([])
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The list, begun at an entry that the seed chooses.
    pub(super) fn frame(&self, seed: u64) -> Pieces {
        let at = self.offset(self.turn(seed));
        Pieces::from([self.head.clone(), self.entries.slice(at..), self.entries.slice(..at)])
    }

    /// The same, unlike any list the client may have had before: the first
    /// entry's token carries a nonce. `before` is sent in front of it.
    pub(super) fn unique_frame(&self, seed: u64, nonce: u32, before: &[u8]) -> Pieces {
        let turn = self.turn(seed);
        let (at, end) = (self.offset(turn), self.offset(turn + 1));
        let mut list = pb::ServerList::decode(self.entries.slice(at..end)).unwrap_or_default();
        for server in &mut list.servers {
            server.load_balance_token = token::unique(&server.load_balance_token, nonce);
        }
        let first = list.encode_to_vec();
        let rest = self.entries.len() - (end - at);
        let mut head = BytesMut::with_capacity(before.len() + HEAD_ROOM + first.len());
        head.put_slice(before);
        put_head(&mut head, first.len() + rest);
        head.put_slice(&first);
        Pieces::from([head.freeze(), self.entries.slice(end..), self.entries.slice(..at)])
    }

    fn encode(servers: impl IntoIterator<Item = pb::Server>) -> Self {
        let mut entries = BytesMut::new();
        let mut offsets = Vec::new();
        let mut cut = 0;
        for server in servers {
            let entry = pb::ServerList { servers: vec![server] };
            if entries.len() + entry.encoded_len() + HEAD_ROOM > MESSAGE_MAX {
                cut += 1;
                continue;
            }
            offsets.push(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            entries.reserve(entry.encoded_len());
            let _ = entry.encode(&mut entries);
        }
        let mut head = BytesMut::with_capacity(HEAD_ROOM);
        put_head(&mut head, entries.len());
        Self { head: head.freeze(), entries: entries.freeze(), offsets, cut }
    }

    fn turn(&self, seed: u64) -> usize {
        let turns = u64::try_from(self.len().max(1)).unwrap_or(1);
        usize::try_from(seed % turns).unwrap_or(0)
    }

    fn offset(&self, turn: usize) -> usize {
        self.offsets.get(turn).map_or(self.entries.len(), |&at| at as usize)
    }
}

/// A response with gRPC's prefix.
pub(super) fn response(kind: pb::load_balance_response::LoadBalanceResponseType) -> Bytes {
    let message = pb::LoadBalanceResponse { load_balance_response_type: Some(kind) };
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    put_prefix(&mut bytes, message.encoded_len());
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// gRPC's prefix and everything of the response that stands before the
/// list's entries.
fn put_head(head: &mut BytesMut, entries: usize) {
    // Field 2 of the response, length-delimited.
    const TAG: u8 = 2 << 3 | 2;
    let length = u64::try_from(entries).unwrap_or(u64::MAX);
    put_prefix(head, 1 + prost::encoding::encoded_len_varint(length) + entries);
    head.put_u8(TAG);
    prost::encoding::encode_varint(length, head);
}

/// Not compressed, and so many bytes long.
fn put_prefix(bytes: &mut BytesMut, length: usize) {
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests;
