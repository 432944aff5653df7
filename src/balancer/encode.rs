//! Server lists as bytes: encoded once, sent to many.
//!
//! In: a snapshot and an assignment. Out: an [`EncodedList`], and from it [`Pieces`]
//! for each stream: the same shared bytes, begun at another entry.
//! Pure. It never makes a message that a client's 4 MiB limit would refuse.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use lookaside_http2::Pieces;
use prost::Message;

use crate::catalog::ServiceSnapshot;
use crate::policy::Assignment;
use crate::telemetry::Counters;

use super::pb;
use super::pin::{Held, pin};
use super::token::{self, Tokens};

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
    /// Whether the entries are held by anything.
    pub(super) held: Held,
}

/// gRPC's own limit for a received message is 4 MiB; over it a stream fails
/// after its initial response, and every client retries at once, for ever.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// Room for the tag, the length and a nonce.
const HEAD_ROOM: usize = 64;

impl EncodedList {
    /// The assigned endpoints in their order. Costs what is assigned, whatever
    /// else the snapshot has.
    pub(super) fn new(snapshot: &ServiceSnapshot, assignment: &Assignment) -> Self {
        let tokens = Tokens::new(&snapshot.name);
        let fill = |entry: &mut pb::Server, &place: &usize| {
            let addr = snapshot.endpoints[place].addr;
            entry.ip_address.clear();
            match addr.ip() {
                IpAddr::V4(ip) => entry.ip_address.extend(ip.octets()),
                IpAddr::V6(ip) => entry.ip_address.extend(ip.octets()),
            }
            entry.port = addr.port().into();
            tokens.write(addr, &mut entry.load_balance_token);
        };
        Self::encode(&assignment.0, fill)
    }

    /// One entry that makes every call fail at once.
    pub(super) fn drop_all() -> Self {
        let load_balance_token = token::DROP.to_owned();
        Self::one(pb::Server { load_balance_token, drop: true, ..Default::default() })
    }

    /// One entry that refuses every connection at once: no server can have
    /// port 0. No token, for nobody will read it.
    pub(super) fn unreachable() -> Self {
        let ip_address = std::net::Ipv4Addr::LOCALHOST.octets().to_vec();
        Self::one(pb::Server { ip_address, ..Default::default() })
    }

    /// No entries.
    pub(super) fn empty() -> Self {
        Self::encode(&[], |_, ()| {})
    }

    /// The same list, counted for as long as anything holds its entries.
    pub(super) fn counted(self, counters: &Arc<Counters>) -> Self {
        let (entries, held) = pin(self.entries, counters);
        Self { entries, held, ..self }
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

    fn one(server: pb::Server) -> Self {
        Self::encode(&[server], pb::Server::clone_from)
    }

    /// One entry each, which `fill` makes of what was there for the one before.
    fn encode<T>(of: &[T], fill: impl Fn(&mut pb::Server, &T)) -> Self {
        let mut entries = Vec::new();
        let mut offsets = Vec::with_capacity(of.len());
        let mut cut = 0;
        let mut entry = pb::ServerList { servers: vec![pb::Server::default()] };
        for one in of {
            entry.servers.iter_mut().for_each(|server| fill(server, one));
            let length = entry.encoded_len();
            if entries.len() + length + HEAD_ROOM > MESSAGE_MAX {
                cut += 1;
                continue;
            }
            if offsets.is_empty() {
                // They are about equally long.
                entries.reserve((length * of.len()).min(MESSAGE_MAX));
            }
            offsets.push(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            let _ = entry.encode(&mut entries);
        }
        let mut head = BytesMut::with_capacity(HEAD_ROOM);
        put_head(&mut head, entries.len());
        entries.shrink_to_fit();
        offsets.shrink_to_fit();
        let (head, entries, held) = (head.freeze(), Bytes::from(entries), Held::default());
        Self { head, entries, offsets, cut, held }
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
