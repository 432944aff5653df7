//! Server lists as bytes, encoded once and sent to many streams.
//!
//! In: a service and a decision. Out: an [`EncodedList`], and from it [`Pieces`] for each
//! stream. Streams share the bytes; each is sent its window of them. Pure. It never makes
//! a message that a client's 4 MiB limit would refuse.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use lookaside_http2::Pieces;
use prost::Message;

use crate::catalog::Service;
use crate::policy::Decision;
use crate::streams::held_bytes::{WeakHeldBytes, count_held};
use crate::telemetry::{Counters, SentEntry};

use super::cycle::{self, StreamRank, Window};
use super::drops;
use super::pb;
use super::token::{self, Tokens};

/// One cycle, encoded as entries. Any number of streams are sent a window of it.
#[derive(Debug, PartialEq)]
pub(super) struct EncodedList {
    /// gRPC's prefix, and the tag and length of the list, for a list that is the whole
    /// cycle.
    head: Bytes,
    /// The encoded entries, one after the other.
    entries: Bytes,
    /// The offset of each entry, in bytes.
    offsets: Vec<u32>,
    /// How many backends it has.
    backends: usize,
    /// How many lists the class had before.
    number: u64,
    /// How far over its share the most favoured backend is: 0.05 is 5 % over.
    pub(super) excess: f32,
    /// The handle by which one sees whether anything holds the entries.
    pub(super) held: WeakHeldBytes,
}

/// gRPC's own limit for a received message, in bytes. With a longer message a stream
/// fails after its initial response, and every client retries at once, for ever.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// Room for the tag, the length and a nonce.
const HEAD_ROOM: usize = 64;

impl EncodedList {
    /// Encodes the picks of a decision, each as often as its weight and its group's share
    /// say, and the drops among them, as the `number`th list of its class. The cost depends on
    /// the picks, whatever else the service has.
    pub(super) fn new(service: &Service, decision: &Decision, number: u64) -> Self {
        let tokens = Tokens::new(&service.name);
        let picks = decision.picks();
        let fill = |entry: &mut pb::Server, pick: &Option<u32>| {
            let Some(pick) = *pick else { return *entry = drop_entry() };
            entry.drop = false;
            let addr = service.endpoints[picks[pick as usize].endpoint as usize].addr;
            entry.ip_address.clear();
            match addr.ip() {
                IpAddr::V4(ip) => entry.ip_address.extend(ip.octets()),
                IpAddr::V6(ip) => entry.ip_address.extend(ip.octets()),
            }
            entry.port = addr.port().into();
            tokens.write(addr, &mut entry.load_balance_token);
        };
        let counts = cycle::entries_per_pick(decision);
        let entries = drops::with_drops(&cycle::order(&counts), decision.drop_percent);
        let list = Self::encode(&entries, fill);
        Self { backends: picks.len(), number, excess: cycle::excess_of(decision, &counts), ..list }
    }

    /// Makes a list with one entry that makes every call fail at once.
    pub(super) fn drop_all() -> Self {
        Self::one(drop_entry())
    }

    /// Makes a list with one entry that refuses every connection at once, because no
    /// server can have port 0. It has no token, because no server will read it.
    pub(super) fn unreachable() -> Self {
        let ip_address = std::net::Ipv4Addr::LOCALHOST.octets().to_vec();
        Self::one(pb::Server { ip_address, ..Default::default() })
    }

    /// Makes a list without entries.
    pub(super) fn empty() -> Self {
        Self::encode(&[], |_, ()| {})
    }

    /// Counts the list's bytes for as long as anything holds its entries.
    pub(super) fn counted(self, counters: &Arc<Counters>) -> Self {
        let (entries, held) = count_held(self.entries, counters, |all| &all.list_bytes);
        Self { entries, held, ..self }
    }

    /// Returns how many entries the whole cycle has.
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Returns how many entries of a stream's window do not fit into one message.
    pub(super) fn omitted(&self) -> usize {
        let rank = StreamRank::default();
        let whole = Window::new(self.len(), self.backends, self.number, rank);
        (whole.length - self.window(rank).length) as usize
    }

    /// Returns the window with all entries.
    pub(super) fn all(&self) -> Window {
        Window { start: 0, length: small(self.len()) }
    }

    /// Returns the message with the entries of a window.
    pub(super) fn message(&self, window: Window) -> Pieces {
        let [first, second] = self.slices(window);
        if window.length as usize == self.len() {
            return Pieces::from([self.head.clone(), first, second]);
        }
        let mut head = BytesMut::with_capacity(HEAD_ROOM);
        put_head(&mut head, first.len() + second.len());
        Pieces::from([head.freeze(), first, second])
    }

    /// Returns `before` and the message with the entries of a window. The first entry's
    /// token carries a nonce, so that the list differs from every list that the client had.
    pub(super) fn unique_message(&self, window: Window, nonce: u32, before: &[u8]) -> Pieces {
        let Window { start, length } = window;
        let [entry, _] = self.slices(Window { start, length: length.min(1) });
        let mut list = pb::ServerList::decode(entry).unwrap_or_default();
        for server in &mut list.servers {
            server.load_balance_token = token::unique(&server.load_balance_token, nonce);
        }
        let first = list.encode_to_vec();
        let rest = Window { start: start + 1, length: length.saturating_sub(1) };
        let [second, third] = self.slices(rest);
        let mut head = BytesMut::with_capacity(before.len() + HEAD_ROOM + first.len());
        head.put_slice(before);
        put_head(&mut head, first.len() + second.len() + third.len());
        head.put_slice(&first);
        Pieces::from([head.freeze(), second, third])
    }

