//! The lists that a crowd of clients got, with times. Tests with faults check them.
//!
//! In: lists as they arrive. Out: rows in the order of arrival. Equal sets of backends are
//! stored once.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::xds::Resources;

/// A set of backends.
pub type Set = BTreeSet<SocketAddr>;

/// All events of a crowd.
#[derive(Debug, Default)]
pub struct History {
    pub received: Vec<Received>,
    pub lost: Vec<Lost>,
    /// The waits of clients without a list, including those for a first list.
    pub waits: Vec<Wait>,
    /// All distinct sets of backends.
    pub sets: Vec<Set>,
    known: HashMap<u64, u32>,
    /// When clients of xDS were sent listeners and clusters.
    pub described: Vec<Instant>,
    /// The rules of xDS that responses broke, in words: the first few.
    pub broken: Vec<String>,
    pub(super) resources: Resources,
    /// Streams that were refused before their initial response.
    pub refused: u64,
    /// TCP connections that could not be made.
    pub unconnected: u64,
}

/// How many broken rules are kept.
const BROKEN_MAX: usize = 5;

/// A client got a list or a fallback response.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub client: u32,
    /// The number of the client's stream, from 1.
    pub stream: u32,
    pub at: Instant,
    pub what: Content,
}

/// The content of such a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Backends, by their index in [`History::sets`].
    Servers(u32),
    /// A list without a usable backend.
    Nothing,
    /// The order to use the fallback addresses from DNS.
    Fallback,
}

/// A stream ended after its list.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub client: u32,
    pub at: Instant,
}

/// A client without a list got one.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    pub client: u32,
    pub ended: Instant,
    pub took: Duration,
}

impl History {
    /// Returns the content of a list. Adds its set of backends if it is new.
    pub fn what<I: Iterator<Item = SocketAddr>>(&mut self, servers: impl Fn() -> I) -> Content {
        let (mut sum, mut count) = (0_u64, 0_usize);
        for server in servers() {
            // The order of the entries does not matter, and a sum does not depend on it.
            sum = sum.wrapping_add(mixed(server));
            count += 1;
        }
        if count == 0 {
            return Content::Nothing;
        }
        let sets = &mut self.sets;
        let index = *self.known.entry(sum).or_insert_with(|| {
            sets.push(servers().collect());
            u32::try_from(sets.len() - 1).expect("there are fewer")
        });
        Content::Servers(index)
    }

    /// Notes a rule that a response broke.
    pub(super) fn breaks(&mut self, name: &str, what: &str) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(format!("a client of {name} was sent {what}"));
        }
    }

    /// Returns the number of listeners and clusters that came after a moment.
    pub fn described_since(&self, at: Instant) -> usize {
        self.described.len() - self.described.partition_point(|described| *described <= at)
    }

    /// Returns the number of lists that came after a moment.
    pub fn received_since(&self, at: Instant) -> usize {
        self.received.len() - self.received.partition_point(|received| received.at <= at)
    }

    pub fn lost_since(&self, at: Instant) -> usize {
        self.lost.len() - self.lost.partition_point(|lost| lost.at <= at)
    }

    /// Returns the waits that ended after a moment, the shortest first.
    pub fn waits_since(&self, at: Instant) -> Vec<Duration> {
        let mut waits: Vec<_> =
            self.waits.iter().filter(|wait| wait.ended > at).map(|wait| wait.took).collect();
        waits.sort_unstable();
        waits
    }
}

fn mixed(server: SocketAddr) -> u64 {
    let ip = match server {
        SocketAddr::V4(v4) => u64::from(v4.ip().to_bits()),
        SocketAddr::V6(v6) => (v6.ip().to_bits() >> 64) as u64 ^ v6.ip().to_bits() as u64,
    };
    let mut value = (ip << 16 | u64::from(server.port())).wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
