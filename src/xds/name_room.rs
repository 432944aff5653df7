//! Limits what names take: those of one connection, on all of its streams, those of one
//! network, and all.
//!
//! In: connections, what the names of their streams cost, and names that no stream has yet.
//! Out: how much more a stream may take. It holds a number for each connection and network
//! with many names.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::Network;

/// What names cost.
#[derive(Default)]
pub(super) struct NameRooms(Mutex<Costs>);

#[derive(Default)]
struct Costs {
    connections: HashMap<SocketAddr, usize>,
    networks: HashMap<Network, usize>,
    all: usize,
}

/// A stream's part of its connection's names. It is given back when this is dropped. In a
/// box, because most streams have none.
#[derive(Default)]
pub(super) struct NameRoom(Option<Box<Taken>>);

struct Taken {
    connection: SocketAddr,
    /// What the stream's names cost beyond [`FREE`].
    cost: usize,
    owner: Arc<NameRooms>,
}

/// The room of one name, whatever streams have it. It is given back when this is dropped.
pub(super) struct OneName {
    /// That of the first stream with the name.
    network: Network,
    owner: Arc<NameRooms>,
}

/// The most that the names of a connection may cost, in bytes: ten thousand listeners, as many
/// clusters and endpoints, with names of a hundred bytes.
pub(super) const ROOM: usize = 6 * 1024 * 1024;
/// What the names of each stream may cost beside, in bytes: those of one target. So nothing is
/// kept for most connections.
const FREE: usize = 512;
/// The most that the names of a network may cost: five connections that do their worst, or a
/// thousand processes of Node with a hundred targets.
const NETWORK_ROOM: usize = 32 * 1024 * 1024;
/// The most that all names may cost. They take at most some 2 GB then.
const ALL_ROOM: usize = 8 * NETWORK_ROOM;
/// What a name costs once, whatever streams have it. So there are at most 250,000 names.
const ONE_NAME: usize = ALL_ROOM / 250_000;

impl NameRooms {
    /// Returns what the names of a stream may cost together, which has so much of the room of
    /// its connection.
    pub(super) fn most(&self, connection: SocketAddr, room: &NameRoom) -> usize {
        let cost = room.cost();
        let costs = self.lock();
        let all = costs.connections.get(&connection).copied().unwrap_or(0);
        let own = ROOM.saturating_sub(all.saturating_sub(cost));
        FREE + own.min(cost + costs.left(connection.ip().into()))
    }

    /// Records what the names of a stream cost.
    pub(super) fn set(self: &Arc<Self>, connection: SocketAddr, room: &mut NameRoom, cost: usize) {
        let cost = cost.saturating_sub(FREE);
        match &mut room.0 {
            _ if cost == 0 => room.0 = None,
            Some(taken) => {
                let before = std::mem::replace(&mut taken.cost, cost);
                self.lock().set_stream(connection, before, cost);
            }
            None => {
                self.lock().set_stream(connection, 0, cost);
                room.0 = Some(Box::new(Taken { connection, cost, owner: self.clone() }));
            }
        }
    }

