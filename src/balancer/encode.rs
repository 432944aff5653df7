//! Server lists as bytes: encoded once, sent to many.
//!
//! In: a service and a decision. Out: an [`EncodedList`], and from it [`Pieces`]
//! for each stream: the same shared bytes, of which each stream is sent its window.
//! Pure. It never makes a message that a client's 4 MiB limit would refuse.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use lookaside_http2::Pieces;
use prost::Message;

use crate::catalog::Service;
use crate::policy::Decision;
use crate::telemetry::Counters;

use super::cycle::{self, Place, Window};
use super::pb;
use super::pin::{Held, pin};
use super::token::{self, Tokens};

/// One cycle of turns as entries, of which any number of streams is sent a window.
#[derive(Debug, PartialEq)]
pub(super) struct EncodedList {
    /// gRPC's prefix, and the tag and length of the list, where that is the whole
    /// cycle.
    head: Bytes,
    /// The entries, one after the other.
    entries: Bytes,
    /// Where each entry begins.
    offsets: Vec<u32>,
    /// How many backends there are in it.
    backends: usize,
    /// How many lists the class had before.
    number: u64,
    /// How far over its share the most favoured backend is: 0.05 is 5 % over.
    pub(super) excess: f32,
    /// Whether the entries are held by anything.
    pub(super) held: Held,
}

/// gRPC's own limit for a received message is 4 MiB; over it a stream fails
/// after its initial response, and every client retries at once, for ever.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// Room for the tag, the length and a nonce.
const HEAD_ROOM: usize = 64;

impl EncodedList {
    /// The picks of a decision, each as often as its weight says: the `number`th
    /// list of its class. Costs what is picked, whatever else the service has.
    pub(super) fn new(service: &Service, decision: &Decision, number: u64) -> Self {
        let tokens = Tokens::new(&service.name);
        let picks = decision.picks();
        let weights = decision.weights();
        let fill = |entry: &mut pb::Server, &turn: &u32| {
            let addr = service.endpoints[picks[turn as usize].endpoint as usize].addr;
            entry.ip_address.clear();
            match addr.ip() {
                IpAddr::V4(ip) => entry.ip_address.extend(ip.octets()),
                IpAddr::V6(ip) => entry.ip_address.extend(ip.octets()),
            }
            entry.port = addr.port().into();
            tokens.write(addr, &mut entry.load_balance_token);
        };
        let counts = cycle::counts(&weights);
        let list = Self::encode(&cycle::order(&counts), fill);
        Self { backends: picks.len(), number, excess: cycle::excess(&weights, &counts), ..list }
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

    /// How many entries the whole cycle has.
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// How many entries a stream is sent.
    pub(super) fn len_for(&self, place: Place) -> usize {
        self.window(place).length
    }

    /// By how many entries the longest message falls short of what a stream should
    /// be sent.
    pub(super) fn cut(&self) -> usize {
        let place = Place::default();
        Window::new(self.len(), self.backends, self.number, place).length - self.len_for(place)
    }

    /// The list for a stream.
    pub(super) fn frame(&self, place: Place) -> Pieces {
        let window = self.window(place);
        let [first, second] = self.slices(window);
        if window.length == self.len() {
            return Pieces::from([self.head.clone(), first, second]);
        }
        let mut head = BytesMut::with_capacity(HEAD_ROOM);
        put_head(&mut head, first.len() + second.len());
        Pieces::from([head.freeze(), first, second])
    }

    /// The same, unlike any list the client may have had before: the first
    /// entry's token carries a nonce. `before` is sent in front of it.
    pub(super) fn unique_frame(&self, place: Place, nonce: u32, before: &[u8]) -> Pieces {
        let Window { start, length } = self.window(place);
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

    /// A stream's window, as far as one message has room.
    fn window(&self, place: Place) -> Window {
        let Window { start, length } = Window::new(self.len(), self.backends, self.number, place);
        let fits = |length: usize| self.bytes(Window { start, length }) <= MESSAGE_MAX - HEAD_ROOM;
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

    /// How many bytes a window's entries have.
    fn bytes(&self, Window { start, length }: Window) -> usize {
        let end = start + length;
        let around = self.offset(end.saturating_sub(self.len()));
        self.offset(end.min(self.len())) - self.offset(start) + around
    }

    /// The entries of a window: to the cycle's end, and from its beginning.
    fn slices(&self, Window { start, length }: Window) -> [Bytes; 2] {
        let (start, end) = (start.min(self.len()), start + length);
        let around = self.offset(end.saturating_sub(self.len()));
        let first = self.offset(start)..self.offset(end.min(self.len()));
        [self.entries.slice(first), self.entries.slice(..around)]
    }

    fn one(server: pb::Server) -> Self {
        Self::encode(&[server], pb::Server::clone_from)
    }

    /// One entry each, which `fill` makes of what was there for the one before.
    fn encode<T>(of: &[T], fill: impl Fn(&mut pb::Server, &T)) -> Self {
        let mut entries = Vec::new();
        let mut offsets = Vec::with_capacity(of.len());
        let mut entry = pb::ServerList { servers: vec![pb::Server::default()] };
        for one in of {
            entry.servers.iter_mut().for_each(|server| fill(server, one));
            if offsets.is_empty() {
                // They are about equally long.
                entries.reserve(entry.encoded_len() * of.len());
            }
            offsets.push(u32::try_from(entries.len()).unwrap_or(u32::MAX));
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
            held: Held::default(),
        }
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