    /// Returns a stream's window, cut to the room in one message.
    pub(super) fn window(&self, rank: StreamRank) -> Window {
        let Window { start, length } = Window::new(self.len(), self.backends, self.number, rank);
        let fits = |length: u32| self.bytes(Window { start, length }) <= MESSAGE_MAX - HEAD_ROOM;
        if self.entries.len() <= MESSAGE_MAX - HEAD_ROOM || fits(length) {
            return Window { start, length };
        }
        let (mut some, mut many) = (0, length);
        while many - some > 1 {
            let middle = some.midpoint(many);
            if fits(middle) { some = middle } else { many = middle }
        }
        Window { start, length: some }
    }

    /// Returns all entries.
    pub(super) fn shown(&self) -> Vec<SentEntry> {
        shown(&self.entries, self.all())
    }

    /// Returns how many bytes a window's entries have.
    fn bytes(&self, window: Window) -> usize {
        let (start, end) = window.ends();
        let around = self.offset(end.saturating_sub(self.len()));
        self.offset(end.min(self.len())) - self.offset(start) + around
    }

    /// Returns the entries of a window: to the cycle's end, and from its beginning.
    fn slices(&self, window: Window) -> [Bytes; 2] {
        let (start, end) = window.ends();
        let start = start.min(self.len());
        let around = self.offset(end.saturating_sub(self.len()));
        let first = self.offset(start)..self.offset(end.min(self.len()));
        [self.entries.slice(first), self.entries.slice(..around)]
    }

    fn one(server: pb::Server) -> Self {
        Self::encode(&[server], pb::Server::clone_from)
    }

    /// Encodes one entry for each item. `fill` overwrites the entry before.
    fn encode<T>(of: &[T], fill: impl Fn(&mut pb::Server, &T)) -> Self {
        let mut entries = Vec::new();
        let mut offsets = Vec::with_capacity(of.len());
        let mut entry = pb::ServerList { servers: vec![pb::Server::default()] };
        for one in of {
            entry.servers.iter_mut().for_each(|server| fill(server, one));
            if offsets.is_empty() {
                // All entries are about equally long.
                entries.reserve(entry.encoded_len() * of.len());
            }
            offsets.push(small(entries.len()));
            let _ = entry.encode(&mut entries);
        }
        let mut head = BytesMut::with_capacity(HEAD_ROOM);
        put_head(&mut head, entries.len());
        entries.shrink_to_fit();
        Self {
            head: head.freeze(),
            entries: Bytes::from(entries),
            offsets,
            backends: of.len(),
            number: 0,
            excess: 0.0,
            held: WeakHeldBytes::default(),
        }
    }

    fn offset(&self, entry: usize) -> usize {
        self.offsets.get(entry).map_or(self.entries.len(), |&at| at as usize)
    }
}

/// A list has less than 2^32 bytes, and fewer entries.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Returns a window of the encoded entries of a cycle.
pub(super) fn shown(entries: &[u8], window: Window) -> Vec<SentEntry> {
    let list = pb::ServerList::decode(entries).unwrap_or_default();
    let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(octets) => Some(IpAddr::from(octets)),
        Err(_) => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    let entry = |server: &pb::Server| SentEntry {
        backend: ip(&server.ip_address)
            .filter(|_| !server.drop)
            .zip(u16::try_from(server.port).ok())
            .map(SocketAddr::from),
        token: server.load_balance_token.clone(),
    };
    let (start, end) = window.ends();
    list.servers.iter().cycle().skip(start).take(end - start).map(entry).collect()
}

/// Returns an entry that makes a client drop the call.
fn drop_entry() -> pb::Server {
    let load_balance_token = token::DROP.to_owned();
    pb::Server { load_balance_token, drop: true, ..Default::default() }
}

/// Returns a response with gRPC's prefix.
pub(super) fn response(kind: pb::load_balance_response::LoadBalanceResponseType) -> Bytes {
    let message = pb::LoadBalanceResponse { load_balance_response_type: Some(kind) };
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    put_prefix(&mut bytes, message.encoded_len());
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// Writes gRPC's prefix and the part of the response that precedes the list's entries.
fn put_head(head: &mut BytesMut, entries: usize) {
    // Field 2 of the response, length-delimited.
    const TAG: u8 = 2 << 3 | 2;
    let length = u64::try_from(entries).unwrap_or(u64::MAX);
    put_prefix(head, 1 + prost::encoding::encoded_len_varint(length) + entries);
    head.put_u8(TAG);
    prost::encoding::encode_varint(length, head);
}

/// Writes gRPC's prefix for an uncompressed message of `length` bytes.
fn put_prefix(bytes: &mut BytesMut, length: usize) {
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests;