    /// Takes the room of a name that no stream has yet; `None` if there is too little.
    pub(super) fn name(self: &Arc<Self>, ip: IpAddr) -> Option<OneName> {
        let network = ip.into();
        let mut costs = self.lock();
        if costs.left(network) < ONE_NAME {
            return None;
        }
        costs.set(network, 0, ONE_NAME);
        Some(OneName { network, owner: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Costs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Costs {
    /// Returns how much more the names of a network may cost.
    fn left(&self, network: Network) -> usize {
        let own = self.networks.get(&network).copied().unwrap_or(0);
        NETWORK_ROOM.saturating_sub(own).min(ALL_ROOM.saturating_sub(self.all))
    }

    /// Records that something costs a network so much, instead of `before`.
    fn set(&mut self, network: Network, before: usize, cost: usize) {
        self.all = self.all - before + cost;
        replace(&mut self.networks, network, before, cost);
    }

    /// Records that a stream of a connection costs so much, instead of `before`.
    fn set_stream(&mut self, connection: SocketAddr, before: usize, cost: usize) {
        self.set(connection.ip().into(), before, cost);
        replace(&mut self.connections, connection, before, cost);
    }
}

/// Puts a cost into the sum of a holder, instead of `before`.
fn replace<K: Eq + Hash>(sums: &mut HashMap<K, usize>, key: K, before: usize, cost: usize) {
    let sum = sums.get(&key).copied().unwrap_or(0);
    match sum.saturating_sub(before) + cost {
        0 => sums.remove(&key),
        sum => sums.insert(key, sum),
    };
}

impl NameRoom {
    /// Returns what the stream's names cost beyond [`FREE`].
    fn cost(&self) -> usize {
        self.0.as_ref().map_or(0, |taken| taken.cost)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.owner.lock().set_stream(self.connection, self.cost, 0);
    }
}

impl Drop for OneName {
    fn drop(&mut self) {
        self.owner.lock().set(self.network, ONE_NAME, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(rooms: &NameRooms) -> bool {
        let costs = rooms.lock();
        costs.connections.is_empty() && costs.networks.is_empty() && costs.all == 0
    }

    fn connection(last: u8, port: u16) -> SocketAddr {
        ([192, 0, 2, last], port).into()
    }

    /// A stream of a connection.
    struct Stream<'a> {
        rooms: &'a Arc<NameRooms>,
        connection: SocketAddr,
        room: NameRoom,
    }

    impl<'a> Stream<'a> {
        fn of(rooms: &'a Arc<NameRooms>, connection: SocketAddr) -> Self {
            Self { rooms, connection, room: NameRoom::default() }
        }

        fn most(&self) -> usize {
            self.rooms.most(self.connection, &self.room)
        }

        fn set(&mut self, cost: usize) {
            self.rooms.set(self.connection, &mut self.room, cost);
        }
    }

    #[test]
    fn the_streams_of_a_connection_share_its_room() {
        let rooms = Arc::new(NameRooms::default());
        let [mut one, mut other] = [1, 1].map(|port| Stream::of(&rooms, connection(1, port)));
        let room = FREE + ROOM;
        one.set(FREE);
        assert!(is_empty(&rooms), "one target costs nothing");
        one.set(room - 10);
        assert_eq!((one.most(), other.most()), (room, FREE + 10));
        other.set(FREE + 10);
        assert_eq!((one.most(), other.most()), (room - 10, FREE + 10));
        assert_eq!(Stream::of(&rooms, connection(1, 2)).most(), room);
        drop(one);
        assert_eq!(other.most(), room);
        drop(other);
        assert!(is_empty(&rooms));
    }

    #[test]
    fn the_connections_of_a_network_share_its_room_and_all_networks_theirs() {
        let rooms = Arc::new(NameRooms::default());
        let room = FREE + ROOM;
        let streams = |last| -> Vec<_> {
            let stream = |port| {
                let mut stream = Stream::of(&rooms, connection(last, port));
                stream.set(stream.most());
                stream
            };
            (1..=10).map(stream).collect()
        };
        let mut all = vec![streams(1)];
        let costs: Vec<_> = all[0].iter().map(|stream| stream.room.cost()).collect();
        assert_eq!(costs.iter().sum::<usize>(), NETWORK_ROOM);
        assert_eq!((costs[0], costs[9], all[0][0].most(), all[0][9].most()), (ROOM, 0, room, FREE));
        assert_eq!(Stream::of(&rooms, connection(2, 1)).most(), room);
        all.extend((2..=8).map(streams));
        assert_eq!(Stream::of(&rooms, connection(9, 1)).most(), FREE);
        assert_eq!(all[7][0].most(), room, "it keeps what it has");
        all.clear();
        assert!(is_empty(&rooms));
    }

    #[test]
    fn names_are_bounded_by_network_and_together() {
        let rooms = Arc::new(NameRooms::default());
        let held: Vec<_> = std::iter::from_fn(|| rooms.name([192, 0, 2, 1].into())).collect();
        assert_eq!(held.len(), NETWORK_ROOM / ONE_NAME);
        assert_eq!(Stream::of(&rooms, connection(1, 1)).most(), FREE + NETWORK_ROOM % ONE_NAME);
        // Those of other networks are given back at once.
        assert!(rooms.name([192, 0, 2, 2].into()).is_some());
        rooms.lock().all = ALL_ROOM;
        assert!(rooms.name([192, 0, 2, 2].into()).is_none());
        rooms.lock().all = held.len() * ONE_NAME;
        drop(held);
        assert!(is_empty(&rooms));
    }
}
