//! What a crowd of clients was told and when: the record that runs with faults
//! are judged by.
//!
//! In: lists as they arrive. Out: rows in the order of their arrival; equal
//! sets of servers are kept once.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A set of servers.
pub type Set = BTreeSet<SocketAddr>;

/// Everything that happened to a crowd.
#[derive(Debug, Default)]
pub struct History {
    pub told: Vec<Told>,
    pub lost: Vec<Lost>,
    /// How long those who had no list waited for one, first lists included.
    pub waits: Vec<Wait>,
    /// Every different list.
    pub sets: Vec<Set>,
    known: HashMap<u64, u32>,
    /// Streams that were refused before their initial response.
    pub refused: u64,
    /// TCP connections that could not be made.
    pub unconnected: u64,
}

/// A client was told something.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub client: u32,
    /// The client's how manyth stream.
    pub stream: u32,
    pub at: Instant,
    pub what: What,
}

/// What a list may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// Servers, by their index in [`History::sets`].
    Servers(u32),
    /// A list without a server that could answer.
    Nothing,
    /// To use the addresses that DNS gave.
    Fallback,
}

/// A stream ended that had its list.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub client: u32,
    pub at: Instant,
}

/// A client that had no list got one.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    pub client: u32,
    pub ended: Instant,
    pub took: Duration,
}

impl History {
    /// Finds a list among those known, or adds it.
    pub fn what<I: Iterator<Item = SocketAddr>>(&mut self, servers: impl Fn() -> I) -> What {
        let (mut sum, mut count) = (0_u64, 0_usize);
        for server in servers() {
            // Order and repetition of one weight say nothing here; addition
            // forgets the order.
            sum = sum.wrapping_add(mixed(server));
            count += 1;
        }
        if count == 0 {
            return What::Nothing;
        }
        let sets = &mut self.sets;
        let index = *self.known.entry(sum).or_insert_with(|| {
            sets.push(servers().collect());
            u32::try_from(sets.len() - 1).expect("there are fewer")
        });
        What::Servers(index)
    }

    /// How many lists came after that moment.
    pub fn told_since(&self, at: Instant) -> usize {
        self.told.len() - self.told.partition_point(|told| told.at <= at)
    }

    pub fn lost_since(&self, at: Instant) -> usize {
        self.lost.len() - self.lost.partition_point(|lost| lost.at <= at)
    }

    /// The waits that ended after that moment, shortest first.
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
